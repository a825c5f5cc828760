"""The folder of uploads: private, swept by age and size, and never somebody else's."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.scripted import until
from uso.config import ROOT
from uso.web.api.files import handed_out
from uso.web.jobs.job import Picture
from uso.web.store.uploads import (
    LEFT_AGE,
    MAX_AGE,
    NO_IMAGE_AGE,
    PARTIAL_AGE,
    VARIABLE,
    private_uploads,
    remove,
    remove_left,
    size_of,
    sweep,
)


def put(path: Path, size: int = 20, head: bytes = b"GIF89a") -> Path:
    """A file of this moment that begins like a picture.

    Tests turn the clock on: the time of a file's last renaming cannot be set back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((head + b"x" * size)[:size])
    return path


def test_old_files_go_and_their_folders(tmp_path: Path) -> None:
    """Catches a folder that grows for as long as the server runs."""
    first = put(tmp_path / "a" / "image.png")
    assert sweep(tmp_path, time.time() + MAX_AGE - 60) == 0 and first.exists()
    assert sweep(tmp_path, time.time() + MAX_AGE + 60) == 1 and not first.parent.exists()


def test_uploads_that_were_broken_off_go_sooner(tmp_path: Path) -> None:
    """Catches parts of uploads that nobody will ever ask for."""
    part, whole = put(tmp_path / "tmpabc"), put(tmp_path / "hash" / "image.png")
    assert sweep(tmp_path, time.time() + PARTIAL_AGE + 60) == 1
    assert not part.exists() and whole.exists()


def test_what_is_no_picture_goes_soon(tmp_path: Path, picture_file: Callable[..., Path]) -> None:
    """Catches a server where strangers keep files of any kind for a day, and one that forgets pictures."""
    kept = [tmp_path / "uploads" / name for name in ("a/cat.png", "b/cat.jpg")]
    for path in kept:
        path.parent.mkdir(parents=True)
        shutil.copy(picture_file(path.name), path)
    strange = [put(tmp_path / "uploads" / "c" / "film.png", 5000, b""), put(tmp_path / "uploads" / "d" / "e.png", 0)]
    assert sweep(tmp_path / "uploads", time.time() + NO_IMAGE_AGE - 60) == 0
    assert sweep(tmp_path / "uploads", time.time() + NO_IMAGE_AGE + 60) == 2
    assert all(path.exists() for path in kept) and not any(path.exists() for path in strange)


def test_its_size_is_all_files(tmp_path: Path) -> None:
    """Catches a folder that looks smaller than it is because files lie deep, or are still being uploaded."""
    put(tmp_path / "part", 7)
    put(tmp_path / "a" / "b" / "image.png", 5)
    assert size_of(tmp_path) == 12


def test_folders_that_go_meanwhile_are_passed_over(tmp_path: Path) -> None:
    """Catches a size, or a sweep, that fails because somebody deletes a picture at that moment."""
    folders = [tmp_path / str(number) for number in range(300)]
    for folder in folders:
        folder.mkdir()
        (folder / "copy.png").write_bytes(b"12")

    def delete() -> None:
        for folder in folders:
            shutil.rmtree(folder)

    deleting = threading.Thread(target=delete)
    deleting.start()
    while deleting.is_alive():
        assert size_of(tmp_path) % 2 == 0
    assert size_of(tmp_path) == 0


def test_too_much_goes_oldest_first_but_nothing_that_is_in_use(tmp_path: Path) -> None:
    """Catches a flood of uploads that fills the disk, and one that pushes out what somebody has just uploaded."""
    for name in "abc":
        put(tmp_path / name / "image.png", size=100)
        time.sleep(0.02)
    assert sweep(tmp_path, time.time() + 300, most=150) == 0
    assert sweep(tmp_path, time.time() + 900, most=150) == 2
    assert [path.parent.name for path in tmp_path.rglob("*.png")] == ["c"]


def test_the_folder_is_private_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches uploads in a folder that other people of the machine can read."""
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = private_uploads()
    assert folder is not None and os.environ[VARIABLE] == str(folder)
    assert folder.stat().st_mode & 0o077 == 0
    put(folder / "image.png")
    remove(folder)
    assert not folder.exists()


def test_a_folder_that_the_environment_names_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches a sweep through a folder of the user's own."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert private_uploads() is None


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches people's pictures that stay on the disk after a crash, and a server that empties another's folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    script = "from uso.web.store.uploads import private_uploads; print(private_uploads(), flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path), VARIABLE: ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    put(folder / "image.png")
    remove_left(time.time() + LEFT_AGE + 60)
    assert list(folder.iterdir())
    process.kill()
    process.communicate()
    remove_left()
    assert folder.exists()  # it could be one that is just starting
    remove_left(time.time() + LEFT_AGE + 60)
    until(lambda: not folder.exists())


def test_a_picture_that_is_used_again_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches yesterday's picture, made the content image a minute ago, that is gone when Generate is pressed."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "uploads"))
    made = put(tmp_path / "made.png")
    picture = Picture(id="a" * 32, path=made, width=16, height=16, seed=0, num_inference_steps=1, seconds=1.0)
    copy = Path(handed_out(picture))
    yesterday = time.time() - MAX_AGE
    os.utime(copy, (yesterday, yesterday))
    assert handed_out(picture) == str(copy) and copy.stat().st_mtime > yesterday + MAX_AGE / 2


def test_a_folder_that_the_environment_names_is_private_if_it_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches people's images that others on the machine can read, because their folder was given."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "a" / "uploads"))
    assert private_uploads() is None
    assert (tmp_path / "a" / "uploads").stat().st_mode & 0o777 == 0o700


def test_another_users_folder_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a server of root's that removes what another user's server left, or laid out for it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    put(tmp_path / "uso-page-x" / "image.png")
    other = os.getuid() + 1
    with monkeypatch.context() as patched:
        patched.setattr(os, "getuid", lambda: other)
        remove_left(time.time() + LEFT_AGE + 60)
    assert (tmp_path / "uso-page-x").exists()
    remove_left(time.time() + LEFT_AGE + 60)
    assert not (tmp_path / "uso-page-x").exists()
