"""The whole stack around an app with a real Gradio page: trusted proxies, errors, response headers."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.support.accounts import PASSWORD
from tests.support.behind import PAGE, PROXY, STRANGER, connected, who
from tests.support.served import served
from uso.errors import ConfigError
from uso.web.access.stack import Answers, check_proxies, frame_headers

# Gradio's own conversion leaves images open.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")


def test_only_a_trusted_proxy_says_where_a_caller_is(guard: Callable[..., Any]) -> None:
    """Catches a stranger who is somebody else with each request, by a header."""
    app = guard(trusted_proxies=("203.0.113.0/24",))
    said = {"x_forwarded_for": "192.0.2.9, 192.0.2.5", "x_forwarded_proto": "https", "x_forwarded_host": "example.org"}
    believed = who(app, PROXY, **said)
    assert (believed["person"], believed["scheme"]) == ("at:192.0.2.5", "https")
    assert believed["headers"]["x-forwarded-host"] == "example.org"
    stranger = who(app, STRANGER, **said, forwarded="for=192.0.2.9", x_gradio_server="http://example.org")
    assert (stranger["person"], stranger["scheme"]) == ("at:198.51.100.7", "http")
    assert not {name for name in stranger["headers"] if "forwarded" in name or "gradio" in name}
    assert who(app, ("::ffff:203.0.113.1", 1), **said)["person"] == "at:192.0.2.5"
    assert who(guard(trusted_proxies=()), PROXY, **said)["person"] == "at:203.0.113.1"
    assert who(guard(trusted_proxies=("*",)), STRANGER, **said)["person"] == "at:192.0.2.9"


@pytest.mark.parametrize("entry", ["localhost", "10.0.0.1/8", "", "10.0.0.0-9", "**"])
def test_a_proxy_that_is_no_address_is_refused(entry: str) -> None:
    """Catches a mistyped network that trusts nobody in silence, or everybody."""
    check_proxies(("127.0.0.1", "::1", "10.0.0.0/8", "*"))
    with pytest.raises(ConfigError, match="is no trusted proxy: an address"):
        check_proxies((entry,))


def test_the_proxys_name_is_believed_from_the_proxy_alone(guard: Callable[..., Any]) -> None:
    """Catches a stranger who logs in by sending a name, spelled one way or another."""
    app = guard(user_header="X-Remote-User", trusted_proxies=("203.0.113.1",))
    alice = who(app, PROXY, x_remote_user="alice")
    assert (alice["person"], alice["owner"], alice["name"]) == ("name:alice", "name:alice", "alice")
    assert "x-remote-user" not in alice["headers"]
    assert "Log in at the proxy" in who(app, STRANGER, x_remote_user="alice")["detail"]
    assert "Log in at the proxy" in who(app, PROXY)["detail"]
    with TestClient(app, client=PROXY) as client:
        assert client.get("/healthz").json() == {"status": "alive"}
        twin = client.get("/who", headers={"x_remote_user": "root", "X-Remote-User": "alice"}).json()
        assert twin["name"] == "alice" and "x_remote_user" not in twin["headers"]
        assert client.get("/who", headers={"x_remote_user": "root"}).status_code == 401
        twice = client.get("/who", headers=[("x-remote-user", "root"), ("x-remote-user", "alice")])
        assert twice.status_code == 401 and "several x-remote-user headers" in twice.json()["detail"]
        zoe = client.get("/who", headers=[(b"x-remote-user", "Zoë".encode())]).json()
        assert zoe["name"] == "Zoë"
        for name in ("", "a" * 129, "a\x07b"):
            assert client.get("/who", headers={"x-remote-user": name}).status_code == 401
        text = client.get("/", headers=PAGE).text
        assert text == "Log in at the proxy before this server first: it names nobody in x-remote-user."


def test_two_ways_to_log_in_are_one_too_many(guard: Callable[..., Any], tmp_path: Path) -> None:
    """Catches a server that asks the proxy's people for a second password, or forgets the first."""
    with pytest.raises(ConfigError, match="leave one of the two out"):
        guard(user_header="x-user", accounts=tmp_path / "accounts")


