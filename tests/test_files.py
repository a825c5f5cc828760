"""Files appear complete or not at all, and nothing is overwritten."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.test_output import names, result
from uso import output
from uso.files import write_new


@pytest.fixture
def image(picture: Callable[..., Image.Image]) -> Image.Image:
    return picture(256, 256, 3)


def test_nothing_is_overwritten(tmp_path: Path, image: Image.Image) -> None:
    """Two pictures in one second with one seed have the same stem."""
    paths = [output.save(result(image, prompt=str(number)), tmp_path, "same") for number in range(3)]
    assert [path.name for path in paths] == ["same.png", "same-2.png", "same-3.png"]
    assert [output.read(path).record["request"]["prompt"] for path in paths] == ["0", "1", "2"]


def test_nothing_is_overwritten_by_many_at_once(tmp_path: Path, image: Image.Image) -> None:
    """Asking whether a name is free and then taking it lets two writers have it."""
    threads = [
        threading.Thread(target=output.save, args=(result(image.copy(), prompt=str(number)), tmp_path, "same"))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    prompts = {output.read(path).record["request"]["prompt"] for path in tmp_path.glob("*.png")}
    assert prompts == {str(number) for number in range(8)}


def test_file_systems_without_hard_links(tmp_path: Path, image: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Any, target: Any) -> None:
        if os.path.lexists(target):
            raise FileExistsError
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    paths = [output.save(result(image), tmp_path, "same") for _ in range(2)]
    assert [path.name for path in paths] == names(tmp_path)[::-1] == ["same.png", "same-2.png"]


def test_a_write_that_fails_midway_leaves_no_file(tmp_path: Path) -> None:
    """A torn PNG under its final name would count as finished."""

    def tear(file: Any) -> None:
        file.write(b"\x89PNG half of it")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_new(tmp_path, "torn.png", tear)
    assert names(tmp_path) == []


def test_a_picture_is_never_there_in_part(tmp_path: Path) -> None:
    """Whoever looks while it is written sees nothing; a killed run's rest is hidden and ends in .part."""

    def write(file: Any) -> None:
        file.write(b"half")
        file.flush()
        (visible,) = names(tmp_path)
        assert visible.startswith(".") and visible.endswith(".part")

    write_new(tmp_path, "whole.png", write)
    assert names(tmp_path) == ["whole.png"]


def test_what_a_kill_left_half_written_goes_in_time(tmp_path: Path) -> None:
    """Catches hidden files that pile up with every kill, and one that is removed while it is being written."""
    (tmp_path / output.REFERENCES).mkdir()
    parts = [tmp_path / ".a.part", tmp_path / output.REFERENCES / ".b.part"]
    others = [tmp_path / ".new.part", tmp_path / "kept.png", tmp_path / ".hidden"]
    for path in (*parts, *others):
        path.touch()
    for path in (*parts, *others[1:]):
        os.utime(path, (0, 0))
    output.remove_parts(tmp_path)
    assert [path.exists() for path in (*parts, *others)] == [False, False, True, True, True]
