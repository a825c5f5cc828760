"""The accounts file: what is read and refused, how passwords are checked, how accounts are added."""

import logging
import os
import stat
from pathlib import Path

import bcrypt
import pytest

from tests.support.accounts import CHEAP, PASSWORD, change
from uso.errors import ConfigError
from uso.web.access.accounts import Accounts, hashed, password_fault, put_account, read_accounts
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
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ConfigError, match="could not be read"):
            read_accounts(path)
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


def test_a_changed_file_counts_at_once(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches an account that stays open after it was removed, and a broken edit that locks everybody out."""
    accounts = Accounts(file)
    tokens = LoginTokens(b"k" * 32, accounts.hash_of)
    token = tokens.issue("alice")
    change(file, f"bob:{CHEAP}\n")
    assert accounts.check("bob", PASSWORD) and not accounts.check("alice", PASSWORD)
    assert tokens.name_of(token) is None
    change(file, "bob:secret\n")
    os.utime(file, ns=(1, 1))
    with caplog.at_level(logging.WARNING):
        assert accounts.check("bob", PASSWORD)
    assert "Until that is mended" in caplog.text


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


def test_an_unknown_name_costs_what_a_wrong_password_costs(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches names that can be told from their answer's time: both must compute one hash of the same cost."""
    file.write_text(f"alice:{CHEAP}\nbob:{hashed('other one', cost=5)}\n", encoding="utf-8")
    accounts = Accounts(file)
    costs: list[bytes] = []
    real = bcrypt.checkpw

    def counted(password: bytes, against: bytes) -> bool:
        costs.append(against[4:6])
        return real(password, against)

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    assert not accounts.check("bob", "wrong") and not accounts.check("nobody", "wrong")
    assert costs == [b"05", b"05"]


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
