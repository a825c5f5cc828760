"""The stack of ASGI layers between the network and the page.

From the outside in: request ids, errors and response headers; host names; trusted proxies; other sites' requests;
login; identity; rate limits; request bodies and uploads. The queue has limits of its own.
"""

import ipaddress
import logging
import secrets
from collections.abc import Collection
from typing import Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from uso.errors import ConfigError
from uso.language import Text
from uso.web.access.accounts import Accounts
from uso.web.access.asgi import Headers, drop_headers, header, path_of, refuse
from uso.web.access.bodies import FORM_BYTES, Bodies
from uso.web.access.hosts import Hosts, Origins
from uso.web.access.identity import REQUEST_ID, Asker, Identity, Relay, acceptable_name, asker_at, remember
from uso.web.access.limits import RateLimits
from uso.web.access.login import Login
from uso.web.access.tokens import LoginTokens, login_key
from uso.web.access.uploads import FolderLimit, Uploads
from uso.web.settings import ServerSettings

logger = logging.getLogger(__name__)

PAGES = ("text/html", "application/xhtml+xml")
ANSWER_HEADERS = (("x-content-type-options", "nosniff"), ("referrer-policy", "same-origin"))


def guarded(
    app: ASGIApp,
    settings: ServerSettings,
    *,
    open_paths: Collection[str] = ("/healthz", "/readyz"),
    relay: Relay | None = None,
    upload_folder: FolderLimit | None = None,
) -> ASGIApp:
    """The app behind the stack.

    Args:
        open_paths: exact paths that need no login.
        relay: shared with the client that the MCP tools use.

    Raises:
        ConfigError: an accounts file or a trusted proxy is refused, or both ways to log in are configured.
    """
    if settings.accounts and settings.user_header:
        raise ConfigError("Names come from an accounts file or from a proxy's header: leave one of the two out.")
    check_proxies(settings.trusted_proxies)
    if settings.user_header and "*" in settings.trusted_proxies:
        logger.warning(
            "Everybody is a trusted proxy, so whoever reaches this server can be anybody by sending %s. Let nothing "
            "but your proxy reach it, and let the proxy set or remove that header in every request.",
            settings.user_header,
        )
    relay = relay or Relay()
    max_upload = settings.max_upload_mb * 10**6
    uploads = Uploads(max_upload + FORM_BYTES, settings.min_free_gb * 10**9, upload_folder)
    inner: ASGIApp = Bodies(app, uploads, max_upload=max_upload, mcp=settings.mcp)
    inner = RateLimits(inner)
    framed = bool(settings.frame_ancestors)
    inner = Identity(inner, settings.root_path, relay, framed)
    if settings.accounts:
        accounts = Accounts(settings.accounts)
        tokens = LoginTokens(login_key(settings.output), accounts.hash_of)
        inner = Login(inner, accounts, tokens, open_paths=open_paths, root_path=settings.root_path, framed=framed)
    inner = Origins(inner)
    inner = Proxies(inner, settings, open_paths, relay)
    inner = Hosts(inner, settings)
    return Answers(inner, app, frame_headers(settings.frame_ancestors))


def frame_headers(ancestors: Collection[str]) -> Headers:
    """Headers of pages: no site but those named may show them inside its own, to catch clicks that are meant for
    something else. Old browsers know only a header that cannot name sites."""
    policy = [("content-security-policy", " ".join(["frame-ancestors 'self'", *ancestors]))]
    return policy if ancestors else [*policy, ("x-frame-options", "SAMEORIGIN")]


def check_proxies(proxies: Collection[str]) -> None:
    """Refuse what is neither an address nor a network: nobody would match it, or the wrong ones.

    Raises:
        ConfigError: with the entry.
    """
    for entry in proxies:
        try:
            _ = entry == "*" or ipaddress.ip_network(entry)
        except ValueError as error:
            raise ConfigError(
                f"{entry!r} is no trusted proxy: an address (127.0.0.1), a network (10.0.0.0/8) or * is allowed."
            ) from error


