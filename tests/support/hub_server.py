"""A miniature Hugging Face Hub on 127.0.0.1: the endpoints that huggingface_hub 2.4 really uses, and their failures.

`/api/models/OWNER/NAME/revision/REV` and `/tree/REV`, `HEAD` and `GET` of `/OWNER/NAME/resolve/REV/PATH`; large files
are redirected to a second server, as the Hub redirects to its storage. It counts what is asked and sent, and can cut
or hold a connection, damage a file, ignore ranges, be busy, refuse, want a token, or be gated.
"""

import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".onnx", ".gguf", ".msgpack", ".model")
"""What lies in LFS, by suffix."""
PIECE = 64 * 1024
HOLD_SECONDS = 30


@dataclass
class Repository:
    """Files at one commit, reached as `main` or by the commit."""

    files: dict[str, bytes]
    commit: str = "1" * 40
    gated: bool = False
    readers: tuple[str, ...] = ()
    """Tokens that open it, where it is gated."""
    xet: bool = False
    listed_sizes: dict[str, int] = field(default_factory=dict)
    """Sizes to claim in place of the real ones."""

    def size(self, path: str) -> int:
        return self.listed_sizes.get(path, len(self.files[path]))


@dataclass(frozen=True)
class Request:
    """What was asked: method, path, and the headers that matter here."""

    method: str
    path: str
    range: str | None
    authorization: str | None
    storage: bool
    """Asked of the storage server, where large files come from."""


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class HubServer:
    """Both servers; a context manager. Faults are set by path in the repository and can be changed at any time."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.sent: dict[str, int] = {}
        """Bytes of content sent, by path in the repository."""
        self.cuts: dict[str, int] = {}
        """Cut the next connection that sends a path after so many bytes; once."""
        self.reset = False
        """Cut with a reset instead of an early end."""
        self.before_cut: Callable[[], object] = lambda: None
        """Called when everything before a cut is on its way: a reset throws away what the client has not read."""
        self.holds: dict[str, int] = {}
        """Stop after so many bytes until `release` is set; once."""
        self.holding = threading.Event()
        self.release = threading.Event()
        self.damaged: set[str] = set()
        self.ignores_range = False
        self.busy: dict[str, int] = {}
        """How many more requests for a path are answered with 503."""
        self.says: bytes | None = None
        """What everything is answered with."""
        self.closed: set[str] = set()
        """Parts of addresses that are answered with 403."""
        self.expired: set[str] = set()
        """Access tokens that are not valid."""
        self.hub = _Server(self, storage=False)
        self.storage = _Server(self, storage=True)

    @property
    def url(self) -> str:
        return self.hub.url

    def __enter__(self) -> Self:
        for server in (self.hub, self.storage):
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Accept no more connections; those that are open live on."""
        self.release.set()
        for server in (self.hub, self.storage):
            server.shutdown()
            server.server_close()

    def forget(self) -> None:
        """Start counting anew."""
        self.requests.clear()
        self.sent.clear()

    def asked(self, text: str) -> list[Request]:
        """The requests whose path holds `text`."""
        return [request for request in self.requests if text in request.path]

    @property
    def bytes_sent(self) -> int:
        return sum(self.sent.values())


