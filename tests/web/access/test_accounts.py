"""The accounts file: what is read and refused, how passwords are checked, how accounts are added."""

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest

from tests.support.accounts import CHEAP, PASSWORD
from uso.errors import ConfigError
from uso.web.access.accounts import MAX_BYTES, Accounts, hashed, password_fault, put_account, read_accounts
from uso.web.access.tokens import LoginTokens


@pytest.mark.parametrize("version", ["2a", "2b", "2y"])
def test_what_htpasswd_writes_is_read(file: Path, version: str) -> None:
    """Catches a file of `htpasswd -B` ($2y$) that our library would not take."""
    file.write_text(f"alice:{CHEAP.replace('2b', version, 1)}\n", encoding="utf-8")
    accounts = Accounts(file)
    assert accounts.check("alice", PASSWORD)
    assert not accounts.check("alice", PASSWORD + "!")
    assert not accounts.check("bob", PASSWORD)
    assert not accounts.check("", "")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no accounts, so nobody could log in"),
        ("# nobody\n", "has no accounts"),
        ("alice\n", "Line 1 of the accounts file .* holds no bcrypt hash"),
        ("\nalice:plain\n", "Line 2 .* holds no bcrypt hash .*`python -m uso account FILE NAME"),
        ("alice:{SHA}2PRZAyDhNDqRW2OUFwZQqPNdaSY=\n", "Line 1 .* no bcrypt hash"),
        ("alice:$apr1$x$4J4SSyHgq6/\n", "Line 1 .* no bcrypt hash"),
        (f"alice:{CHEAP}x\n", "Line 1 .* no bcrypt hash"),
        (f"alice:{CHEAP}\nalice:{CHEAP}\n", "Line 2 .* names alice a second time"),
        (f":{CHEAP}\n", "Line 1 .* no usable name"),
        (f"a\tb:{CHEAP}\n", "Line 1 .* no usable name"),
        (f"alice:{CHEAP.replace('$04$', '$31$')}\n", "bcrypt cost 31; 4 to 15 is allowed"),
    ],
)
def test_what_is_no_account_is_refused_with_its_line(file: Path, text: str, sentence: str) -> None:
    """Catches plain passwords or weak hashes that would be served with, and a cost that stalls every login."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=sentence):
        Accounts(file)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Catches a server that lets everybody in, or nobody, because of a mistyped path."""
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / ("x" * 300), tmp_path / "loop", Path("/dev/null")):
        with pytest.raises(ConfigError, match="could not be read"):
            read_accounts(path)
    with pytest.raises(ConfigError, match="could not be written"):
        put_account(tmp_path / ("x" * 300), "alice", PASSWORD)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ConfigError, match="is larger than 10 MB"):
        read_accounts(tmp_path / "sparse")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        read_accounts(tmp_path / "binary")


