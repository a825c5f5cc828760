"""By which name the server was asked for, and whether by somebody at this very machine: the first look at a request.

A page elsewhere whose name is turned into 127.0.0.1 (DNS rebinding) is taken by a browser for this server's own; the
name that it asks for tells. Headers are seen here as they came in, before `guard.py` takes away what nobody may say.
"""

import ipaddress
import re
from typing import Any, cast

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from uso.web.access.asgi import header, refuse
from uso.web.access.identity import mark_local
from uso.web.settings import ServerSettings

MAX_SHOWN = 80
"""Characters of a name that a refusal repeats."""

FORWARDED = re.compile(
    r"forwarded|x-forwarded.*|via|x-real-ip|x-client-ip|x-original-.*|cf-connecting-ip|true-client-ip"
)
"""Headers by which a proxy can be recognized."""


class Hosts:
    """Refuses names that the server does not go by, and marks requests that can only be this machine's own."""

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
        if not self._goes_by(host, scope, peer):
            shown = host[:MAX_SHOWN]
            sentence = (
                f"This server does not go by the name '{shown}'. Ask for it as localhost, or let whoever runs it start "
                f"it with --allowed-hosts {shown}."
            )
            return await refuse(scope, send, 403, sentence)
        if self._personal and is_loopback(host) and is_loopback(peer) and not was_forwarded(scope):
            mark_local(scope)
        return await self._inner(scope, receive, send)

    def _goes_by(self, host: str, scope: Scope, peer: str) -> bool:
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
    """Whether a proxy says that it is between. HTTP/1.0 is what nginx speaks to a server when it was told nothing."""
    names = (key.decode("latin-1").lower().replace("_", "-") for key, _ in scope["headers"])
    return scope.get("http_version") == "1.0" or any(FORWARDED.fullmatch(name) for name in names)


def plain(client: Any) -> tuple[str, int] | None:
    """The other end of a connection; an IPv4 address that came over an IPv6 socket, as IPv4."""
    if not client:
        return None
    host, port = client
    try:
        mapped = getattr(ipaddress.ip_address(host), "ipv4_mapped", None)
    except ValueError:
        mapped = None
    return (str(mapped) if mapped else host), port