class _Server(ThreadingHTTPServer):
    def __init__(self, owner: HubServer, storage: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner = owner
        self.is_storage = storage
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away (killed, say) is nothing to print."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *arguments: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        owner, headers = self.server.owner, self.headers
        path = unquote(urlsplit(self.path).path)
        owner.requests.append(
            Request(self.command, path, headers.get("Range"), headers.get("Authorization"), self.server.is_storage)
        )
        token = (headers.get("Authorization") or "").removeprefix("Bearer ")
        if owner.says is not None:
            self.send_bytes(owner.says, {})
        elif any(part in path for part in owner.closed):
            self.refuse(403, "")
        elif token in owner.expired:
            self.refuse(401, "", "Invalid credentials in Authorization header")
        elif self.server.is_storage:
            _, owner_name, name, file = path.split("/", 3)
            self.send_content(file, owner.repositories[f"{owner_name}/{name}"].files[file], {})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", path):
            self.send_listing(*match.groups())
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path):
            self.send_listing(match[1], "revision", "main")
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.send_file(*match.groups())
        else:
            self.refuse(404, "")

    def repository(self, name: str, revision: str) -> Repository | None:
        """The repository, or None after a refusal."""
        repository = self.server.owner.repositories.get(name)
        if repository is None:
            self.refuse(401, "RepoNotFound")
        elif revision not in ("main", repository.commit):
            self.refuse(404, "RevisionNotFound")
        else:
            return repository
        return None

    def send_listing(self, name: str, kind: str, revision: str) -> None:
        repository = self.repository(name, revision)
        if repository is None:
            return
        entries = [self.entry(repository, path, kind == "tree") for path in repository.files]
        listing = {"id": name, "sha": repository.commit, "gated": repository.gated, "siblings": entries}
        self.send_bytes(json.dumps(entries if kind == "tree" else listing).encode(), {})

    def entry(self, repository: Repository, path: str, is_tree: bool) -> dict[str, Any]:
        """A file, in the form of one of the two listings."""
        data, size = repository.files[path], repository.size(path)
        entry: dict[str, Any] = {"size": size}
        entry |= {"type": "file", "path": path, "oid": git_sha1(data)} if is_tree else {"rfilename": path}
        entry |= {} if is_tree else {"blobId": git_sha1(data)}
        if path.endswith(LARGE):
            entry["lfs"] = {"size": size, "pointerSize": 130, ("oid" if is_tree else "sha256"): sha256(data)}
            if repository.xet and is_tree:
                entry["xetHash"] = sha256(b"xet" + data)
        return entry

    def send_file(self, name: str, revision: str, path: str) -> None:
        repository = self.repository(name, revision)
        if repository is None:
            return
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if path not in repository.files:
            self.refuse(404, "EntryNotFound")
        elif repository.gated and token not in repository.readers:
            self.refuse(403 if token else 401, "GatedRepo")
        elif not path.endswith(LARGE):
            etag = {"X-Repo-Commit": repository.commit, "ETag": f'"{git_sha1(repository.files[path])}"'}
            self.send_content(path, repository.files[path], etag)
        else:
            self.redirect(name, repository, path)

    def redirect(self, name: str, repository: Repository, path: str) -> None:
        data = repository.files[path]
        headers = {
            "X-Repo-Commit": repository.commit,
            "X-Linked-Size": str(repository.size(path)),
            "X-Linked-ETag": f'"{sha256(data)}"',
            "Location": f"{self.server.owner.storage.url}/{name}/{path}",
        }
        if repository.xet:
            headers |= {"X-Xet-Hash": sha256(b"xet" + data), "X-Xet-Refresh-Route": f"{self.server.url}/xet"}
        self.send_bytes(b"", headers, status=302)

    def send_content(self, path: str, data: bytes, headers: dict[str, str]) -> None:
        """The bytes of a file, or the part that was asked for, with the faults that were set."""
        owner = self.server.owner
        if owner.busy.get(path, 0):
            owner.busy[path] -= 1
            self.refuse(503, "")
            return
        start = 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted and not owner.ignores_range:
            start = int(wanted[1])
            headers = {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        if path in owner.damaged:
            data = data[:-1] + bytes([data[-1] ^ 1])
        content = data[start:]
        self.send_headers(206 if "Content-Range" in headers else 200, {**headers, "Content-Length": str(len(content))})
        if self.command == "HEAD":
            return
        stop = min(owner.cuts.pop(path, len(content)), len(content))
        hold = owner.holds.pop(path, stop)
        for begin in range(0, stop, PIECE):
            if begin >= hold:
                owner.holding.set()
                owner.release.wait(HOLD_SECONDS)
                hold = stop
            piece = content[begin : min(begin + PIECE, stop)]
            self.wfile.write(piece)
            owner.sent[path] = owner.sent.get(path, 0) + len(piece)
        if stop < len(content):
            self.cut()

    def cut(self) -> None:
        """End the connection before the content does."""
        self.close_connection = True
        self.server.owner.before_cut()
        if self.server.owner.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def refuse(self, status: int, code: str, message: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self.send_bytes(b"", {name: text for name, text in headers.items() if text}, status)

    def send_bytes(self, data: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_headers(status, {**headers, "Content-Length": str(len(data))})
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_headers(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