class Answers:
    """Gives each request an id, adds headers to each answer, and turns an exception inside into a sentence."""

    def __init__(self, inner: ASGIApp, app: ASGIApp, of_pages: Headers = ()) -> None:
        self._inner = inner
        self._app = app
        self._of_pages = tuple(of_pages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # the page has none, so no layer checks them
            await receive()
            return await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":  # the lifespan; the layers know requests alone
            return await self._app(scope, receive, send)
        number = secrets.token_hex(8)
        scope.setdefault("state", {})[REQUEST_ID] = number
        send = _headed(send) if scope["method"] == "HEAD" else send
        answer = _Answer(scope, send, number, self._of_pages)
        try:
            # uvicorn leaves the body of an answer to HEAD away; inside it is a GET, for Gradio's routes have no HEAD.
            inside = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
            await self._inner(inside, receive, answer.send)
        except Exception:
            logger.exception("Request %s: %s %r failed.", number, scope["method"], scope["path"])
            if not answer.begun:
                await answer.failure()
        return None


def _headed(send: Send) -> Send:
    """A `send` whose answer ends with its head, also where a stream would have no end."""
    ended = False

    async def first(message: Message) -> None:
        nonlocal ended
        if not ended:
            ended = message["type"] == "http.response.body"
            await send({"type": "http.response.body", "body": b""} if ended else message)

    return first


class _Answer:
    """One answer on its way out. A status 500 in plain text is held back until its text is seen: Starlette's own
    `Internal Server Error` is replaced by a sentence."""

    def __init__(self, scope: Scope, send: Send, number: str, of_pages: Headers) -> None:
        self._scope, self._send, self._number, self._of_pages = scope, send, number, of_pages
        self._held: Message | None = None
        self._replaced = False
        self.begun = False

    async def send(self, message: Message) -> None:
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            self._add_headers(message)
            if message["status"] == 500 and _kind(message) == "text/plain":
                self._held = message
                return
        elif self._held is not None:
            if message.get("body") == b"Internal Server Error":
                await self.failure()
                return
            held, self._held = self._held, None
            await self._send(held)
        self.begun = True
        await self._send(message)

    async def failure(self) -> None:
        self._replaced = self.begun = True

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add_headers(message)
            await self._send(message)

        sentence = Text("Something unexpected happened; the server's log has it under {}.", self._number)
        await refuse(self._scope, send, 500, sentence)

    def _add_headers(self, message: Message) -> None:
        have = {name.lower() for name, _ in message.get("headers", ())}
        pairs = [("x-request-id", self._number), *ANSWER_HEADERS]
        new = [(name, value) for name, value in pairs if name.encode() not in have]
        if _kind(message) in PAGES:
            new += self._of_pages  # a policy of its own does not replace them: browsers hold both
        raw = [(name.encode(), value.encode()) for name, value in new]
        message["headers"] = [*message.get("headers", ()), *raw]


def _kind(message: Message) -> str:
    kinds = [value.decode("latin-1") for name, value in message.get("headers", ()) if name.lower() == b"content-type"]
    return kinds[0].partition(";")[0].strip() if kinds else ""


class Proxies:
    """Trusts headers about a caller from trusted proxies alone, and removes them from all other requests."""

    def __init__(self, inner: ASGIApp, settings: ServerSettings, open_paths: Collection[str], relay: Relay) -> None:
        self._proxied = ProxyHeadersMiddleware(cast(Any, inner), list(settings.trusted_proxies))
        self._user_header = (settings.user_header or "").lower()
        self._open = frozenset(open_paths)
        self._relay = relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        trusted = (scope["client"][0] if scope["client"] else None) in self._proxied.trusted_hosts
        names = [value for key, value in scope["headers"] if key.decode("latin-1") == self._user_header]
        relayed = self._relayed(scope)
        drop_headers(scope, lambda name: self._unwanted(name, trusted))
        if relayed is not None:
            remember(scope, relayed)
        elif self._user_header and path_of(scope) not in self._open:
            fault = self._named(scope, names if trusted else [])
            if fault:
                return await refuse(scope, send, 401, fault)
        return await self._proxied(cast(Any, scope), cast(Any, receive), cast(Any, send))

    def _unwanted(self, name: str, trusted: bool) -> bool:
        name = name.replace("_", "-")  # some servers treat the two alike
        if name in (Relay.CALLER, Relay.SELF, "x-gradio-server") or name == self._user_header.replace("_", "-") != "":
            return True
        return not trusted and (name == "forwarded" or name.startswith("x-forwarded-"))

    def _named(self, scope: Scope, values: list[bytes]) -> str | None:
        """Take the name that the proxy gives; returns why not, if it cannot be used."""
        if not values:
            return Text("Log in at the proxy before this server first: it names nobody in {}.", self._user_header)
        if len(values) > 1:
            return Text(
                "The proxy before this server passes on several {} headers; it must set one.", self._user_header
            )
        name = values[0].decode("utf-8", errors="replace").strip()
        if not acceptable_name(name) or "\ufffd" in name:
            return Text(
                "The proxy before this server gives a name that cannot be used: 1 to 128 printable characters are."
            )
        remember(scope, asker_at(None, name=name))
        return None

    def _relayed(self, scope: Scope) -> Asker | None:
        """The caller on whose behalf the server calls itself."""
        for name in (Relay.CALLER, Relay.SELF):
            value = header(scope, name)
            asker = self._relay.asker(name, value) if value else None
            if asker is not None:
                return asker
        return None
