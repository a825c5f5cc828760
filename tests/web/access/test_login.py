"""The login page, with the requests of real browsers and programs."""

import asyncio
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from gradio_client import Client
from gradio_client.exceptions import AuthenticationError

from tests.support.accounts import PASSWORD
from tests.support.behind import PAGE
from tests.support.served import served
from uso.web.access.accounts import Accounts
from uso.web.access.identity import login_name
from uso.web.access.login import LOGIN_COOKIE, MOST_COOKIES, WRONG_TRIES, WRONG_TRIES_OF_NAME, Login
from uso.web.access.stack import guarded
from uso.web.access.tokens import LoginTokens
from uso.web.settings import ServerSettings


@pytest.fixture(scope="module")
def app_with_page() -> FastAPI:
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
def app(app_with_page: FastAPI, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.setenv("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    settings = ServerSettings(output=tmp_path / "outputs", host="0.0.0.0", accounts=file)
    return guarded(app_with_page, settings, open_paths=("/healthz",))


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
    accounts = Accounts(file)
    app = Login(FastAPI(), accounts, LoginTokens(b"k", accounts.hash_of), open_paths=(), root_path="/uso")
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
    """Gradio's JavaScript client sends its login as multipart: catches a login that reads one encoding alone."""
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
    """Catches one address that locks somebody out everywhere, by going on although it must wait."""
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


def test_nobody_is_let_in_without_the_accounts(app: Any, file: Path) -> None:
    """Catches a cookie or a password that outlives the accounts file in the running server, and a login page that lets
    people try for ever; when the file is back, the same cookie counts again."""
    text = file.read_text()
    with TestClient(app) as client:
        assert log_in(client).status_code == 200 and client.get("/config").status_code == 200
        for spoil, sentence in (
            (file.unlink, "Nobody can log in now: the server cannot read its accounts."),
            (lambda: file.write_text("", encoding="utf-8"), "Nobody can log in now: this server has no accounts."),
        ):
            spoil()
            for _ in range(WRONG_TRIES + 1):
                said = log_in(client)
                assert said.status_code == 401 and said.json()["detail"].startswith(sentence)
            assert client.get("/config").status_code == 401
            page = client.get("/", headers=PAGE)
            assert page.status_code == 401 and sentence in page.text and str(file) not in page.text
            assert client.get("/healthz").status_code == 200
        file.write_text(text, encoding="utf-8")
        assert client.get("/config").status_code == 200 and log_in(client).status_code == 200


def test_cookies_are_looked_at_up_to_a_number(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches one small request with a thousand cookies, each of which opens the accounts file."""
    with TestClient(app) as client:
        log_in(client)
        forged = client.cookies[LOGIN_COOKIE][:-1] + "x"
        looks: list[str] = []
        monkeypatch.setattr(LoginTokens, "name_of", lambda self, token: looks.append(token))
        header = "; ".join([f"{LOGIN_COOKIE}={forged}"] * 500)
        client.cookies.clear()
        assert client.get("/config", headers={"cookie": header}).status_code == 401
        assert len(looks) == MOST_COOKIES
