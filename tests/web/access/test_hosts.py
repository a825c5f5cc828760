"""By which names a server may be asked for, and which requests count as those of this very machine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from tests.support.behind import PROXY
from uso.web.access.hosts import host_name, is_loopback
from uso.web.access.identity import asker_of
from uso.web.access.stack import guarded
from uso.web.settings import ServerSettings

NEAR, FAR = ("127.0.0.1", 1), ("198.51.100.7", 1)


def app(folder: Path, **settings: Any) -> Any:
    """A route that says whether its caller is local, behind a guard with these settings."""
    inner = FastAPI()

    @inner.api_route("/who", methods=["GET", "POST"])
    async def who(request: Request) -> bool:
        return asker_of(request).local

    return guarded(inner, ServerSettings(output=folder, **settings))


def asked(guard: Any, host: str, peer: tuple[str, int] = NEAR, **headers: str) -> Any:
    """The status of a refusal, or whether the caller is local."""
    sent = {"host": host} | {name.replace("_", "-"): value for name, value in headers.items()}
    with TestClient(guard, client=peer) as client:
        answer = client.get("/who", headers=sent)
    return answer.json() if answer.status_code == 200 else answer.status_code


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True),
        ("LOCALHOST:7860", True),
        ("127.0.0.1:7860", True),
        ("[::1]:7860", True),
        ("[::1]", True),
        ("uso.example.org", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost:7860.evil.example", False),
        ("192.0.2.7", False),
        ("[::1", False),
        ("2130706433", False),
    ],
)
def test_a_server_for_this_machine_answers_to_its_own_names(tmp_path: Path, host: str, known: bool) -> None:
    """DNS rebinding: catches a page elsewhere whose name turns into 127.0.0.1 and that a browser then lets do all."""
    assert asked(app(tmp_path), host) == (True if known else 403)


def test_the_refusal_says_what_to_do(tmp_path: Path) -> None:
    """Catches somebody who gave the machine a name and finds no way in, and a name of any length in an answer."""
    with TestClient(app(tmp_path), client=NEAR) as client:
        said = client.get("/who", headers={"host": "box.lan:7860"}).json()["detail"]
        assert said == (
            "This server does not go by the name 'box.lan'. Ask for it as localhost, or let whoever runs it start it "
            "with --allowed-hosts box.lan."
        )
        assert len(client.get("/who", headers={"host": "a" * 5000}).text) < 500


def test_a_proxy_may_call_it_what_it_likes(tmp_path: Path) -> None:
    """Catches a server on the proxy's own machine that refuses everybody who comes through; and lies of strangers."""
    guard = app(tmp_path)
    assert asked(guard, "uso.example.org", x_forwarded_for="203.0.113.9") is False
    assert asked(guard, "app:7860", x_forwarded_host="uso.example.org") is False
    assert asked(guard, "uso.example.org", FAR, x_forwarded_for="127.0.0.1") == 403
    assert asked(app(tmp_path, trusted_proxies=()), "uso.example.org", x_forwarded_for="203.0.113.9") == 403


@pytest.mark.parametrize("bind", ["127.0.0.1", "localhost", "::1", "0.0.0.0"])
def test_names_that_are_given_are_all_there_are(tmp_path: Path, bind: str) -> None:
    """Catches a flag that leaves another way in, as through a header that any page can send."""
    guard = app(tmp_path, host=bind, allowed_hosts=("uso.example.org", "[2001:db8::7]"))
    assert asked(guard, "USO.example.org:443", FAR, x_forwarded_for="203.0.113.9") is False
    assert asked(guard, "[2001:db8::7]:7860", FAR) is False
    assert asked(guard, "evil.example", x_forwarded_for="203.0.113.9", x_forwarded_host="uso.example.org") == 403
    assert asked(guard, "localhost:7860") is (bind != "0.0.0.0")
    assert asked(app(tmp_path, host="0.0.0.0"), "any.example", FAR) is False  # without the flag


@pytest.mark.parametrize(
    "header",
    ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x_forwarded_for", "forwarded", "via", "x-real-ip"],
)
def test_what_a_proxy_passes_on_is_nobody_at_this_machine(tmp_path: Path, header: str) -> None:
    """Catches strangers who come through a proxy on the same machine, and are taken for the one who sits at it."""
    assert asked(app(tmp_path), "127.0.0.1:7860") is True
    with TestClient(app(tmp_path), client=NEAR) as client:
        assert client.get("/who", headers={"host": "127.0.0.1:7860", header: "127.0.0.1"}).json() is False


