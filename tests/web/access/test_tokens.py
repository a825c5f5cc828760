"""The tokens of logins: valid, expired, forged and ended ones, and the key that signs them."""

import stat
from pathlib import Path

import pytest

from tests.support.accounts import PASSWORD, change
from uso.web.access.accounts import Accounts, hashed
from uso.web.access.tokens import LOGIN_SECONDS, EndedTokens, LoginTokens, login_key


def tokens_of(file: Path, key: bytes = b"k" * 32) -> LoginTokens:
    return LoginTokens(key, Accounts(file).hash_of)


def test_a_token_is_of_one_account_one_password_and_one_month(file: Path) -> None:
    """Catches forged and endless logins, and those that outlive a change of the password."""
    tokens = tokens_of(file)
    token = tokens.issue("alice", now=1000)
    assert tokens.name_of(token, now=1000 + LOGIN_SECONDS) == "alice"
    assert tokens.name_of(token, now=1001 + LOGIN_SECONDS) is None
    name, until, signature = token.split(".")
    for forged in (
        "",
        "..",
        f"{name}.{int(until) + 1}.{signature}",
        f"Ym9i.{until}.{signature}",
        f"{name}.{until}.{'0' * 64}",
        f"{name}.-1.{signature}",
        f"{name}.{'9' * 5000}.{signature}",
        f"!.{until}.{signature}",
        token + "é",
    ):
        assert tokens.name_of(forged, now=1000) is None
    assert tokens_of(file, b"another key").name_of(token, now=1000) is None
    assert tokens_of(file).name_of(token, now=1000) == "alice", "a restart ends all logins"
    change(file, f"alice:{hashed(PASSWORD, cost=4)}\n")
    assert tokens.name_of(token, now=1000) is None


def test_the_key_outlives_a_restart_and_is_private(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches logins that end with every restart, and a key that others on the machine can read."""
    key = login_key(tmp_path / "new")
    assert len(key) == 64 and login_key(tmp_path / "new") == key
    (path,) = (tmp_path / "new").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("torn")
    assert len(login_key(tmp_path / "new")) >= 32
    assert "logins end with this process" in caplog.text


def test_a_logout_ends_the_token_and_no_other(file: Path) -> None:
    """Catches a logout that only forgets the cookie, one that locks the account, and a list that grows for ever."""
    tokens = tokens_of(file)
    token, other = tokens.issue("alice", now=1000), tokens.issue("alice", now=2000)
    tokens.end(token, now=1000)
    assert tokens.name_of(token, now=1000) is None and tokens.name_of(other, now=2000) == "alice"
    again = tokens.issue("alice", now=1000)
    assert again != token and tokens.name_of(again, now=1000) == "alice"
    tokens.end("forged.1.x", now=1000)
    assert len(tokens._ended._until) == 1
    later = 2000 + LOGIN_SECONDS
    tokens.end(other, now=later)
    assert len(tokens._ended._until) == 1  # the first would have ended by itself
    few = EndedTokens(most=2)
    for number in range(5):
        few.add(str(number), until=9, now=1)
    assert [str(number) in few for number in range(5)] == [False, False, False, True, True]
