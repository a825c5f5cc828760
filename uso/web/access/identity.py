"""Who sends a request: the person that limits count, the owner of a history, and the cookie of one browser.

Keeps the `Asker` of each request in its scope. Refuses nobody; that is up to the other layers.
"""

import ipaddress
import json
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import MutableMapping
from dataclasses import astuple, dataclass
from hashlib import sha256
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uso.web.access.asgi import header, is_mcp, is_navigation, path_of
from uso.web.access.tokens import Signer

BROWSER_COOKIE = "uso-browser"
BROWSER_SECONDS = 365 * 24 * 3600
KEY_BYTES = 32
_KEY = re.compile(r"[A-Za-z0-9_-]{43}")
"""32 bytes in URL-safe Base64 without padding."""

MAX_NAME = 128
"""Characters of a login name."""

REQUEST_ID = "request_id"
"""Where in a request's state its id is kept."""
_ASKER = "asker"
_LOCAL = "local"


@dataclass(frozen=True)
class Asker:
    """Who is behind a request."""

    person: str
    """Whom queue and limits count: `name:alice`, or `at:203.0.113.7` (IPv6: a /64, one household)."""
    owner: str | None
    """Whose history it is: `name:alice`, or `browser:` and a hash; None for a program, which has none."""
    name: str | None
    """The login name."""
    local: bool = False
    """Whether only a person at this very machine can have sent it (`hosts.py`)."""


def person_at(host: str | None) -> str:
    """`at:` and what counts as one caller: an IPv4 address, the /64 of an IPv6 address, or `unknown`."""
    try:
        address = ipaddress.ip_address((host or "").strip())
    except ValueError:
        return "at:unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return f"at:{ipaddress.IPv6Network((int(address), 64), strict=False)}"
        address = address.ipv4_mapped
    return f"at:{address}"


def asker_at(host: str | None, *, name: str | None = None, cookies: str = "", local: bool = False) -> Asker:
    """The asker at an address, with a login name or with the cookies of a `Cookie` header, or with neither."""
    if name is not None:
        return Asker(f"name:{name}", f"name:{name}", name)
    key = browser_key(cookies)
    owner = None if key is None else f"browser:{sha256(key.encode()).hexdigest()}"
    return Asker(person_at(host), owner, None, local)


def asker_of(request: Any) -> Asker:
    """Who is behind a `gr.Request` (of a queued event too: it wraps the request that joined the queue) or a Starlette
    request. Without the stack, address and cookie are read from the request itself."""
    scope = _scope(request)
    found = asker_in(scope)
    if found is not None:
        return found
    client = scope.get("client")
    cookies = "; ".join(value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"cookie")
    return asker_at(client[0] if client else None, cookies=cookies)


def asker_in(scope: MutableMapping[str, Any]) -> Asker | None:
    """What the layers outside have found so far."""
    found = scope.get("state", {}).get(_ASKER)
    return found if isinstance(found, Asker) else None


def request_id_of(request: Any) -> str:
    """The request's id in the log and in `X-Request-Id`; empty without the stack."""
    return str(_scope(request).get("state", {}).get(REQUEST_ID, ""))


def _scope(request: Any) -> MutableMapping[str, Any]:
    scope = getattr(getattr(request, "request", None) or request, "scope", None)
    return scope if isinstance(scope, MutableMapping) else {}


def login_name(request: Any) -> str | None:
    """The login name, as Gradio's `auth_dependency` wants it."""
    return asker_of(request).name


def remember(scope: MutableMapping[str, Any], asker: Asker) -> None:
    """Leave the asker where `asker_of` looks for it."""
    scope.setdefault("state", {})[_ASKER] = asker


def mark_local(scope: MutableMapping[str, Any]) -> None:
    """Note that a request was sent from this very machine."""
    scope.setdefault("state", {})[_LOCAL] = True


def is_local(scope: MutableMapping[str, Any]) -> bool:
    return scope.get("state", {}).get(_LOCAL) is True


def acceptable_name(name: str) -> bool:
    """Whether a text can be a login name: 1 to 128 printable characters, no blank at either end."""
    return 0 < len(name) <= MAX_NAME and name.isprintable() and name == name.strip()


# Cookies


def new_browser_key() -> str:
    return secrets.token_urlsafe(KEY_BYTES)


