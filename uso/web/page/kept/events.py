"""What happens in "Your pictures" and in the list of earlier prompts.

Ids come from the browser, so each is checked for its owner: whoever sends another person's id gets nothing.
"""

import asyncio
from typing import Any, NamedTuple

import gradio as gr

from uso.language import Text, joined, tr
from uso.web.access.identity import Asker, asker_of
from uso.web.api.calls import Calls
from uso.web.api.files import take_back
from uso.web.api.turns import Turns
from uso.web.page import html
from uso.web.page.events.pictures import GONE, PictureEvents, Shown
from uso.web.page.inputs import KEEP
from uso.web.page.kept import tiles
from uso.web.store import deletion, history, prune
from uso.web.store.deletion import Deleted

MAX_SEARCH = 200
"""Characters of a search that are read."""

ANCHORS = 5
"""Pictures that say where a page of the history goes on: some may have been deleted meanwhile."""


HIDDEN = gr.update(visible=False)


class Listed(NamedTuple):
    """The components that list pictures."""

    head: Any = KEEP
    tools: Any = KEEP
    tiles: Any = KEEP
    extra: Any = KEEP
    """More pictures, which the browser adds to the list."""
    more: Any = KEEP
    filter: Any = KEEP
    """The row that says what a search finds, while there is one."""
    matches: Any = KEEP
    """How many it finds."""


