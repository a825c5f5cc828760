"""The login page and its cookie: a layer before everything but the paths that stay open.

`POST /login` takes `username` and `password` as Gradio's own login does, so `gradio_client`'s `auth=` works. Gradio's
own login is not used: it leaves many of its routes open, and forgets everybody at a restart.
"""

import asyncio
import html
import json
import logging
import math
from collections.abc import Collection

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from uso.language import Text, joined, spoken, told, tr
from uso.web.access.accounts import MAX_PASSWORD_BYTES, Accounts
from uso.web.access.asgi import answer, header, is_navigation, path_of, read_body, refuse, replayed
from uso.web.access.identity import acceptable_name, asker_at, asker_in, cookie_values, person_at, remember, set_cookie
from uso.web.access.limits import Window
from uso.web.access.tokens import LOGIN_SECONDS, LoginTokens

logger = logging.getLogger(__name__)

LOGIN_COOKIE = "uso-login"
FORM_BYTES = 16_000

WRONG_TRIES, WRONG_SECONDS = 5, 300.0
"""Wrong passwords from one address, within so many seconds."""
WRONG_TRIES_OF_NAME = 20
"""And for one name from all addresses: more, so that no single address can lock somebody out."""

LOG_IN = Text("Log in first.")
WRONG = Text("The name or the password is wrong.")

MOST_COOKIES = 8
"""Looked at in one request: each costs a look into the accounts file."""

CHECKS_AT_ONCE = 2
"""Passwords that are checked at the same time; each occupies a processor core."""


