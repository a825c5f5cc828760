""" "Your pictures": listed page by page, marked, deleted; whose they are; and the list of earlier prompts."""

import asyncio
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from tests.support.visitor import ANN, BEN, Events, made, visitor
from uso.web.jobs.job import Picture
from uso.web.page.events.pictures import GONE, Shown
from uso.web.page.inputs import KEEP
from uso.web.page.kept import tiles
from uso.web.page.kept.events import GalleryEvents, Listed
from uso.web.store import deletion, history
from uso.web.store.ledger import Remembered


@pytest.fixture
def events(serve: Callable[..., Events]) -> Events:
    return serve()


@pytest.fixture
def gallery(events: Events) -> GalleryEvents:
    return GalleryEvents(events.calls)


def first(
    gallery: GalleryEvents, key: str | None = ANN, words: Any = "", only: Any = False, current: Any = ""
) -> Listed:
    return asyncio.run(gallery.first(words, only, current, visitor(key)))


def told(**data: Any) -> gr.EventData:
    return gr.EventData(None, data)


def deleted(
    gallery: GalleryEvents, pictures: Any, key: str | None = ANN, current: str = ""
) -> tuple[Shown, Listed, Any]:
    answer = asyncio.run(gallery.delete(told(pictures=pictures), "", False, current, visitor(key)))
    shown, listed = len(Shown._fields), len(Listed._fields)
    return Shown(*answer[:shown]), Listed(*answer[shown : shown + listed]), answer[-1]


def test_everybody_sees_their_own_newest_first_over_a_restart(serve: Any) -> None:
    """Catches a history that ends with the process, or that shows others' pictures."""
    before = serve()
    made(before, ANN, prompt="a fox", seed=1)
    made(before, BEN, prompt="a heron", seed=2)
    made(before, ANN, prompt="an owl", seed=3)
    before.queue.close()
    gallery = GalleryEvents(serve().calls)
    shown = first(gallery)
    assert shown.tiles.count("data-picture") == 2 and "heron" not in shown.tiles
    assert shown.tiles.index("an owl, seed 3") < shown.tiles.index("a fox, seed 1")
    assert "data:image/webp;base64,UklG" in shown.tiles and shown.tools["visible"] and not shown.more["visible"]
    nobody = first(gallery, "c" * 43)
    assert "None yet." in nobody.head and nobody.tiles == "" and not nobody.tools["visible"]
    assert "keeps no cookies" in first(gallery, None).head


