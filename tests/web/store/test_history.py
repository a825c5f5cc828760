"""The history page by page, searched and filtered; favourites; earlier prompts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.kept import kept, new_job
from tests.support.scripted import BEN
from uso.request.references import ReferenceImage
from uso.web.jobs.job import Picture
from uso.web.store import history
from uso.web.store.history import own, prompts, recent, set_favourite
from uso.web.store.ledger import Ledger
from uso.web.store.recovery import open_ledger

OWNER = "browser:ann"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(tmp_path)
    yield opened
    opened.close()


def pictures(ledger: Ledger, *prompts: str) -> list[Picture]:
    return [kept(ledger, new_job(prompt=prompt), ledger.folder) for prompt in prompts]


def ids(ledger: Ledger, **options: object) -> list[str]:
    return [found.picture.id for found in recent(ledger, OWNER, **options)]  # type: ignore[arg-type]


def test_pages_go_on_to_the_end(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a page that repeats pictures or leaves some out, where new ones came, some were deleted, and files are
    gone between two pages."""
    monkeypatch.setattr(history, "MOST_ROWS", 3)
    made = pictures(ledger, *"abcdefghijkl")
    first = ids(ledger, most=4)
    assert first == [picture.id for picture in made[:7:-1]]
    pictures(ledger, "new")
    for gone in made[4:8]:
        gone.path.unlink()
    with ledger.transaction() as db:
        db.execute("DELETE FROM pictures WHERE id = ?", (first[-1],))
    second = ids(ledger, most=3, after=first)
    assert second == [picture.id for picture in (made[3], made[2], made[1])]
    assert ids(ledger, most=3, after=second) == [made[0].id]
    assert ids(ledger, most=3, after=[made[0].id]) == []
    theirs = kept(ledger, new_job(BEN), ledger.folder)
    assert ids(ledger, most=1, after=[theirs.id, "nothing"]) == ids(ledger, most=1)  # not theirs: from the start


def test_search_is_by_words_in_any_order(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a search that knows the beginning of a prompt alone, is put off by case or accents, or takes signs of the
    query for something else."""
    monkeypatch.setattr(history, "MOST_ROWS", 2)
    long = "A Red fox in the SNOW, 100% wool " + "x" * 5000 + " tail"
    fox, owl, empty, last = pictures(ledger, long, "Ein Käuzchen im Schnee 狐狸", "", "a red box")
    for words, found in (
        ("snow red", [fox]), ("TAIL", [fox]), ("red", [last, fox]), ("käUZ", [owl]), ("狐", [owl]), ("１００", [fox]),
        ("100%", [fox]), ("%", [fox]), ("_", []), ("red owl", []), ("", [last, empty, owl, fox]),
    ):  # fmt: skip
        assert ids(ledger, words=words) == [picture.id for picture in found], words


def test_names_of_references_are_found_too(ledger: Ledger) -> None:
    """Catches pictures without words that no search finds, an entry that fails for a name, and a count that is not that
    of the pages."""
    image = Image.new("RGB", (32, 32))  # the same twice, under two names
    named = [ReferenceImage.from_pil(image, name) for name in ("Photographer.jpg", "ink \udcff 墨.png")]
    (plain,) = pictures(ledger, "a red fox")
    both = kept(ledger, new_job(prompt="fox", content_images=named[:1], style_images=named[1:]), ledger.folder)
    for words, found in (
        ("photographer", [both]), ("墨 fox", [both]), ("fox", [both, plain]), ("red photographer", []),
    ):  # fmt: skip
        assert ids(ledger, words=words) == [picture.id for picture in found], words
        assert history.count(ledger, OWNER, words=words) == len(found)
        whole = [one for one in recent(ledger, OWNER) if history.matches(one, words, False)]
        assert [one.picture.id for one in whole] == [picture.id for picture in found]
    assert history.count(ledger, OWNER, favourites=True) == history.count(ledger, None) == 0


def test_favourites_are_the_owners(ledger: Ledger) -> None:
    """Catches a mark that anybody can set, that is lost, or that hides the others."""
    one, two = pictures(ledger, "one", "two")
    theirs = kept(ledger, new_job(BEN), ledger.folder)
    assert set_favourite(ledger, OWNER, one.id, True) and ids(ledger, favourites=True) == [one.id]
    for wrong in (theirs.id, "0" * 32, "x", None, ["a"]):
        assert not set_favourite(ledger, OWNER, wrong, True)
    found = own(ledger, OWNER, one.id)
    assert found is not None and found.favourite and ids(ledger) == [two.id, one.id]
    assert ids(ledger, favourites=True, words="two") == []
    assert recent(ledger, "browser:ben", favourites=True) == []
    assert set_favourite(ledger, OWNER, one.id, False) and ids(ledger, favourites=True) == []
    assert recent(ledger, None) == []


def test_earlier_prompts_come_once_each_newest_first(ledger: Ledger) -> None:
    """Catches a list that one prompt fills, that others' prompts are in, or that ends at 200 characters."""
    long = "long " * 400
    made = pictures(ledger, "a", long, "", "a", "  ")
    kept(ledger, new_job(BEN, prompt="theirs"), ledger.folder)
    assert prompts(ledger, OWNER) == [(made[3].id, "a"), (made[1].id, long)]
    assert prompts(ledger, None) == []