def test_a_file_that_everybody_can_read_is_warned_of(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches the warning that is missing, or comes for a file that is fine."""
    Accounts(file)
    assert caplog.text == ""
    file.chmod(0o644)
    Accounts(file)
    assert "chmod o-r" in caplog.text


def test_a_changed_file_counts_at_once(file: Path) -> None:
    """Catches an account that stays open after it was removed, and a change that its file's size and time hide."""
    accounts = Accounts(file)
    tokens = LoginTokens(b"k" * 32, accounts.hash_of)
    token = tokens.issue("alice")
    before = file.stat()
    file.write_text(file.read_text().replace("alice", "carol"), encoding="utf-8")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert accounts.check("carol", PASSWORD) and not accounts.check("alice", PASSWORD)
    assert tokens.name_of(token) is None


def removed(file: Path) -> None:
    file.unlink()


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def a_dangling_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def refused_by_the_disk(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)  # a loop: as an unreadable file, for root too


UNREADABLE_NOW = [removed, a_folder, a_pipe, a_dangling_link, refused_by_the_disk]


@pytest.mark.parametrize("spoil", UNREADABLE_NOW, ids=lambda spoil: spoil.__name__)
def test_a_file_that_cannot_be_read_any_more_lets_nobody_in(
    file: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a server that goes on with the accounts of a file that was taken away, and one that never recovers."""
    text = file.read_text()
    accounts = Accounts(file)
    tokens = LoginTokens(b"k" * 32, accounts.hash_of)
    token = tokens.issue("alice")
    assert tokens.name_of(token) == "alice" and accounts.fault() == ""
    spoil(file)
    assert tokens.name_of(token) is None and not accounts.check("alice", PASSWORD)
    assert accounts.fault().startswith("Nobody can log in now: the server cannot read its accounts.")
    assert caplog.text.count("Until that is mended, nobody can log in.") == 1, "once, not with every request"
    file.rmdir() if file.is_dir() else file.unlink(missing_ok=True)
    file.write_text(text, encoding="utf-8")
    assert tokens.name_of(token) == "alice" and accounts.check("alice", PASSWORD) and accounts.fault() == ""


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "this server has no accounts"),
        (b"# nobody\n", "this server has no accounts"),
        (b"alice:plain\n", "this server has no accounts"),
        (b"\xff\xfe\0\xd8", "the server cannot read its accounts"),
        (f"alice:{CHEAP}\n".encode("utf-16"), "the server cannot read its accounts"),
        (f"alice:{CHEAP}\n".encode("utf-16-be"), "the server cannot read its accounts"),
        (b"alice:\0" + CHEAP.encode(), "the server cannot read its accounts"),
    ],
)
def test_a_file_without_accounts_lets_nobody_in(file: Path, data: bytes, sentence: str) -> None:
    """Catches the removal of the only account that leaves its token and its password valid."""
    accounts = Accounts(file)
    tokens = LoginTokens(b"k" * 32, accounts.hash_of)
    token = tokens.issue("alice")
    file.write_bytes(data)
    assert tokens.name_of(token) is None and not accounts.check("alice", PASSWORD)
    assert accounts.fault().startswith(f"Nobody can log in now: {sentence}")


def test_one_bad_line_drops_that_line_alone(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a slip in one line that keeps somebody in who was removed in another, and a good line that is lost."""
    accounts = Accounts(file)
    file.write_text(f"bob:{CHEAP}\ncarol:oops\n\n:{CHEAP}\nbob:x\ndora:{CHEAP}\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert [name for name in ("alice", "bob", "carol", "dora") if accounts.check(name, PASSWORD)] == ["bob", "dora"]
    told = [record.getMessage() for record in caplog.records]
    assert [line.partition(" of ")[0] for line in told] == ["Line 2", "Line 4", "Line 5"]
    assert all(line.endswith("The other lines count.") for line in told) and CHEAP not in caplog.text


def test_who_is_removed_during_the_check_stays_out(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check takes a quarter of a second: catches a login by a password that was changed meanwhile."""
    accounts = Accounts(file)
    real = bcrypt.checkpw

    def slow(password: bytes, against: bytes) -> bool:
        file.write_text(f"alice:{hashed('a new one', cost=4)}\n", encoding="utf-8")
        return real(password, against)

    monkeypatch.setattr(bcrypt, "checkpw", slow)
    assert not accounts.check("alice", PASSWORD)


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
def test_a_mark_at_the_beginning_is_no_part_of_a_name(file: Path, mark: bytes) -> None:
    """Windows' Notepad writes it: catches a first account that nobody can log in with, and a second line for it."""
    file.write_bytes(mark + f"alice:{CHEAP}\r\n".encode())
    assert Accounts(file).check("alice", PASSWORD)
    assert put_account(file, "alice", "a new one")
    assert Accounts(file).check("alice", "a new one") and len(read_accounts(file)) == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_is_refused_with_the_remedy(file: Path, encoding: str) -> None:
    """PowerShell writes it: catches a file that is called empty, or one that is overwritten."""
    data = f"alice:{CHEAP}\n".encode(encoding)
    file.write_bytes(data)
    for use in (lambda: Accounts(file), lambda: put_account(file, "bob", PASSWORD)):
        with pytest.raises(ConfigError, match=r"The accounts file .* is not UTF-8 text\. Save it as UTF-8\."):
            use()
    assert file.read_bytes() == data


def test_long_passwords_are_not_cut_in_silence(file: Path) -> None:
    """bcrypt looks at 72 bytes: catches a longer password that passes with any ending, or fails with an exception."""
    full = "ä" * 36
    file.write_text(f"alice:{hashed(full, cost=4)}\n", encoding="utf-8")
    accounts = Accounts(file)
    assert accounts.check("alice", full)
    assert not accounts.check("alice", full + "x")
    assert not accounts.check("alice", "\0" * 10 + "\ud800")
    assert password_fault(full) is None
    assert "has 73 bytes; bcrypt takes at most 72" in str(password_fault(full + "x"))
    assert "at least 8" in str(password_fault("short"))


def test_every_name_costs_what_the_dearest_costs(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches names that can be told from their answer's time: hashes of cost 4, 5 and 8 in one file, and no hash."""
    file.write_text(
        f"alice:{CHEAP}\nbob:{hashed('other one', cost=5)}\ncarol:{hashed('a third', cost=8)}\n", encoding="utf-8"
    )
    accounts = Accounts(file)
    work: list[int] = []
    real = bcrypt.checkpw

    def counted(password: bytes, against: bytes) -> bool:
        work.append(2 ** int(against[4:6]))
        return real(password, against)

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    for name, password, right in (
        ("alice", PASSWORD, True),
        ("alice", "wrong", False),
        ("bob", "wrong", False),
        ("carol", "wrong", False),
        ("carol", "a third", True),
        ("nobody", "wrong", False),
        ("nobody", "x" * 100, False),
    ):
        work.clear()
        assert accounts.check(name, password) is right
        assert sum(work) == 2**8, name


def test_an_account_can_be_added_where_none_is_left(tmp_path: Path) -> None:
    """Catches a file with nothing but a comment that nobody can add an account to any more."""
    path = tmp_path / "accounts"
    path.write_text("# who may\n")
    assert not put_account(path, "alice", PASSWORD)
    assert put_account(path, "alice", None) and not put_account(path, "alice", PASSWORD)
    assert path.read_text().startswith("# who may\nalice:$2b$")


def test_who_may_read_the_file_stays(file: Path) -> None:
    """A server of another user reads it by its group: catches a change that locks people out, or lets others read."""
    file.chmod(0o664)
    put_account(file, "bob", PASSWORD)
    assert stat.S_IMODE(file.stat().st_mode) & ~0o020 == 0o640
    if os.getuid() == 0:
        os.chown(file, 1234, 1235)
        put_account(file, "bob", PASSWORD)
        assert (file.stat().st_uid, file.stat().st_gid) == (1234, 1235)


def test_accounts_are_added_replaced_and_removed(tmp_path: Path) -> None:
    """Catches lines of others that are lost, a file that others can read, and a half-written one."""
    path = tmp_path / "accounts"
    assert not put_account(path, "alice", PASSWORD)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("# who may\n" + path.read_text())
    assert not put_account(path, "bob", "another one")
    assert put_account(path, "alice", "a new one")
    accounts = Accounts(path)
    assert accounts.check("alice", "a new one") and accounts.check("bob", "another one")
    assert path.read_text().startswith("# who may\n")
    assert put_account(path, "alice", None) and not put_account(path, "alice", None)
    assert list(read_accounts(path)) == ["bob"]
    assert os.listdir(tmp_path) == ["accounts"]


@pytest.mark.parametrize(
    ("name", "password", "sentence"),
    [
        ("a:b", PASSWORD, "cannot be a name"),
        ("", PASSWORD, "cannot be a name"),
        ("a\n", PASSWORD, "cannot be a name"),
        ("#a", PASSWORD, "cannot be a name"),
        ("a", "short", "at least 8"),
        ("a", "x" * 73, "at most 72"),
    ],
)
def test_what_could_not_log_in_is_not_written(tmp_path: Path, name: str, password: str, sentence: str) -> None:
    """Catches a name that breaks the file's lines, and a password that nobody could log in with."""
    with pytest.raises(ConfigError, match=sentence):
        put_account(tmp_path / "accounts", name, password)
    assert os.listdir(tmp_path) == []


def test_another_file_is_not_written_into(tmp_path: Path) -> None:
    """Catches a mistyped path that destroys somebody's configuration."""
    other = tmp_path / "settings.ini"
    other.write_text("[section]\nkey = 1\n")
    with pytest.raises(ConfigError, match="Line 1"):
        put_account(other, "alice", PASSWORD)
    assert other.read_text() == "[section]\nkey = 1\n"
