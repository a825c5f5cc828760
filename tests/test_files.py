"""Files appear complete or not at all, and nothing is overwritten."""

import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.records import result
from tests.test_output import names
from uso import output
from uso.errors import ConfigError, RequestError
from uso.files import PRIVATE, own_temporary_folder, private_folder, read_text, slug, write_new, write_over


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


# Who may read them


@contextmanager
def umask(bits: int) -> Iterator[None]:
    before = os.umask(bits)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return path.lstat().st_mode & 0o777


@pytest.mark.parametrize(("bits", "seen"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_mode_that_the_user_wants(tmp_path: Path, bits: int, seen: int) -> None:
    """Catches a mode of our own, which a group that shares pictures cannot change."""
    with umask(bits):
        write_over(tmp_path / "a", b"1")
        path = write_new(tmp_path, "b.png", lambda file: file.write(b"1"))
    assert (mode(tmp_path / "a"), mode(path)) == (seen, seen)


def test_what_is_private_is_so_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a secret that can be read until its mode is changed; also where the umask takes nothing away."""
    seen: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: seen.append(os.fstat(file).st_mode & 0o777))
    with umask(0):
        write_over(tmp_path / "key", b"secret", PRIVATE)
    assert (seen, mode(tmp_path / "key")) == ([0o600], 0o600)


def test_a_private_folder_is_so_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a folder that is open for a moment, and one of an earlier version that stays open."""
    with umask(0), monkeypatch.context() as patched:
        patched.setattr(Path, "chmod", None)
        assert mode(private_folder(tmp_path / "a" / "new")) == 0o700
    (tmp_path / "old").mkdir(mode=0o755)
    assert mode(private_folder(tmp_path / "old")) == 0o700


def test_references_and_secrets_are_private_in_a_public_folder(tmp_path: Path, image: Image.Image) -> None:
    """Catches people's images that everybody on the machine can look at, new or in a folder of an earlier version."""
    (tmp_path / "old" / output.REFERENCES).mkdir(parents=True)
    for folder in (tmp_path / "new", tmp_path / "old"):
        with umask(0o022):
            path = output.save(result(image, content_images=[image]), folder)
        assert mode(path) == 0o644
        assert mode(folder / output.REFERENCES) == 0o700
        assert {mode(kept) for kept in (folder / output.REFERENCES).iterdir()} == {0o600}


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS])
def test_a_share_that_refuses_modes_and_syncs_keeps_the_picture(
    tmp_path: Path, image: Image.Image, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Catches pictures that go elsewhere because the share lacks something that they do not need."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / output.REFERENCES).mkdir(mode=0o755)
    for name in ("chmod", "fchmod", "fsync"):
        monkeypatch.setattr(os, name, refuse)
    path = output.save(result(image, content_images=[image]), tmp_path)
    assert path.parent == tmp_path and len(list((tmp_path / output.REFERENCES).iterdir())) == 1


def test_a_disk_that_fails_to_sync_is_not_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a picture that is announced although the disk has lost it."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_over(tmp_path / "a", b"1")
    assert names(tmp_path) == []


# Beside the system's temporary files


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_temporary_folder_is_made_once_and_private(temporary: Path) -> None:
    with umask(0):
        made = own_temporary_folder("x")
    assert made == temporary / "x" and mode(made) == 0o700 and own_temporary_folder("x") == made
    made.chmod(0o755)  # of an earlier version
    assert own_temporary_folder("x") == made and mode(made) == 0o700


@pytest.mark.parametrize("trap", ["link", "dangling", "file", "open", "another's"])
def test_what_another_user_laid_there_is_left_alone(
    temporary: Path, tmp_path: Path, image: Image.Image, trap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches pictures that are written where another user's link leads, or into a folder that they can read."""
    (tmp_path / "theirs").mkdir()
    laid = temporary / output.TEMPORARY
    if trap in ("link", "dangling"):
        laid.symlink_to(tmp_path / ("theirs" if trap == "link" else "nowhere"))
    elif trap == "file":
        laid.write_text("in the way")
    else:
        laid.mkdir()
        laid.chmod(0o777 if trap == "open" else 0o700)
    if trap == "another's":
        uid = os.getuid()
        real = Path.lstat
        monkeypatch.setattr(os, "getuid", lambda: uid + 1)
        monkeypatch.setattr(Path, "lstat", lambda path: real(path) if path == laid else as_owned(real(path), uid + 1))
    (tmp_path / "full").write_text("in the way")
    for _ in range(2):
        path = output.save(result(image, content_images=[image]), tmp_path / "full" / "out")
        assert path.parent.parent == temporary and path.parent.name.startswith(f"{output.TEMPORARY}-")
        assert mode(path.parent) == 0o700 and not path.parent.is_symlink()
    assert names(tmp_path / "theirs") == [] and not (tmp_path / "nowhere").exists()
    assert len(os.listdir(temporary)) == 2, "the second picture lies beside the first"


def as_owned(about: os.stat_result, uid: int) -> os.stat_result:
    return os.stat_result([*about[:4], uid, *about[5:]])


# Text that people wrote

TEXT = 'prompt: "ä 狐"\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf_8_is_read_with_and_without_its_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.yaml").write_bytes(TEXT.encode(encoding))
    assert read_text(tmp_path / "a.yaml", "file") == TEXT


@pytest.mark.parametrize("text", [TEXT, "a: 1\n"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_other_encodings_are_refused_with_the_remedy(tmp_path: Path, text: str, encoding: str) -> None:
    """ASCII in UTF-16 without a mark is also UTF-8: catches a file that is refused as something else."""
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    with pytest.raises(RequestError, match=r"^The batch file .*a\.txt is not UTF-8 text\. Save it as UTF-8\.$"):
        read_text(tmp_path / "a.txt", "batch file", RequestError)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file or directory")):
        with pytest.raises(ConfigError, match=rf"^The file .* could not be read \({reason}\)\.$"):
            read_text(path, "file")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red fox, running!", "a-red-fox-running"),
        ("../../etc/passwd", "etc-passwd"),
        ("..\\..\\C:\\con", "c-con"),
        ("Ärger über Öl", "arger-uber-ol"),
        ("狐狸", "picture"),
        ("", "picture"),
        ("\n\t\u202e%00", "00"),
        ("x" * 300, "x" * 48),
    ],
)
def test_slugs(text: str, expected: str) -> None:
    assert slug(text) == expected