def test_pages_follow_each_other(gallery: GalleryEvents, events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a page that ends the history, repeats a picture, or forgets the search; and a new picture that brings the
    first page back, or is shown though it does not match."""
    monkeypatch.setattr(history, "MOST", 2)
    pictures = [made(events, prompt=prompt)[1] for prompt in ("one fox", "two", "three fox", "four fox")]

    def ids(text: str) -> list[str]:
        return re.findall(r"data-picture=(?:&quot;|\")([0-9a-f]{32})", text)

    assert ids(first(gallery).tiles) == [pictures[3].id, pictures[2].id] and first(gallery).more["visible"]
    last = f"{pictures[3].id} {pictures[2].id}"
    more = asyncio.run(gallery.more("fox", False, "", last, visitor()))
    assert ids(more.extra) == [pictures[0].id] and not more.more["visible"] and "beforeend" in more.extra

    def newest(words: Any, current: Any, top: str) -> Listed:
        return asyncio.run(gallery.newest(words, False, current, current, top, visitor()))

    assert newest("", "", last) == Listed()
    new = made(events, prompt="five")[1]
    added = newest("", new.id, last)
    assert ids(added.extra) == [new.id] and "aria-current" in added.extra and added.tiles == KEEP
    assert newest("fox", new.id, last).extra == KEEP
    assert ids(newest("", new.id, "").tiles) == [new.id, pictures[3].id]
    nothing = first(gallery, words="zebra")
    assert nothing.tiles == "" and nothing.matches == tiles.matches(0, False) and nothing.tools["visible"]


def test_a_search_says_what_it_finds_and_what_it_hides(gallery: GalleryEvents, events: Events) -> None:
    """Catches a search that is forgotten, and hides a picture that was just made without a word."""
    fox = made(events, prompt="a fox")[1]
    assert first(gallery).filter["visible"] is False
    found = first(gallery, words="fox")
    assert found.filter["visible"] and "1 of your pictures matches." in found.matches
    whale = made(events, prompt="a whale")[1]
    for top, words in ((fox.id, "1 of your pictures matches."), ("", "No picture of yours matches.")):
        search = "fox" if top else "zebra"
        hidden = asyncio.run(gallery.newest(search, False, "", whale.id, top, visitor())).matches
        assert words in hidden and "The new picture does not match, so it is not listed." in hidden
    other = made(events, prompt="another fox")[1]
    listed = asyncio.run(gallery.newest("fox", False, "", other.id, fox.id, visitor()))
    assert listed.matches == tiles.matches(2, False) and other.id in listed.extra
    assert "not listed" in asyncio.run(gallery.newest("", True, "", other.id, fox.id, visitor())).matches
    assert "not listed" not in asyncio.run(gallery.newest("fox", False, "", "0" * 32, fox.id, visitor())).matches
    assert asyncio.run(gallery.delete(told(pictures=[other.id]), "fox", False, "", visitor()))[-2] == tiles.matches(
        1, False
    )


@pytest.mark.parametrize("wrong", [None, 7, {"a": 1}, ["a"], "x" * 10**6, "' OR 1=1 --"])
def test_a_search_from_a_browser_may_be_anything(gallery: GalleryEvents, events: Events, wrong: Any) -> None:
    """Catches a value that is taken on trust."""
    made(events, prompt="a fox")
    first(gallery, words=wrong, only=wrong, current=wrong)
    asyncio.run(gallery.more(wrong, wrong, wrong, wrong, visitor()))
    asyncio.run(gallery.newest(wrong, wrong, wrong, wrong, wrong, visitor()))
    for chosen in (gr.EventData(None, wrong), told(picture=wrong, on=wrong, pictures=wrong, prompt=wrong, next=wrong)):
        assert asyncio.run(gallery.star(chosen, wrong, visitor())) == (KEEP, KEEP)
        assert asyncio.run(gallery.pick_prompt(chosen, visitor())) == (KEEP, KEEP)
        assert (
            GONE in asyncio.run(gallery.delete(chosen, wrong, wrong, wrong, visitor()))[Shown._fields.index("message")]
        )


def test_anothers_pictures_are_not_there(gallery: GalleryEvents, events: Events) -> None:
    """Catches an event that takes an id from a browser without checking its owner."""
    picture = made(events, ANN, prompt="a secret")[1]
    assert asyncio.run(gallery.star(told(picture=picture.id, on=True), picture.id, visitor(BEN))) == (KEEP, KEEP)
    assert asyncio.run(gallery.favourite(picture.id, visitor(BEN))) == (KEEP, KEEP)
    assert asyncio.run(gallery.look(picture.id, visitor(BEN))) == KEEP
    assert asyncio.run(gallery.pick_prompt(told(prompt=picture.id), visitor(BEN))) == (KEEP, KEEP)
    for wanted in ([picture.id], "all", [picture.id] * 3):
        for key in (BEN, None):
            shown, listed, gone = deleted(gallery, wanted, key)
            assert GONE in shown.message and listed == Listed() and gone == KEEP
    made(events, BEN)
    deleted(gallery, "all", BEN)
    found = history.own(events.ledger, "browser:" + _owner(ANN), picture.id)
    assert picture.path.is_file() and found is not None and not found.favourite
    assert "a secret" not in asyncio.run(gallery.prompts(visitor(BEN)))


def _owner(key: str) -> str:
    from hashlib import sha256

    return sha256(key.encode()).hexdigest()


def test_favourites_are_marked_on_the_tile_and_under_the_picture(gallery: GalleryEvents, events: Events) -> None:
    """Catches two places that do not agree."""
    one, two = made(events, prompt="one")[1], made(events, prompt="two")[1]
    button, mark = asyncio.run(gallery.star(told(picture=one.id, on=True), two.id, visitor()))
    assert button == KEEP and f'data-id="{one.id}" data-on="true"' in mark
    assert first(gallery, only=True).tiles.count("data-picture") == 1
    assert asyncio.run(gallery.look(one.id, visitor()))["value"] == "Unfavourite"
    button, mark = asyncio.run(gallery.favourite(one.id, visitor()))
    assert button["value"] == "Favourite" and 'data-on="false"' in mark
    assert first(gallery, only=True).matches == tiles.matches(0, False)


def test_deleting_takes_the_copies_too(gallery: GalleryEvents, events: Events, uploads: Path) -> None:
    """Catches a copy for download that outlives its picture, the stage that goes on showing it, and one that is cleared
    for another picture."""
    pictures = [made(events, prompt=prompt)[1] for prompt in "abc"]

    def show(picture: Picture) -> Path:
        return Path(asyncio.run(events.pictures.select(told(picture=picture.id), visitor())).picture)

    copies = [show(picture) for picture in pictures]
    shown, listed, gone = deleted(gallery, [pictures[0].id], current=pictures[1].id)
    assert "The picture was deleted." in shown.message and shown.picture == KEEP and listed == Listed()
    assert pictures[0].id in gone and not copies[0].exists() and not copies[0].parent.exists() and copies[1].exists()
    shown, listed, gone = deleted(gallery, [picture.id for picture in pictures], current=pictures[1].id)
    assert "2 pictures were deleted." in shown.message and shown.picture is None and shown.picture_id == ""
    assert (
        "None yet." in listed.head and not list(uploads.rglob("*.png")) and not list(events.ledger.folder.glob("*.png"))
    )
    assert GONE in asyncio.run(events.pictures.select(told(picture=pictures[1].id), visitor())).message


def test_the_next_picture_is_shown_instead(gallery: GalleryEvents, events: Events) -> None:
    """Catches a frame that stays empty though there are other pictures, one that shows another's picture, or one that
    is gone too."""
    theirs = made(events, BEN)[1]
    one, two, three = (made(events, prompt=prompt)[1] for prompt in "abc")
    nearby = [one.id, theirs.id, "x", two.id, three.id]
    answer = asyncio.run(gallery.delete(told(pictures=[one.id], next=nearby), "", False, one.id, visitor()))
    shown = Shown(*answer[: len(Shown._fields)])
    assert shown.picture_id == two.id and Path(shown.picture).read_bytes() == two.path.read_bytes()
    assert "The picture was deleted." in shown.message
    answer = asyncio.run(gallery.delete(told(pictures=[two.id], next=[theirs.id]), "", False, two.id, visitor()))
    assert Shown(*answer[: len(Shown._fields)]).picture is None


def test_all_are_deleted_in_portions(gallery: GalleryEvents, events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a portion that is left, or another person's picture among them."""
    monkeypatch.setattr(deletion, "AT_ONCE", 2)
    theirs = made(events, BEN)[1]
    for _ in range(3):
        made(events)
    shown, _, gone = deleted(gallery, "all")
    assert "3 pictures were deleted." in shown.message and theirs.id not in gone
    assert "data-picture" not in first(gallery).tiles and theirs.path.is_file()
    assert "None yet." in asyncio.run(gallery.prompts(visitor()))


def test_a_browser_without_cookies_deletes_what_it_was_shown(gallery: GalleryEvents, events: Events) -> None:
    """Catches pictures that their maker cannot remove, and "all" that are nobody's."""
    one, two = made(events, None)[1], made(events, None)[1]
    assert "The picture was deleted." in deleted(gallery, [one.id], None)[0].message
    assert GONE in deleted(gallery, "all", None)[0].message and two.path.is_file() and not one.path.exists()


def test_a_disk_that_refuses_is_said(gallery: GalleryEvents, events: Events) -> None:
    """Catches a deletion that calls a file gone which is there."""
    picture = made(events)[1]
    picture.path.unlink()
    (picture.path / "in the way").mkdir(parents=True)
    said = deleted(gallery, [picture.id])[0].message
    assert "The picture was deleted. The disk refuses to remove some files (Is a directory)." in said
    shutil.rmtree(picture.path)


def test_earlier_prompts_come_back_whole(gallery: GalleryEvents, events: Events) -> None:
    """Catches a prompt that is run as markup, and one that an earlier version of the ledger has cut off."""
    long = "<b>fox</b> " + "x" * 300
    picture = made(events, prompt=long)[1]
    listed = asyncio.run(gallery.prompts(visitor()))
    assert "<b>" not in listed and "&lt;b&gt;fox" in listed and f'data-prompt="{picture.id}"' in listed
    with events.ledger.transaction() as db:
        db.execute("UPDATE pictures SET prompt = substr(prompt, 1, 200)")
    prompt, frame = asyncio.run(gallery.pick_prompt(told(prompt=picture.id), visitor()))
    assert prompt == long and frame["open"] is False
    assert "None yet." in asyncio.run(gallery.prompts(visitor(BEN)))
    assert "keeps no cookies" in asyncio.run(gallery.prompts(visitor(None)))


def test_names_of_pictures_are_escaped_and_short(events: Events) -> None:
    """Catches a prompt that is run as markup, and one that a screen reader reads for a minute."""
    picture = made(events)[1]
    one = Remembered(picture, "", None, 1.0, b"RIFF", '<b>\n"x"\' ' + "long " * 40)
    text = tiles.tiles([one], picture.id)
    assert "<b>" not in text and "&lt;b&gt; &quot;x&quot;&#x27; long" in text and 'aria-current="true"' in text
    label = text.split('aria-label="')[2].split('"')[0]
    assert len(label) < 160 and label.endswith(f" ..., seed {picture.seed}")
    assert "Removed &lt;soon&gt;." in tiles.head("Removed <soon>.", True, True)


def test_the_history_says_how_long_pictures_stay(serve: Any) -> None:
    """Catches pictures that are removed without a word of warning."""
    assert "removes pictures after 30 days" in first(GalleryEvents(serve(prune_days=30).calls)).head
