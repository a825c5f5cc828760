"""Who asks: persons, owners, the browser's cookie, and what the server says of itself to itself."""

import asyncio
import logging
import pickle
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from tests.support.behind import PAGE
from uso.web.access.identity import (
    BROWSER_COOKIE,
    Asker,
    Relay,
    acceptable_name,
    asker_at,
    asker_of,
    browser_key,
    login_name,
    new_browser_key,
    person_at,
    remember,
    request_id_of,
    set_cookie,
)
from uso.web.access.stack import guarded
from uso.web.settings import ServerSettings


@pytest.mark.parametrize(
    ("host", "person"),
    [
        ("203.0.113.7", "at:203.0.113.7"),
        (" 203.0.113.7 ", "at:203.0.113.7"),
        ("::ffff:203.0.113.7", "at:203.0.113.7"),
        ("2001:db8:1:2:aaaa::1", "at:2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::9", "at:2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "at:2001:db8:1:3::/64"),
        ("fe80::1%eth0", "at:fe80::/64"),
        ("::1", "at:::/64"),
        ("testclient", "at:unknown"),
        ("x" * 10_000, "at:unknown"),
        ("", "at:unknown"),
        (None, "at:unknown"),
    ],
)
def test_one_caller_is_one_person(host: str | None, person: str) -> None:
    """Catches one household that is many persons by its IPv6 addresses, and text of a stranger's inside a key."""
    assert person_at(host) == person


def test_a_login_owns_its_history_and_a_browser_its_own() -> None:
    """Catches a history that is shared by everybody behind one address, or that changes with the address."""
    assert asker_at("203.0.113.7", name="alice") == Asker("name:alice", "name:alice", "alice")
    keys = [new_browser_key(), new_browser_key()]
    askers = [asker_at("203.0.113.7", cookies=f"a=b; {BROWSER_COOKIE}={key}") for key in keys]
    assert {asker.person for asker in askers} == {"at:203.0.113.7"}
    assert len({asker.owner for asker in askers}) == 2
    assert asker_at("198.51.100.1", cookies=f"{BROWSER_COOKIE}={keys[0]}").owner == askers[0].owner
    assert asker_at("203.0.113.7").owner is None


def test_the_key_is_not_in_the_owner() -> None:
    """Catches a cookie's secret in a log line or in the ledger, from where it would open the history."""
    key = new_browser_key()
    owner = asker_at(None, cookies=f"{BROWSER_COOKIE}={key}").owner
    assert owner is not None and owner.startswith("browser:") and key not in owner and len(owner) == 8 + 64


def test_nobody_can_claim_a_login_through_a_cookie() -> None:
    """Catches an owner that is made of whatever a cookie says."""
    for forged in ("name:alice", "../../x", "", "a" * 42, "a" * 44, "a" * 42 + "!"):
        assert browser_key(f"{BROWSER_COOKIE}={forged}") is None
        assert asker_at(None, cookies=f"{BROWSER_COOKIE}={forged}").owner is None


def test_a_good_key_counts_beside_a_bad_one() -> None:
    """Catches a history that vanishes because another path of the same host has set a cookie of that name too."""
    key = new_browser_key()
    assert browser_key(f"{BROWSER_COOKIE}=bad; x={key}; {BROWSER_COOKIE}={key}") == key


def test_cookies_are_kept_from_scripts_and_other_sites() -> None:
    """Catches a cookie that a script could read, that travels over plain HTTP, or is sent beside the subpath."""
    line = set_cookie("n", "v", path="/uso", secure=True, seconds=60)
    assert line == "n=v; Path=/uso; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
    assert "Secure" not in set_cookie("n", "v", path="", secure=False, seconds=60)
    assert "Path=/;" in set_cookie("n", "v", path="", secure=False, seconds=60)
    framed = set_cookie("n", "v", path="", secure=True, seconds=60, framed=True)
    assert framed == "n=v; Path=/; Max-Age=60; HttpOnly; SameSite=None; Partitioned; Secure"
    plain = set_cookie("n", "v", path="", secure=False, seconds=60, framed=True)
    assert plain.endswith("SameSite=Lax"), "without HTTPS a browser drops SameSite=None"


@pytest.mark.parametrize(
    ("name", "fine"),
    [("alice", True), ("Zoë Ö", True), ("", False), (" a", False), ("a\n", False), ("a\0b", False), ("a" * 129, False)],
)
def test_names_are_bounded_and_printable(name: str, fine: bool) -> None:
    """Catches a name that breaks a log line or fills the memory of whoever keeps it."""
    assert acceptable_name(name) is fine


class Remembering:
    """Stands where the guard stands: leaves an asker for what is inside."""

    def __init__(self, inner: Any, asker: Asker) -> None:
        self.inner, self.asker = inner, asker

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            remember(scope, self.asker)
        await self.inner(scope, receive, send)


@pytest.mark.parametrize("queued", [True, False])
def test_an_event_knows_who_asked(queued: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a queued event whose request is another than the one that the guard looked at; also a generator's."""
    monkeypatch.setenv("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    alice = Asker("name:alice", "name:alice", "alice")
    seen: list[Asker] = []

    async def handler(text: str, request: gr.Request) -> AsyncIterator[str]:
        seen.append(asker_of(request))
        yield text

    async def build() -> TestClient:
        with gr.Blocks(analytics_enabled=False) as page:
            box = gr.Textbox(label="box")
            gr.on([], handler, [box], [box], api_name="echo", queue=queued)
        return TestClient(Remembering(gr.mount_gradio_app(FastAPI(), page, path="/"), alice))

    with asyncio.run(build()) as client:
        if queued:
            event = client.post("/gradio_api/call/echo", json={"data": ["hi"]}).json()["event_id"]
            assert '"hi"' in client.get(f"/gradio_api/call/echo/{event}").text
        else:
            assert client.post("/gradio_api/run/echo", json={"data": ["hi"]}).json()["data"] == ["hi"]
    assert seen == [alice]


def test_without_a_guard_address_and_cookie_are_read() -> None:
    """Catches handlers that only work behind the guard: those of a test, or of a page that was launched by itself."""
    app = FastAPI()
    key = new_browser_key()

    @app.get("/")
    def who(request: Request) -> list[Any]:
        return [asker_of(request).person, asker_of(request).owner, login_name(request), request_id_of(request)]

    with TestClient(app, client=("203.0.113.7", 1), cookies={BROWSER_COOKIE: key}) as client:
        assert client.get("/").json() == [
            "at:203.0.113.7",
            asker_at(None, cookies=f"{BROWSER_COOKIE}={key}").owner,
            None,
            "",
        ]
    assert asker_of(None) == asker_of(gr.Request()) == Asker("at:unknown", None, None)


def test_an_asker_can_be_pickled() -> None:
    """Gradio pickles requests with their state in some settings; catches an asker that would get lost there."""
    asker = asker_at("203.0.113.7", name="alice")
    assert pickle.loads(pickle.dumps(asker)) == asker  # noqa: S301  our own bytes


def test_the_server_speaks_for_others_to_itself_alone() -> None:
    """Catches a header with which anybody could be anybody: forged, of another process, or meant for something else."""
    relay = Relay()
    asker = Asker("name:Zoë", "name:Zoë", "Zoë")
    sealed = relay.caller(asker)
    assert sealed.isascii()
    assert relay.asker(Relay.CALLER, sealed) == asker
    near = asker_at("127.0.0.1", local=True)
    assert near.local and relay.asker(Relay.CALLER, relay.caller(near)) == near
    assert relay.asker(Relay.SELF, relay.own_headers()[Relay.SELF]) == Asker("server", None, "server")
    assert relay.asker(Relay.SELF, sealed) is None
    assert Relay().asker(Relay.CALLER, sealed) is None
    for forged in ("", ".", sealed[:-1], sealed[1:], "é." + "0" * 64, "W10=." + "0" * 64, sealed + "\xe9"):
        assert relay.asker(Relay.CALLER, forged) is None


def test_a_browser_gets_a_key_with_its_page(client: TestClient) -> None:
    """Catches a history that starts anew with each visit, a program that is taken for a browser, a cached key."""
    assert "set-cookie" not in client.get("/who").headers
    assert client.get("/who").json()["owner"] is None
    first = client.get("/", headers=PAGE)
    assert re.fullmatch(
        rf"{BROWSER_COOKIE}=[\w-]{{43}}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax", first.headers["set-cookie"]
    )
    assert first.headers["cache-control"] == "no-store"
    owner = client.get("/who").json()["owner"]
    assert owner == asker_at(None, cookies=f"{BROWSER_COOKIE}={client.cookies[BROWSER_COOKIE]}").owner
    key = client.cookies[BROWSER_COOKIE]
    again = client.get("/", headers=PAGE).headers["set-cookie"]  # for another year: else all is gone after the first
    assert f"={key}; " in again and "Max-Age=31536000" in again
    client.cookies.clear()
    assert "set-cookie" in client.get("/", headers={**PAGE, "cookie": f"{BROWSER_COOKIE}=name:alice"}).headers


def test_the_cookie_fits_where_the_page_is(guard: Callable[..., Any]) -> None:
    """Catches a cookie that other apps of the same host get, or that travels over plain HTTP."""
    with TestClient(guard(root_path="/uso"), base_url="https://testserver") as client:
        assert "Path=/uso; " in client.get("/", headers=PAGE).headers["set-cookie"]
        assert client.get("/", headers=PAGE).headers["set-cookie"].endswith("; Secure")


def test_keys_are_not_logged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a log from which histories can be opened."""
    with caplog.at_level(logging.DEBUG, logger="uso"):
        client.get("/", headers=PAGE)
        client.get("/boom")
    assert client.cookies[BROWSER_COOKIE] not in caplog.text


def test_the_server_may_speak_for_its_callers(open_app: FastAPI, tmp_path: Path) -> None:
    """Catches MCP callers that are all one person, and anybody else who claims to be the server."""
    relay = Relay()
    settings = ServerSettings(output=tmp_path, host="0.0.0.0", user_header="x-user", trusted_proxies=())
    app = guarded(open_app, settings, relay=relay)
    alice = asker_at(None, name="alice")
    itself = relay.own_headers()
    with TestClient(app) as client:
        assert client.get("/who", headers={**itself, Relay.CALLER: relay.caller(alice)}).json()["name"] == "alice"
        answer = client.get("/who", headers=itself).json()
        assert answer["name"] == "server" and not {Relay.SELF, Relay.CALLER} & set(answer["headers"])
        assert client.get("/who", headers=Relay().own_headers()).status_code == 401
