"""Around every handler of the page and of programs: errors as sentences, in the caller's language; who may call it."""

import functools
import inspect
import logging
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import Any

import gradio as gr

from uso.errors import USOError
from uso.language import Text, asked_for, speak, text_of, told, tr
from uso.web.jobs.job import NAME_LETTERS

logger = logging.getLogger(__name__)

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""Of an event of the page: no program calls it."""

AT_ONCE: dict[str, Any] = {"queue": False, **PRIVATE}
"""Of every event but the stream: a queued event that ends while another begins would end the tab's stream."""

NO_RECORD = Text("The server cannot use its record of pictures. Tell the one who runs it.")


def plain_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let only sentences out of a handler, in the caller's language. An unexpected error becomes an id under which the
    log has the details."""
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            try:
                async with aclosing(function(*args, **kwargs)) as news:
                    while True:
                        _speak_to(args)  # each time: the next step may be taken in another task
                        try:
                            item = await anext(news)
                        except StopAsyncIteration:
                            return
                        yield item
            except Exception as error:
                raise _shown(error) from error

        return stream

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wait(*args: Any, **kwargs: Any) -> Any:
            _speak_to(args)
            try:
                return await function(*args, **kwargs)
            except Exception as error:
                raise _shown(error) from error

        return wait

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        _speak_to(args)
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise _shown(error) from error

    return call


def _speak_to(arguments: Iterable[Any]) -> None:
    """Tell texts in the language of the request among a handler's arguments. Events of Gradio's queue run in tasks that
    know of no request."""
    for one in arguments:
        if isinstance(one, gr.Request) and one.request is not None:
            speak(asked_for(one.request.headers.get("accept-language")))


def _shown(error: Exception) -> gr.Error:
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, USOError):
        return gr.Error(told(text_of(error)), print_exception=False)
    if isinstance(error, sqlite3.Error):
        logger.error("The ledger cannot be used.", exc_info=error)
        return gr.Error(told(NO_RECORD), print_exception=False)
    name = uuid.uuid4().hex[:NAME_LETTERS]
    logger.error("Request %s failed.", name, exc_info=error)
    sentence = tr("Something unexpected happened; the server's log says more under {}.", name)
    return gr.Error(sentence, print_exception=False)
