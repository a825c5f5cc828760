"""The accounts file, tokens, the brake on guessing, and the login page with real browsers' and programs' requests."""

import asyncio
import logging
import os
import stat
import time
from pathlib import Path
from typing import Any

import bcrypt
import gradio as gr
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from gradio_client import Client
from gradio_client.exceptions import AuthenticationError

from tests.support.served import served
from uso.errors import ConfigError
from uso.web.access.accounts import (
    LOGIN_SECONDS,
    Accounts,
    Ended,
    Throttle,
    hashed,
    login_key,
    password_fault,
    put_account,
    read_accounts,
)
from uso.web.access.identity import login_name
from uso.web.access.login import LOGIN_COOKIE, WRONG_TRIES, WRONG_TRIES_OF_NAME, Login
from uso.web.access.stack import guarded
from uso.web.settings import ServerSettings

PASSWORD = "correct horse"
CHEAP = bcrypt.hashpw(PASSWORD.encode(), b"$2b$04$abcdefghijklmnopqrstuu").decode()
"""Always the same: it is in the names of tests."""
PAGE = {"accept": "text/html,application/xhtml+xml"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Alice's account, at a cost that tests can afford."""
    path = tmp_path / "accounts"
    path.write_text(f"# who may\n\nalice:{CHEAP}\n", encoding="utf-8")
    path.chmod(0o600)
    return path


def accounts_of(file: Path) -> Accounts:
    return Accounts(file, b"k" * 32)


def changed(file: Path, text: str) -> None:
    """Write a file so that its time differs, on coarse clocks too."""
    file.write_text(text, encoding="utf-8")
    later = time.time_ns() + 10**9
    os.utime(file, ns=(later, later))


# The file


@pytest.mark.parametrize("version", ["2a", "2b", "2y"])
def test_what_htpasswd_writes_is_read(file: Path, version: str) -> None:
    """Catches a file of `htpasswd -B` ($2y$) that our library would not take."""
    file.write_text(f"alice:{CHEAP.replace('2b', version, 1)}\n", encoding="utf-8")
    accounts = accounts_of(file)
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
        accounts_of(file)


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
    accounts_of(file)
    assert caplog.text == ""
    file.chmod(0o644)
    accounts_of(file)
    assert "chmod o-r" in caplog.text


def test_a_changed_file_counts_at_once(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches an account that stays open after it was removed, and a broken edit that locks everybody out."""
    accounts = accounts_of(file)
    token = accounts.token("alice")
    changed(file, f"bob:{CHEAP}\n")
    assert accounts.check("bob", PASSWORD) and not accounts.check("alice", PASSWORD)
    assert accounts.name_of(token) is None
    changed(file, "bob:secret\n")
    os.utime(file, ns=(1, 1))
    with caplog.at_level(logging.WARNING):
        assert accounts.check("bob", PASSWORD)
    assert "Until that is mended" in caplog.text


def test_long_passwords_are_not_cut_in_silence(file: Path) -> None:
    """bcrypt looks at 72 bytes: catches a longer password that passes with any ending, or fails with an exception."""
    full = "ä" * 36
    file.write_text(f"alice:{hashed(full, cost=4)}\n", encoding="utf-8")
    accounts = accounts_of(file)
    assert accounts.check("alice", full)
    assert not accounts.check("alice", full + "x")
    assert not accounts.check("alice", "\0" * 10 + "\ud800")
    assert password_fault(full) is None
    assert "has 73 bytes; bcrypt takes at most 72" in str(password_fault(full + "x"))
    assert "at least 8" in str(password_fault("short"))


def test_an_unknown_name_costs_what_a_wrong_password_costs(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches names that can be told from their answer's time: both must compute one hash of the same cost."""
    file.write_text(f"alice:{CHEAP}\nbob:{hashed('other one', cost=5)}\n", encoding="utf-8")
    accounts = accounts_of(file)
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
    accounts = accounts_of(path)
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


# Tokens


def test_a_token_is_of_one_account_one_password_and_one_month(file: Path) -> None:
    """Catches forged and endless logins, and those that outlive a change of the password."""
    accounts = accounts_of(file)
    token = accounts.token("alice", now=1000)
    assert accounts.name_of(token, now=1000 + LOGIN_SECONDS) == "alice"
    assert accounts.name_of(token, now=1001 + LOGIN_SECONDS) is None
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
        assert accounts.name_of(forged, now=1000) is None
    assert Accounts(file, b"another key").name_of(token, now=1000) is None
    assert accounts_of(file).name_of(token, now=1000) == "alice", "a restart ends all logins"
    changed(file, f"alice:{hashed(PASSWORD, cost=4)}\n")
    assert accounts.name_of(token, now=1000) is None


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
    accounts = accounts_of(file)
    token, other = accounts.token("alice", now=1000), accounts.token("alice", now=2000)
    accounts.end(token, now=1000)
    assert accounts.name_of(token, now=1000) is None and accounts.name_of(other, now=2000) == "alice"
    again = accounts.token("alice", now=1000)
    assert again != token and accounts.name_of(again, now=1000) == "alice"
    accounts.end("forged.1.x", now=1000)
    assert len(accounts._ended._until) == 1
    later = 2000 + LOGIN_SECONDS
    accounts.end(other, now=later)
    assert len(accounts._ended._until) == 1  # the first would have ended by itself
    few = Ended(most=2)
    for number in range(5):
        few.add(str(number), until=9, now=1)
    assert [str(number) in few for number in range(5)] == [False, False, False, True, True]


# The brake


def test_wrong_tries_count_for_a_while() -> None:
    """Catches a brake that never lets go, counts for ever, or mixes people up."""
    now = [0.0]
    throttle = Throttle(3, 60, clock=lambda: now[0])
    for second in (0, 10, 20):
        now[0] = second
        assert throttle.wait("a") == 0
        throttle.count("a")
    assert throttle.wait("a") == 40 and throttle.wait("b") == 0
    now[0] = 60.0
    assert throttle.wait("a") == 0
    throttle.count("a")
    assert throttle.wait("a") == 10
    throttle.forgive("a")
    assert throttle.wait("a") == 0


def test_the_brake_has_bounded_memory() -> None:
    """Catches a server that is filled up by somebody with many addresses or made-up names."""
    throttle = Throttle(2, 60, keys=100)
    for number in range(1000):
        throttle.wait("x" * 10_000 + str(number))
        throttle.wait(f"asked only {number}")
        throttle.count("x" * 10_000 + str(number))
    for _ in range(50):
        throttle.count("x" * 10_000 + "999")
    assert len(throttle._tries) == 100
    assert max(len(key) for key in throttle._tries) == 16 and max(map(len, throttle._tries.values())) == 2
    assert throttle.wait("x" * 10_000 + "999") > 0
    throttle.forgive("somebody who never tried")
    assert len(throttle._tries) == 100


# Over HTTP


def app_with_page(tmp_path: Path) -> FastAPI:
    """Our kind of app: routes of our own, a folder of files, a Gradio page mounted at the root."""

    def echo(text: str, request: gr.Request) -> str:
        return f"{request.username}: {text}"

    async def build() -> FastAPI:
        app = FastAPI()

        @app.get("/healthz")
        async def healthz(request: Request) -> dict[str, Any]:
            return {"status": "alive"}

        with gr.Blocks(analytics_enabled=False) as page:
            box = gr.Textbox(label="box")
            gr.on([], echo, [box], [box], api_name="echo")
        return gr.mount_gradio_app(app, page, path="/", auth_dependency=login_name, mcp_server=False, run_history=False)

    return asyncio.run(build())


@pytest.fixture
def app(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.setenv("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    settings = ServerSettings(output=tmp_path / "outputs", host="0.0.0.0", accounts=file)
    return guarded(app_with_page(tmp_path), settings, open_paths=("/healthz",))


def log_in(client: TestClient, name: str = "alice", password: str = PASSWORD, **more: Any) -> Any:
    return client.post("/login", data={"username": name, "password": password}, follow_redirects=False, **more)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/config",
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/gradio_api/file=/etc/passwd",
        "/theme.css",
        "/gradio_api/startup-events",
        "/gradio_api/heartbeat/x",
        "/assets/x.js",
        "/static/img/logo.svg",
        "/nowhere",
        "/healthz/x",
        "/HEALTHZ",
        "//healthz",
        "/gradio_api/login_check",
        "/manifest.json",
        "/gradio_api/app_id",
        "/examples/a.jpg",
    ],
)
def test_nothing_is_open_but_what_must_be(app: Any, path: str) -> None:
    """Catches a route of Gradio's or of ours that answers to somebody who has not logged in."""
    with TestClient(app) as client:
        assert client.get("/healthz").status_code == 200
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (401, {"detail": "Log in first."})
        assert client.post(path, json={}).status_code == 401
        assert client.get(path, headers={"cookie": f"{LOGIN_COOKIE}=x"}).status_code == 401


def test_a_person_logs_in_on_a_page_and_out_again(app: Any) -> None:
    """Catches a form that leads nowhere, a cookie that scripts can read, and a logout that logs nobody out, or that a
    picture on another site's page can do; a cookie that somebody copied before it must be worthless after it."""
    with TestClient(app) as client:
        form = client.get("/", headers=PAGE)
        assert (
            form.status_code == 401 and 'action="/login"' in form.text and "role=" not in form.text.split("<main>")[1]
        )
        wrong = log_in(client, password="wrong", headers=PAGE)
        assert wrong.status_code == 401 and "The name or the password is wrong." in wrong.text
        right = log_in(client, headers=PAGE)
        assert (right.status_code, right.headers["location"]) == (303, "/")
        assert "HttpOnly" in right.headers["set-cookie"] and "SameSite=Lax" in right.headers["set-cookie"]
        page = client.get("/", headers=PAGE)
        assert page.status_code == 200 and "gradio_config" in page.text
        assert client.get("/login", headers=PAGE, follow_redirects=False).status_code == 303
        kept = client.cookies[LOGIN_COOKIE]
        by_link = client.get("/logout", headers=PAGE, follow_redirects=False)
        assert (by_link.status_code, by_link.headers["allow"]) == (405, "POST")
        assert client.get("/", headers=PAGE).status_code == 200
        assert client.post("/logout", follow_redirects=False).status_code == 303
        assert client.get("/", headers=PAGE).status_code == 401
        assert client.get("/config", headers={"cookie": f"{LOGIN_COOKIE}={kept}"}).status_code == 401
        log_in(client)
        assert client.get("/config").status_code == 200


def test_under_a_subpath_and_https(file: Path, tmp_path: Path) -> None:
    """Catches a form or a cookie for the wrong path, and a login that would travel over plain HTTP."""
    accounts = Accounts(file, b"k")
    app = Login(FastAPI(), accounts, open_paths=(), root_path="/uso")
    with TestClient(app_in_state(app), base_url="https://testserver") as client:
        assert 'action="/uso/login"' in client.get("/", headers=PAGE).text
        answer = log_in(client, headers=PAGE)
        assert answer.headers["location"] == "/uso/"
        assert "Path=/uso;" in answer.headers["set-cookie"] and "Secure" in answer.headers["set-cookie"]


def app_in_state(inner: Any) -> Any:
    """What the layers further out have done before a login is asked for."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope.setdefault("state", {})
            await inner(scope, receive, send)
        else:
            await inner._inner(scope, receive, send)

    return app


@pytest.mark.parametrize(
    "sent",
    [
        {"data": {"username": "alice"}},
        {"json": {"username": "alice", "password": PASSWORD}},
        {"content": b"x" * 20_000},
        {"content": b"--x\r\n", "headers": {"content-type": "multipart/form-data"}},
        {"files": {"username": b"alice", "password": b"x"}},
    ],
)
def test_a_form_that_is_none_is_said_so(app: Any, sent: dict[str, Any]) -> None:
    """Catches a login that breaks on what a stranger's program sends."""
    with TestClient(app) as client:
        answer = client.post("/login", **sent)
        assert (answer.status_code, answer.json()) == (
            400,
            {"detail": "A login has a form with username and password."},
        )


def test_a_form_in_the_other_encoding_is_read(app: Any) -> None:
    """Gradio's JavaScript client sends its login as multipart: catches a door that knows one encoding alone."""
    with TestClient(app) as client:
        parts = {"username": (None, "alice"), "password": (None, PASSWORD)}
        assert client.post("/login", files=parts).json() == {"success": True}


def test_guessing_is_slowed_down(app: Any) -> None:
    """Catches an address that may try passwords without end; also a right one must wait then."""
    with TestClient(app) as client:
        for _ in range(WRONG_TRIES):
            assert log_in(client, password="wrong").status_code == 401
        answer = log_in(client)
        assert answer.status_code == 429 and 0 < int(answer.headers["retry-after"]) <= 300
        assert answer.json() == {"detail": "Too many wrong passwords. Try again in 5 minutes."}
    with TestClient(app, client=("203.0.113.9", 1)) as other:
        assert log_in(other).json() == {"success": True}


def test_names_that_cannot_be_cost_nothing(app: Any) -> None:
    """Catches made-up names that fill the memory, take a place from somebody who guesses, or compute hashes."""
    with TestClient(app) as client:
        for name in ("x" * 129, "a\x07b", "", "x" * 10_000) * WRONG_TRIES:
            assert log_in(client, name=name).json() == {"detail": "The name or the password is wrong."}
        assert log_in(client).json() == {"success": True}


def test_who_must_wait_takes_no_tries_from_a_name(app: Any) -> None:
    """Catches one address that locks somebody out everywhere, by going on after it was told to wait."""
    with TestClient(app) as client:
        for _ in range(WRONG_TRIES_OF_NAME + 5):
            log_in(client, password="wrong")
    with TestClient(app, client=("203.0.113.9", 1)) as other:
        assert log_in(other).json() == {"success": True}


def test_a_right_password_does_not_use_up_tries(app: Any) -> None:
    """Catches an office behind one address that locks itself out by logging in."""
    with TestClient(app) as client:
        assert [log_in(client).status_code for _ in range(2 * WRONG_TRIES)] == [200] * 2 * WRONG_TRIES


def test_programs_log_in_with_gradio_client(app: Any) -> None:
    """Catches a login that `Client(auth=...)` cannot use, and an event that does not know its person."""
    with served(app) as url:
        with pytest.raises(AuthenticationError):
            Client(url, verbose=False, analytics_enabled=False)
        with pytest.raises(AuthenticationError):
            Client(url, auth=("alice", "wrong"), verbose=False, analytics_enabled=False)
        client = Client(url, auth=("alice", PASSWORD), verbose=False, analytics_enabled=False)
        assert client.predict("hi", api_name="/echo") == "alice: hi"
        client.close()
