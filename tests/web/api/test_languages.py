"""What handlers and refusals say, in the caller's language."""

import asyncio
import contextvars
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from uso.errors import USOError
from uso.language import Text, tr
from uso.web.access.asgi import refuse
from uso.web.api.handlers import plain_errors
from uso.web.api.turns import Turns
from uso.web.server.starting import BuiltApp, StartingApp

REFUSAL, IN_CHINESE = Text("Log in first."), "请先登录。"


def caller(language: str) -> gr.Request:
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"accept-language", language.encode())]}
    return gr.Request(Request(scope))


async def stream(request: gr.Request) -> AsyncIterator[str]:
    yield tr("Stop")
    yield tr("Stop")
    raise USOError(REFUSAL)


async def wait(request: gr.Request) -> None:
    raise USOError(REFUSAL)


def call(request: gr.Request) -> None:
    raise USOError(REFUSAL)


@pytest.mark.parametrize(("language", "stop", "refusal"), [("zh-CN", "停止", IN_CHINESE), ("de", "Stop", str(REFUSAL))])
def test_handlers_speak_the_callers_language(language: str, stop: str, refusal: str) -> None:
    """Catches a stream whose later steps are taken in another task, and speak English again."""

    async def follow() -> list[str]:
        news, loop = plain_errors(stream)(caller(language)), asyncio.get_running_loop()

        def step() -> "asyncio.Task[str]":
            return loop.create_task(anext(news), context=contextvars.Context())

        said = [await step(), await step()]
        with pytest.raises(gr.Error, match=refusal):
            await step()
        return said

    assert asyncio.run(follow()) == [stop, stop]
    with pytest.raises(gr.Error, match=refusal):
        asyncio.run(plain_errors(wait)(caller(language)))
    with pytest.raises(gr.Error, match=refusal):
        contextvars.Context().run(plain_errors(call), caller(language))


def test_threads_that_people_take_turns_at_speak_their_language() -> None:
    """Catches notes on images in English, which are made in another thread."""

    def ask(request: gr.Request) -> Any:
        return Turns(1, "test").submit("somebody", tr, "Stop").result()

    assert contextvars.Context().run(plain_errors(ask), caller("zh-CN")) == "停止"


def test_the_door_speaks_the_callers_language() -> None:
    """Catches refusals that come before Gradio in English alone."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            await PlainTextResponse(tr("Stop"))(scope, receive, send)
        else:
            await refuse(scope, send, 401, REFUSAL)

    async def lifespan(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            return await app(scope, receive, send)
        for what in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{what}.complete"})
        return None

    with TestClient(StartingApp(lambda: BuiltApp(app=lifespan))) as client:
        for language, words in (("zh-CN,en;q=0.5", ("停止", IN_CHINESE)), ("en", ("Stop", str(REFUSAL)))):
            headers = {"accept-language": language}
            assert client.get("/", headers=headers).text == words[0]
            assert client.get("/other", headers=headers).json() == {"detail": words[1]}