class GalleryEvents:
    """Bound to one `Calls`."""

    def __init__(self, calls: Calls) -> None:
        self.queue = calls.queue
        self.ledger = calls.ledger
        self._deleting = Turns(1, "delete")
        self._pictures = PictureEvents(calls)

    async def first(self, words: Any, only: Any, current: Any, request: gr.Request) -> Listed:
        """The newest pictures, of those that match.

        Args:
            words: of the search; `only`: favourites alone.
            current: id of the picture that is shown.
        """
        return await asyncio.to_thread(self._first, asker_of(request), words, only, current)

    def _first(self, asker: Asker, words: Any, only: Any, current: Any, arrived: Any = "") -> Listed:
        found = self._recent(asker, words, only)
        filtered = _filters(words, only)
        some = bool(found) or (filtered and bool(history.recent(self.ledger, asker.owner, 1)))
        listed = self._filtered(asker, words, only, arrived) if filtered and some else Listed(filter=HIDDEN)
        return listed._replace(
            head=tiles.head(prune.notice(self.queue.settings), asker.owner is not None, some),
            tools=gr.update(visible=some),
            tiles=tiles.tiles(found[: history.MOST], str(current)) if found else "",
            more=gr.update(visible=len(found) > history.MOST),
        )

    def _filtered(self, asker: Asker, words: Any, only: Any, arrived: Any = "") -> Listed:
        """What the search finds, where there is one.

        Args:
            arrived: id of a picture that has just been made: whether it is listed is said.
        """
        if not _filters(words, only):
            return Listed()
        searched, only = _search(words), only is True
        new = history.own(self.ledger, asker.owner, arrived)
        missing = new is not None and not history.matches(new, searched, only)
        found = history.count(self.ledger, asker.owner, words=searched, favourites=only)
        return Listed(filter=gr.update(visible=True), matches=tiles.matches(found, missing))

    async def newest(self, words: Any, only: Any, current: Any, arrived: Any, top: Any, request: gr.Request) -> Listed:
        """What was made since: pictures that come before the `top` of the list; the list itself where it is empty. A
        search does not hide the one that has just `arrived` without saying so."""
        anchors, asker = _ids(top), asker_of(request)
        if not anchors:
            return await asyncio.to_thread(self._first, asker, words, only, current, arrived)
        found = await asyncio.to_thread(self._recent, asker, words, only, newer=anchors)
        listed = await asyncio.to_thread(self._filtered, asker, words, only, arrived)
        return listed._replace(extra=tiles.extra("afterbegin", tiles.tiles(found, str(current)))) if found else listed

    async def more(self, words: Any, only: Any, current: Any, last: Any, request: gr.Request) -> Listed:
        """The pictures that come after the `last` of the list."""
        found = await asyncio.to_thread(self._recent, asker_of(request), words, only, after=_ids(last))
        return Listed(
            extra=tiles.extra("beforeend", tiles.tiles(found[: history.MOST], str(current))),
            more=gr.update(visible=len(found) > history.MOST),
        )

    def _recent(self, asker: Asker, words: Any, only: Any, **place: list[str]) -> list[Any]:
        """One more than a page, which tells whether there are more."""
        only = only is True
        return history.recent(
            self.ledger, asker.owner, history.MOST + 1, words=_search(words), favourites=only, **place
        )

    async def star(self, chosen: gr.EventData, current: Any, request: gr.Request) -> tuple[Any, Any]:
        """The mark on a picture of the list: (the button under the shown picture, what the browser shows)."""
        data = _data(chosen)
        return await asyncio.to_thread(self._mark, asker_of(request), data.get("picture"), data.get("on"), current)

    async def favourite(self, current: Any, request: gr.Request) -> tuple[Any, Any]:
        """The button under the picture that is shown."""
        asker = asker_of(request)
        found = await asyncio.to_thread(history.own, self.ledger, asker.owner, current)
        on = found is not None and not found.favourite
        return await asyncio.to_thread(self._mark, asker, current, on, current)

    def _mark(self, asker: Asker, picture_id: Any, on: Any, current: Any) -> tuple[Any, Any]:
        on = on is True
        if not history.set_favourite(self.ledger, asker.owner, picture_id, on):
            return KEEP, KEEP
        return _button(on) if picture_id == current else KEEP, tiles.starred(picture_id, on)

    async def look(self, current: Any, request: gr.Request) -> Any:
        """The button under a picture that has just come to be shown."""
        found = await asyncio.to_thread(history.own, self.ledger, asker_of(request).owner, current)
        return KEEP if found is None else _button(found.favourite)

    async def delete(
        self, chosen: gr.EventData, words: Any, only: Any, current: Any, request: gr.Request
    ) -> tuple[Any, ...]:
        """Delete pictures for good, after the browser has asked: (the stage, the list, what the browser removes). Where
        the picture that is shown is one of them, the next is shown."""
        asker, wanted, nearby = asker_of(request), _data(chosen).get("pictures"), _data(chosen).get("next")
        gone, faults = [], []
        async for done in self._deleted(asker, wanted):
            take_back(done.ids)
            gone += done.ids
            faults += [done.fault] if done.fault else []
        if not gone:
            return *Shown(message=html.refusal(GONE)), *Listed(), KEEP
        said = Text("The picture was deleted.") if len(gone) == 1 else Text("{} pictures were deleted.", len(gone))
        shown = Shown(message=html.idle(said))
        if faults:
            sentence = Text("The disk refuses to remove some files ({}). The server goes on trying.", faults[0])
            shown = Shown(message=html.refusal(joined(said, sentence)))
        if current in gone:
            instead = await asyncio.to_thread(self._instead, asker, nearby)
            shown = instead._replace(message=shown.message)
        left = await asyncio.to_thread(history.recent, self.ledger, asker.owner, 1)
        if left:
            return *shown, *await asyncio.to_thread(self._filtered, asker, words, only), tiles.gone(gone)
        return *shown, *await self.first(words, only, "", request), tiles.gone(gone)

    def _instead(self, asker: Asker, nearby: Any) -> Shown:
        """What is shown when the picture that was shown is deleted: the first that is left, or nothing.

        Args:
            nearby: ids of the pictures beside it, from the browser.
        """
        for one in nearby[:ANCHORS] if isinstance(nearby, list) else ():
            found = history.own(self.ledger, asker.owner, one)
            if found is not None:
                return self._pictures.picture(found)
        # The browser takes deleted pictures out of the grid.
        return Shown(picture=None, facts="", actions=HIDDEN, settings="", settings_frame=HIDDEN, picture_id="")

    async def _deleted(self, asker: Asker, wanted: Any) -> Any:
        """Delete in portions: others get their turn in between."""
        if wanted == "all":
            while asker.owner is not None and (done := await self._turn(asker, deletion.delete_some, asker.owner)).ids:
                yield done
        elif isinstance(wanted, list):
            for start in range(0, len(wanted), deletion.AT_ONCE):
                ids = wanted[start : start + deletion.AT_ONCE]
                yield await self._turn(asker, deletion.delete, asker.owner, ids)

    async def _turn(self, asker: Asker, function: Any, *args: Any) -> Deleted:
        return await asyncio.wrap_future(self._deleting.submit(asker.person, function, self.ledger, *args))

    async def prompts(self, request: gr.Request) -> str:
        """The list of earlier prompts, when it is unfolded."""
        owner = asker_of(request).owner
        return tiles.prompts(await asyncio.to_thread(history.prompts, self.ledger, owner), owner is not None)

    async def pick_prompt(self, chosen: gr.EventData, request: gr.Request) -> tuple[Any, Any]:
        """An earlier prompt: (the prompt, the frame of the list)."""
        owner, picture_id = asker_of(request).owner, _data(chosen).get("prompt")
        found = await asyncio.to_thread(history.own, self.ledger, owner, picture_id)
        if found is None:
            return KEEP, KEEP
        saved = await asyncio.to_thread(history.record_of, found)  # an earlier version kept 200 characters of it
        record = saved.record if saved else {}
        prompt = record.get("typed_prompt") or record.get("request", {}).get("prompt", found.prompt)
        return prompt, gr.update(open=False)


def _button(on: bool) -> Any:
    return gr.update(value=tr("Unfavourite") if on else tr("Favourite"))


def _data(chosen: gr.EventData) -> dict[str, Any]:
    return chosen._data if isinstance(chosen._data, dict) else {}


def _filters(words: Any, only: Any) -> bool:
    return bool(_search(words)) or only is True


def _search(words: Any) -> str:
    return words[:MAX_SEARCH].strip() if isinstance(words, str) else ""


def _ids(text: Any) -> list[str]:
    return text.split()[:ANCHORS] if isinstance(text, str) else []
