"""How large request bodies may be, in which words they are refused, and what a broken upload leaves."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from mcp.server.transport_security import DEFAULT_MAX_REQUEST_BODY_SIZE

from tests.support.behind import STRANGER, connected
from tests.support.scripted import until
from tests.support.served import served
from uso.web.access import bodies
from uso.web.access.asgi import MCP_BYTES
from uso.web.access.bodies import JSON_BYTES
from uso.web.api.mcp import GIVE_A_DATA_URL

# Gradio's own conversion leaves images open.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize("declared", [True, False])
def test_bodies_are_bounded(client: TestClient, monkeypatch: pytest.MonkeyPatch, declared: bool) -> None:
    """Catches a request that fills the memory, whether it says its size or not, and a refusal that waits for more of a
    body that is here."""
    monkeypatch.setattr(bodies, "DRAIN_SECONDS", 3600.0)

    def body(size: int) -> Any:
        data = b"x" * size
        return data if declared else iter([data[: size // 2], data[size // 2 :]])

    assert client.post("/gradio_api/size", content=body(JSON_BYTES)).json() == JSON_BYTES
    answer = client.post("/gradio_api/size", content=body(JSON_BYTES + 1))
    assert answer.status_code == 413
    assert answer.json()["detail"].startswith("The request is larger than 1 MB.")


def test_a_tools_message_has_one_limit(guard: Callable[..., Any]) -> None:
    """Catches a limit that is promised here while the package below has a smaller one, in words of its own."""
    assert MCP_BYTES <= DEFAULT_MAX_REQUEST_BODY_SIZE
    assert "(4 MB in one call)" in GIVE_A_DATA_URL
    with TestClient(guard(mcp=True), client=STRANGER) as client:
        answer = client.post("/gradio_api/mcp/", content=b" " * (MCP_BYTES + 1))
    assert answer.status_code == 413
    assert answer.json()["detail"] == "The request is larger than 4 MB. Use smaller images."


@pytest.mark.parametrize(("method", "path"), [("POST", "/healthz"), ("POST", "/size"), ("GET", "/gradio_api/size")])
def test_bodies_where_none_is_taken_are_not_read(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    """Catches a body that costs its sender no login and the server seconds, on a route that has no use for it."""
    monkeypatch.setattr(bodies, "examine", lambda *arguments: pytest.fail("examined"))
    monkeypatch.setattr(bodies, "read_body", lambda *arguments: pytest.fail("read"))
    answer = client.request(method, path, content=b"[" + b"[]," * 300_000 + b"[]]")
    assert answer.status_code == (404 if path == "/healthz" else 200)
    assert path == "/healthz" or answer.json() == 0


def test_bodies_are_examined_beside_the_event_loop(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a stranger's body that is parsed where every answer is waiting."""
    seen: list[str] = []
    real = bodies.examine

    def noted(*arguments: Any) -> Any:
        seen.append(threading.current_thread().name)
        return real(*arguments)

    monkeypatch.setattr(bodies, "examine", noted)
    assert client.post("/gradio_api/size", content=b"[1]").json() == 3
    assert len(seen) == 1 and seen[0].startswith("examine")


def test_a_body_that_does_not_arrive_is_given_up(guard: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a caller who holds a request open by a byte now and then."""
    monkeypatch.setattr(bodies, "READ_SECONDS", 0.2)
    with served(guard()) as url, connected(url) as connection:
        connection.sendall(b"POST /gradio_api/size HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert (
            answer.startswith(b"HTTP/1.1 408 ") and b"The request was not here within 0.2 s. Send it again." in answer
        )


def test_deep_bodies_are_refused_in_words(client: TestClient) -> None:
    """Catches a body that makes a parser run out of stack."""
    for text in ("[" * 500_000 + "]" * 500_000, '{"data": ' + "[" * 100 + "]" * 100 + "}"):
        answer = client.post("/gradio_api/run/raw_image", content=text)
        assert (answer.status_code, answer.json()) == (400, {"detail": "The request is nested deeper than 64 levels."})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"data": [NaN]}', "The request holds NaN, which is no number that JSON has."),
        ('{"data": [1, -Infinity]}', "The request holds -Infinity, which is no number that JSON has."),
        (
            '{"session_hash": "a<gradio-sep>b"}',
            "The session has a name that no page gives itself. Load the page again.",
        ),
        ('{"session_hash": ["a"]}', "The session has a name that no page gives itself. Load the page again."),
    ],
)
def test_what_gradio_stumbles_over_is_refused_in_words(client: TestClient, text: str, sentence: str) -> None:
    """Catches numbers that cannot be written back, and a session's name that Gradio would take apart."""
    answer = client.post("/gradio_api/run/raw_image", content=text)
    assert (answer.status_code, answer.json()) == (400, {"detail": sentence})


@pytest.mark.parametrize("kind", ["declared", "counted", "one file"])
def test_uploads_are_bounded_over_real_sockets(guard: Callable[..., Any], uploads: Path, kind: str) -> None:
    """Catches an upload that fills the disk, leaves its beginning there, or is cut off without a word."""
    size = {"declared": 30_000_000, "counted": 3_000_000, "one file": 1_500_000}[kind]
    with served(guard()) as url:
        status, text = sent_raw(url, upload_head("counted" if kind == "counted" else str(size)), size)
        assert status == 413
        assert '{"detail": "The file is larger than 1 MB. Choose a smaller one."}' in text
    assert [path for path in uploads.rglob("*") if path.is_file()] == []


def upload_head(length: str) -> bytes:
    sizes = "Transfer-Encoding: chunked" if length == "counted" else f"Content-Length: {length}"
    kind = "Content-Type: multipart/form-data; boundary=edge"
    return f"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\n{sizes}\r\n{kind}\r\n\r\n".encode()


PART = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'


def sent_raw(url: str, head: bytes, size: int) -> tuple[int, str]:
    """Send a body to its end, then read the answer: (status, all of it)."""
    data = (PART + b"x" * size)[: size - 10] + b"\r\n--edge--"
    with connected(url) as connection:
        if b"chunked" in head:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
        connection.sendall(head + data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return int(answer.split(b" ")[1]), answer.decode()


def test_an_upload_that_is_broken_off_leaves_nothing(guard: Callable[..., Any], uploads: Path) -> None:
    """Gradio keeps what it has got so far of such a file, under a name that nothing removes: catches a full disk."""
    with served(guard()) as url:
        connection = connected(url)
        connection.sendall(upload_head("900000") + PART + b"x" * 500_000)
        until(lambda: uploads.exists() and list(uploads.iterdir()) != [])
        connection.close()
        until(lambda: list(uploads.iterdir()) == [])