def test_a_failure_is_a_sentence_and_its_cause_is_in_the_log(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a traceback that strangers see, and one that nobody finds again."""
    with caplog.at_level(logging.ERROR):
        answer = client.get("/boom")
    number = answer.headers["x-request-id"]
    assert answer.status_code == 500
    assert answer.json() == {"detail": f"Something unexpected happened; the server's log has it under {number}."}
    assert number in caplog.text and "a secret of the server" in caplog.text and "Traceback" in caplog.text


def test_what_fails_in_the_middle_is_logged_too(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a second answer inside a first one that has begun."""
    with caplog.at_level(logging.ERROR):
        answer = client.get("/late")
    assert (answer.status_code, answer.text) == (200, "one")
    assert "too late" in caplog.text and answer.headers["x-request-id"] in caplog.text


def test_every_answer_has_an_id_of_its_own_and_careful_headers(client: TestClient) -> None:
    """Catches a request that cannot be found in the log, and a file that a browser takes for a page."""
    answers = [client.get(path) for path in ("/healthz", "/config", "/examples/a.txt", "/nowhere", "/gradio_api/runs")]
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
    answer = client.get("/who")
    assert answer.json()["id"] == answer.headers["x-request-id"]


def test_no_other_site_shows_a_page_in_its_own(client: TestClient) -> None:
    """Catches a page in an invisible frame, over which somebody elsewhere catches clicks."""
    assert client.get("/", headers=PAGE).headers["content-security-policy"] == "frame-ancestors 'self'"
    assert client.get("/", headers=PAGE).headers["x-frame-options"] == "SAMEORIGIN"
    assert "content-security-policy" not in client.get("/config").headers


def test_sites_that_are_named_show_the_page_in_theirs(guard: Callable[..., Any], file: Path) -> None:
    """A hub shows the page in a frame: catches a page or a login that stays blank there, a header of old browsers that
    forbids what was allowed, and cookies that a browser does not send from a frame."""
    sites = ("https://hub.example.org", "https://*.hub.example.org")
    for settings in ({}, {"accounts": file}):
        app = guard(frame_ancestors=sites, **settings)
        with TestClient(app, base_url="https://testserver", client=STRANGER) as client:
            page = client.get("/", headers=PAGE)
            assert page.headers["content-security-policy"] == f"frame-ancestors 'self' {' '.join(sites)}"
            assert "x-frame-options" not in page.headers
            if settings:
                page = client.post("/login", data={"username": "alice", "password": PASSWORD})
                assert page.status_code == 200
            assert "SameSite=None; Partitioned; Secure" in page.headers["set-cookie"]
            refused = client.post("/size", headers={"origin": "https://hub.example.org"})
            assert refused.status_code == 403, "the hub may show the page, not act in a visitor's name"
    with TestClient(guard(frame_ancestors=sites), client=STRANGER) as client:
        assert "SameSite=Lax" in client.get("/", headers=PAGE).headers["set-cookie"]


def test_a_policy_of_its_own_does_not_open_a_page() -> None:
    """Catches an answer whose own policy, on something else, takes the place of the one on frames."""

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/html"), (b"content-security-policy", b"img-src 'self'")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"page"})

    answer = TestClient(Answers(inner, inner, frame_headers(()))).get("/")
    policies = answer.headers.get_list("content-security-policy")
    assert policies == ["img-src 'self'", "frame-ancestors 'self'"]


def test_a_header_that_anybody_can_send_is_warned_of(
    guard: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Catches logins by a proxy's header on a server that takes everybody for the proxy, without a word in the log."""
    guard(user_header="x-user", trusted_proxies=("203.0.113.1",))
    guard(trusted_proxies=("*",))
    assert caplog.text == ""
    guard(user_header="x-user", trusted_proxies=("*",))
    assert "whoever reaches this server can be anybody by sending x-user" in caplog.text


def test_nothing_waits_for_a_stream_to_end(guard: Callable[..., Any]) -> None:
    """Catches a layer that collects an answer before it passes it on: live updates would come all at once."""
    with served(guard()) as url, connected(url) as connection:
        connection.sendall(b"GET /gradio_api/heartbeat/abc HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        while b"ALIVE" not in received:
            part = connection.recv(65536)
            assert part
            received += part


def test_websockets_are_not_let_in(client: TestClient) -> None:
    """Catches a connection that no layer looks at."""
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/gradio_api/queue/join"):
        pass


@pytest.mark.parametrize(
    "path", ["/healthz", "/", "/config", "/theme.css", "/gradio_api/info", "/gradio_api/heartbeat/x", "/examples/a.txt"]
)
def test_head_works_wherever_get_does(guard: Callable[..., Any], path: str) -> None:
    """Catches a probe that is told 404 or 405 by a healthy server, and a stream whose head never ends."""
    with served(guard()) as url, connected(url) as connection:
        for _ in range(2):  # over one connection: nothing of a body is left on it
            connection.sendall(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\n")
        connection.sendall(b"HEAD /boom HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 500 ")
