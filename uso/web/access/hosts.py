"""`Host` and `Origin`: which name a request is for, which site sent it, and whether it comes from this very machine.

A browser takes a page elsewhere for this server's own if its name resolves to 127.0.0.1 (DNS rebinding); `Host` gives
it away. `Hosts` sees the headers as they arrived, before untrusted ones are removed; `Origins` sees them after that.
"""

import ipaddress
import re
from typing import Any, cast
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from uso.language import Text
from uso.web.access.asgi import drop_headers, header, refuse
from uso.web.access.identity import mark_local
from uso.web.settings import ServerSettings

SAFE_METHODS = ("GET", "HEAD")

MAX_SHOWN = 80
"""Characters of a name that a refusal repeats."""

FORWARDED = re.compile(
    r"forwarded|x-forwarded.*|via|x-real-ip|x-client-ip|x-original-.*|cf-connecting-ip|true-client-ip"
)
"""Headers by which a proxy can be recognized."""


class Hosts:
    """Refuses host names that are not the server's, and marks requests that can only come from this machine."""

    def __init__(self, inner: ASGIApp, settings: ServerSettings) -> None:
        self._inner = inner
        self._allowed = frozenset(settings.allowed_hosts)
        self._near = is_loopback(settings.host)
        self._personal = self._near and not (settings.accounts or settings.user_header or settings.root_path)
        self._trusted = ProxyHeadersMiddleware(cast(Any, inner), list(settings.trusted_proxies)).trusted_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["client"] = plain(scope.get("client"))
        peer = scope["client"][0] if scope["client"] else ""
        host = host_name(header(scope, "host"))
        if not self._is_own(host, scope, peer):
            shown = host[:MAX_SHOWN]
            sentence = Text(
                "This server does not go by the name '{}'. Ask for it as localhost, or let whoever runs it start "
                "it with --allowed-hosts {}.",
                shown,
                shown,
            )
            return await refuse(scope, send, 403, sentence)
        if self._personal and is_loopback(host) and is_loopback(peer) and not was_forwarded(scope):
            mark_local(scope)
        return await self._inner(scope, receive, send)

    def _is_own(self, host: str, scope: Scope, peer: str) -> bool:
        if not host or is_loopback(host) or host in self._allowed:  # browsers always name one
            return True
        if self._allowed or not self._near:
            return not self._allowed
        named = header(scope, "x-forwarded-for") or header(scope, "x-forwarded-host")
        return bool(named) and peer in self._trusted


def host_name(host: str) -> str:
    """The name of a `Host` header, without its port, in lower case; an IPv6 address keeps its brackets."""
    return re.sub(r":\d*$", "", host.strip().lower())


def is_loopback(name: str) -> bool:
    """Whether a host name or address means the machine that uses it."""
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def was_forwarded(scope: Scope) -> bool:
    """Whether a request came through a proxy. HTTP/1.0 is what nginx speaks to a server by default."""
    names = (key.decode("latin-1").lower().replace("_", "-") for key, _ in scope["headers"])
    return scope.get("http_version") == "1.0" or any(FORWARDED.fullmatch(name) for name in names)


def plain(client: Any) -> tuple[str, int] | None:
    """The other end of a connection; an IPv4 address on an IPv6 socket becomes plain IPv4."""
    if not client:
        return None
    host, port = client
    try:
        mapped = getattr(ipaddress.ip_address(host), "ipv4_mapped", None)
    except ValueError:
        mapped = None
    return (str(mapped) if mapped else host), port


class Origins:
    """Keeps other sites from acting through a visitor's browser, and from reading answers.

    Gradio's own CORS layer refuses nothing: it only tells browsers which sites may read its answers, which is any site
    unless the server is on localhost. It adds nothing to answers of requests without `Origin`.
    """

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = header(scope, "origin")
        if origin and host_of(origin) not in own_hosts(scope):
            if scope["method"] not in SAFE_METHODS:
                sentence = Text(
                    "This came from another site ({}). Open this server's own page; if a proxy stands "
                    "before it, let the proxy pass the Host header on.",
                    origin[:200],
                )
                return await refuse(scope, send, 403, sentence)
            drop_headers(scope, lambda name: name == "origin")
        return await self._inner(scope, receive, send)


def own_hosts(scope: Scope) -> set[str]:
    """The names, with port, under which the caller knows this server; a trusted proxy may have added one."""
    names = (header(scope, "host"), header(scope, "x-forwarded-host").split(",")[0])
    return {_without_default_port(name.strip().lower()) for name in names if name.strip()}


def host_of(address: str) -> str:
    """`host` or `host:port` of an address, ports 80 and 443 left out as browsers do; empty if it has none."""
    try:
        return _without_default_port(urlsplit(address.strip()).netloc.lower())
    except ValueError:
        return ""


def _without_default_port(host: str) -> str:
    return re.sub(r":(?:80|443)$", "", host)