def browser_key(cookies: str) -> str | None:
    """The key in a `Cookie` header; None where it is missing or malformed."""
    return next((value for value in cookie_values(cookies, BROWSER_COOKIE) if _KEY.fullmatch(value)), None)


def cookie_values(cookies: str, name: str) -> list[str]:
    """All values that a `Cookie` header has under a name (one for each path that it was set for)."""
    pairs = (part.strip().partition("=") for part in cookies.split(";"))
    return [value for key, _, value in pairs if key == name]


def set_cookie(name: str, value: str, *, path: str, secure: bool, seconds: int, framed: bool = False) -> str:
    """A `Set-Cookie` header that scripts cannot read and other sites cannot use to change anything.

    Args:
        framed: other sites may show the page in a frame. Over HTTPS the cookie then works there too; the browser keeps
            another one for each of these sites (`Partitioned`), so a third site can use none. HTTP has no such cookies.
    """
    parts = [f"{name}={value}", f"Path={path or '/'}", f"Max-Age={seconds}", "HttpOnly"]
    parts += ["SameSite=None", "Partitioned"] if framed and secure else ["SameSite=Lax"]
    return "; ".join([*parts, "Secure"] if secure else parts)


# The server calls itself


class Relay:
    """Headers by which a request that the server sends to itself names the caller on whose behalf it is.

    Gradio's MCP tools call the server's own address and copy the headers of the request that they came with. `Identity`
    puts `CALLER` on such requests, and it is trusted when it comes back; `SELF` is for the client that sends them.
    """

    CALLER = "x-uso-caller"
    SELF = "x-uso-self"

    def __init__(self) -> None:
        self._signer = Signer(secrets.token_bytes(32))

    def caller(self, asker: Asker) -> str:
        """The value of `CALLER`, valid in this process alone."""
        return self._sealed(self.CALLER, json.dumps(astuple(asker)))

    def own_headers(self) -> dict[str, str]:
        """What a client inside this process sends with every request, instead of a login."""
        return {self.SELF: self._sealed(self.SELF, json.dumps(["server", None, "server"]))}

    def asker(self, header: str, value: str) -> Asker | None:
        """The caller that a header names; None for a forged one."""
        text, _, signature = value.rpartition(".")
        try:
            opened = urlsafe_b64decode(text.encode()).decode()
        except (Base64Error, ValueError):
            return None
        return Asker(*json.loads(opened)) if self._signer.is_signature(signature, header, opened) else None

    def _sealed(self, header: str, text: str) -> str:
        return f"{urlsafe_b64encode(text.encode()).decode()}.{self._signer.sign(header, text)}"


# The layer


class Identity:
    """Notes who sends each request, and gives a browser its cookie with the page: a new one, or its own for longer."""

    def __init__(self, inner: ASGIApp, root_path: str, relay: Relay, framed: bool = False) -> None:
        self._inner = inner
        self._root = root_path.rstrip("/")
        self._framed = framed
        self._relay = relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        cookies = header(scope, "cookie")
        asker = asker_in(scope)
        if asker is None:
            address = scope["client"][0] if scope.get("client") else None
            asker = asker_at(address, cookies=cookies, local=is_local(scope))
            remember(scope, asker)
        if is_mcp(path_of(scope)):
            scope["headers"] = [*scope["headers"], (Relay.CALLER.encode(), self._relay.caller(asker).encode())]
        if asker.name is None and is_navigation(scope):
            key = browser_key(cookies) or new_browser_key()  # the same again for another year
            return await self._inner(scope, receive, self._with_cookie(scope, send, key))
        return await self._inner(scope, receive, send)

    def _with_cookie(self, scope: Scope, send: Send, key: str) -> Send:
        secure = scope.get("scheme") == "https"
        cookie = set_cookie(
            BROWSER_COOKIE, key, path=self._root, secure=secure, seconds=BROWSER_SECONDS, framed=self._framed
        )

        async def send_with(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message["headers"] if pair[0].lower() != b"cache-control"]
                # A cache that kept this answer would give the same key to others.
                new = [(b"set-cookie", cookie.encode()), (b"cache-control", b"no-store")]
                message["headers"] = [*kept, *new]
            await send(message)

        return send_with