class Login:
    """Admits requests with a valid cookie, and gives one for a right password."""

    def __init__(
        self,
        inner: ASGIApp,
        accounts: Accounts,
        tokens: LoginTokens,
        *,
        open_paths: Collection[str],
        root_path: str,
        framed: bool = False,
    ) -> None:
        self._inner = inner
        self._framed = framed
        self._accounts, self._tokens = accounts, tokens
        self._open = frozenset(open_paths)
        self._root = root_path.rstrip("/")
        self._by_address = Window(WRONG_TRIES, WRONG_SECONDS)
        self._by_name = Window(WRONG_TRIES_OF_NAME, WRONG_SECONDS)
        self._checks = asyncio.Semaphore(CHECKS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = path_of(scope).rstrip("/")
        if path == "/login" and scope["method"] == "POST":
            return await self._login(scope, receive, send)
        if path == "/logout":
            return await self._logout(scope, send)
        if self._is_logged_in(scope):
            if path == "/login":
                return await self._go_home(send)
            return await self._inner(scope, receive, send)
        if path in self._open:
            return await self._inner(scope, receive, send)
        return await self._show(scope, send, 401, self._accounts.fault())

    async def _logout(self, scope: Scope, send: Send) -> None:
        """Log out, by POST alone: an image or a link on another page must log nobody out."""
        if scope["method"] != "POST":
            return await refuse(scope, send, 405, Text("Log out with the button on the page."), [("allow", "POST")])
        for token in cookie_values(header(scope, "cookie"), LOGIN_COOKIE)[:MOST_COOKIES]:
            self._tokens.end(token)
        return await self._go_home(send, self._cookie(scope, "", 0))

    def _is_logged_in(self, scope: Scope) -> bool:
        """Whether the request has a name already, or a cookie that gives it one."""
        known = asker_in(scope)
        if known is not None and known.name is not None:
            return True
        for token in cookie_values(header(scope, "cookie"), LOGIN_COOKIE)[:MOST_COOKIES]:
            name = self._tokens.name_of(token)
            if name is not None:
                remember(scope, asker_at(None, name=name))
                return True
        return False

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            name, password = await _form(scope, receive)
        except ConnectionError:
            return None
        except Exception:  # whatever a stranger's form makes the parser raise
            return await self._show(scope, send, 400, Text("A login has a form with username and password."))
        if not acceptable_name(name):  # of no account: not worth a hash or a place in memory
            return await self._show(scope, send, 401, WRONG)
        if fault := self._accounts.fault():
            return await self._show(scope, send, 401, fault)
        address = person_at(scope["client"][0] if scope.get("client") else None)
        wait = self._by_address.wait(address) or self._by_name.wait(name)
        if wait:
            sentence = Text("Too many wrong passwords. Try again in a minute.")
            if (minutes := math.ceil(wait / 60)) > 1:
                sentence = Text("Too many wrong passwords. Try again in {} minutes.", minutes)
            return await self._show(scope, send, 429, sentence, [("retry-after", str(math.ceil(wait)))])
        # Counted before the check, so that many tries at once count too.
        of_address, of_name = self._by_address.count(address), self._by_name.count(name)
        async with self._checks:
            right = await asyncio.to_thread(self._accounts.check, name, password)
        if not right:
            logger.info("A wrong name or password from %s.", address.removeprefix("at:"))
            too_long = len(password.encode(errors="surrogatepass")) > MAX_PASSWORD_BYTES
            hint = Text("Passwords have at most {} bytes.", MAX_PASSWORD_BYTES) if too_long else ""
            return await self._show(scope, send, 401, joined(WRONG, hint))
        self._by_address.correct(address, of_address, -1)
        self._by_name.correct(name, of_name, -1)
        cookie = self._cookie(scope, self._tokens.issue(name), LOGIN_SECONDS)
        if _from_page(scope):
            return await self._go_home(send, cookie)
        return await answer(send, 200, json.dumps({"success": True}), "application/json", [cookie])

    def _cookie(self, scope: Scope, value: str, seconds: int) -> tuple[str, str]:
        secure = scope.get("scheme") == "https"
        return "set-cookie", set_cookie(
            LOGIN_COOKIE, value, path=self._root, secure=secure, seconds=seconds, framed=self._framed
        )

    async def _go_home(self, send: Send, *headers: tuple[str, str]) -> None:
        pairs = [("location", self._root + "/"), ("cache-control", "no-store"), *headers]
        await answer(send, 303, "", "text/plain", pairs)

    async def _show(
        self, scope: Scope, send: Send, status: int, sentence: str = "", headers: list[tuple[str, str]] | None = None
    ) -> None:
        """The login page to a person, with what is wrong; the sentence alone to a program."""
        if not (is_navigation(scope) or _from_page(scope)):
            return await refuse(scope, send, status, sentence or LOG_IN, headers or [])
        alert = f'<p role="alert">{html.escape(told(sentence))}</p>' if sentence else ""
        body = PAGE.format(
            language=spoken(),
            title=tr("USO: log in"),
            action=html.escape(self._root + "/login"),
            alert=alert,
            name=tr("Name"),
            password=tr("Password"),
            log_in=tr("Log in"),
        )
        return await answer(send, status, body, "text/html", [("cache-control", "no-store"), *(headers or [])])


async def _form(scope: Scope, receive: Receive) -> tuple[str, str]:
    """Name and password of a form, in either encoding.

    Raises:
        ValueError: the form is too large, or lacks one of them.
    """
    body = await read_body(receive, FORM_BYTES)
    if body is None:
        raise ValueError("the form is too large")
    async with Request(scope, replayed(body, receive)).form(max_files=0, max_fields=10) as form:
        name, password = form.get("username"), form.get("password")
    if not isinstance(name, str) or not isinstance(password, str):
        raise ValueError("the form lacks name or password")
    return name.strip(), password


def _from_page(scope: Scope) -> bool:
    return "text/html" in header(scope, "accept")


PAGE = """<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font-family: system-ui, sans-serif; line-height: 1.5 }}
body {{ display: grid; place-items: center; min-height: 90vh; margin: 0 1rem }}
main {{ width: min(100%, 20rem) }}
label, input, button {{ display: block; width: 100%; box-sizing: border-box; font: inherit }}
input {{ margin: 0 0 1rem; padding: .5rem }}
button {{ padding: .6rem; font-weight: 700 }}
[role=alert] {{ border-left: .25rem solid #c2410c; padding-left: .75rem }}
</style>
</head>
<body>
<main>
<h1>USO</h1>
{alert}
<form method="post" action="{action}">
<label for="username">{name}</label>
<input id="username" name="username" autocomplete="username" autocapitalize="none" required autofocus>
<label for="password">{password}</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
<button>{log_in}</button>
</form>
</main>
</body>
</html>
"""