@pytest.mark.parametrize(
    "settings",
    [{"host": "0.0.0.0"}, {"host": "192.0.2.7"}, {"root_path": "/uso"}, {"user_header": "x-user"}],
)
def test_a_server_for_others_has_nobody_at_this_machine(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Catches a container, or a server behind a proxy, that takes whoever comes from nearby for its owner."""
    assert asked(app(tmp_path, **settings), "localhost", x_user="ann") is False


def test_somebody_from_elsewhere_is_not_at_this_machine(tmp_path: Path) -> None:
    """Catches an address that is not looked at, and a name that is."""
    assert asked(app(tmp_path), "localhost", FAR) is False
    assert asked(app(tmp_path), "localhost", ("::ffff:127.0.0.1", 1)) is True
    assert asked(app(tmp_path, allowed_hosts=("box.lan",)), "box.lan") is False


def test_a_proxy_that_was_told_nothing_is_seen_too(tmp_path: Path) -> None:
    """nginx without any settings names nobody, but speaks HTTP/1.0: catches that it passes for a person."""
    guard = app(tmp_path)

    async def old(scope: Any, receive: Any, send: Any) -> None:
        await guard(scope | {"http_version": "1.0"} if scope["type"] == "http" else scope, receive, send)

    assert asked(old, "localhost") is False


def test_names_are_compared_without_ports() -> None:
    """Catches a port that makes a known name unknown."""
    assert [host_name(name) for name in ("A.b:80", "a.b:", "[::1]:7860", "a.b")] == ["a.b", "a.b", "[::1]", "a.b"]
    assert is_loopback("127.8.9.1") and is_loopback("::ffff:127.0.0.1") and not is_loopback("::2")


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "example.org", True),
        ("http://example.org", "example.org", True),
        ("https://example.org", "example.org:443", True),
        ("http://EXAMPLE.org:80", "example.org", True),
        ("http://localhost:7860", "localhost:7860", True),
        ("http://localhost:7861", "localhost:7860", False),
        ("https://evil.example", "example.org", False),
        ("https://example.org.evil.example", "example.org", False),
        ("null", "example.org", False),
        ("http://[", "example.org", False),
    ],
)
def test_other_sites_cannot_act_through_a_browser(client: TestClient, origin: str, host: str, allowed: bool) -> None:
    """Catches a page elsewhere that makes pictures, or stops them, in a visitor's name."""
    headers = {"host": host} | ({"origin": origin} if origin else {})
    answer = client.post("/gradio_api/size", content=b"abc", headers=headers)
    assert answer.status_code == (200 if allowed else 403)
    assert allowed or "This came from another site" in answer.json()["detail"]


def test_behind_a_proxy_the_outer_name_counts(guard: Callable[..., Any]) -> None:
    """Catches a page that refuses its own visitors because the proxy calls the server by another name."""
    headers = {"host": "app:7860", "origin": "https://example.org", "x-forwarded-host": "example.org"}
    with TestClient(guard(trusted_proxies=("203.0.113.1",)), client=PROXY) as client:
        assert client.post("/gradio_api/size", content=b"abc", headers=headers).json() == 3
    with TestClient(guard(trusted_proxies=()), client=PROXY) as client:
        assert client.post("/gradio_api/size", content=b"abc", headers=headers).status_code == 403


def test_other_sites_cannot_read(client: TestClient, open_app: FastAPI) -> None:
    """Gradio lets any site read its answers unless it is on localhost: catches that. Its own preflight is refused."""
    headers = {"origin": "https://evil.example", "host": "example.org"}
    with TestClient(open_app) as bare_client:
        assert bare_client.get("/config", headers=headers).headers["access-control-allow-origin"] == headers["origin"]
    assert "access-control-allow-origin" not in client.get("/config", headers=headers).headers
    preflight = client.options("/gradio_api/upload", headers=headers | {"access-control-request-method": "POST"})
    assert preflight.status_code == 403 and "access-control-allow-origin" not in preflight.headers
