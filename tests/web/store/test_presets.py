"""Presets: kept for their owner, bounded, and shared as files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from uso.errors import RequestError
from uso.web.store import presets
from uso.web.store.ledger import Ledger
from uso.web.store.presets import delete, from_file, preset, rename, save, to_file
from uso.web.store.recovery import open_ledger

ANN, BEN = "browser:ann", "name:ben"
FIELDS = {"prompt": "a fox 狐 \u2028", "width": 128, "keep_input_size": False, "guidance_scale": None, "seed": -1}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(tmp_path)
    yield opened
    opened.close()


def test_presets_are_their_owners_and_outlive_the_server(ledger: Ledger, tmp_path: Path) -> None:
    """Catches presets that others see, change or delete, or that are lost with the process."""
    assert save(ledger, ANN, "  my\tfoxes ", FIELDS) == "my foxes"
    save(ledger, BEN, "my foxes", {"prompt": "theirs"})
    save(ledger, ANN, "Aquarelle", {"prompt": "first"})
    save(ledger, ANN, "Aquarelle", {"prompt": "second"})
    ledger.close()
    again = open_ledger(tmp_path)
    assert list(presets.presets(again, ANN)) == ["Aquarelle", "my foxes"] and preset(again, ANN, "my foxes") == FIELDS
    assert preset(again, ANN, "Aquarelle") == {"prompt": "second"}
    with pytest.raises(RequestError, match="already"):
        rename(again, ANN, "Aquarelle", "my foxes")
    assert rename(again, ANN, "Aquarelle", "ink") == "ink"
    delete(again, ANN, "my foxes")
    assert list(presets.presets(again, ANN)) == ["ink"] and preset(again, BEN, "my foxes") == {"prompt": "theirs"}
    for call in (lambda: delete(again, ANN, "my foxes"), lambda: rename(again, ANN, "my foxes", "x")):
        with pytest.raises(RequestError, match="no such preset"):
            call()
    for wrong in ("my foxes", None, 5, ["ink"]):
        with pytest.raises(RequestError, match="no such preset"):
            preset(again, ANN, wrong)
    again.close()


@pytest.mark.parametrize("name", ["", "  ", None, 5, "x" * 61, "a\x00b", "a\u202eb"])
def test_names_that_cannot_be_shown_are_refused(ledger: Ledger, name: Any) -> None:
    """Catches a preset that nobody can find again in the list."""
    with pytest.raises(RequestError, match="name"):
        save(ledger, ANN, name, FIELDS)


def test_what_is_kept_is_bounded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a stranger who fills the disk, and a limit that stops changes of what is there."""
    monkeypatch.setattr(presets, "MOST", 2)
    for name in "ab":
        save(ledger, ANN, name, FIELDS)
    with pytest.raises(RequestError, match="no more can be kept"):
        save(ledger, ANN, "c", FIELDS)
    save(ledger, ANN, "b", FIELDS)
    save(ledger, BEN, "c", FIELDS)
    refused: tuple[Any, ...] = (
        {"prompt": "x" * 70_000},
        {"prompt": ["x"]},
        {"prompt": {}},
        ["x"],
        {"prompt": "\ud800"},
    )
    for wrong in refused:
        with pytest.raises(RequestError):
            save(ledger, BEN, "d", wrong)
    with pytest.raises(RequestError, match="keeps no cookies"):
        save(ledger, None, "a", FIELDS)


def test_a_file_brings_a_preset_back() -> None:
    """Catches an export that another server cannot read."""
    assert from_file(to_file("my foxes", FIELDS).encode()) == ("my foxes", FIELDS)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"null", b'"x"', b"{}", b"\xff\xfe", b"\x89PNG", b"[" * 100_000, b"1" * 200_000,
        json.dumps({"format": "uso-preset/2", "name": "a", "fields": {}}).encode(),
        json.dumps({"format": presets.FORMAT, "name": "a", "fields": {"prompt": {}}}).encode(),
        json.dumps({"format": presets.FORMAT, "name": "", "fields": {}}).encode(),
        json.dumps({"format": presets.FORMAT, "name": "a", "fields": []}).encode(),
    ],
)  # fmt: skip
def test_a_file_that_is_no_preset_is_refused(data: bytes) -> None:
    """Catches a stranger's file that is run into, not looked at."""
    with pytest.raises(RequestError):
        from_file(data)
