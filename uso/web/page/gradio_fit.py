"""Everything that is patched in Gradio, made for version 6.31.0: one function for each patch, with its reason.

These patches reach into what Gradio does not promise to keep. Look at each again before another version is taken.
"""

import asyncio
import base64
import functools
import json
import logging
import re
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, Response
from gradio.i18n import I18nData
from gradio.utils import get_upload_folder
from gradio_client import Client

from uso.errors import ConfigError
from uso.language import Text, told, tr
from uso.web.api.calls import FIRST_INPUTS, Inputs
from uso.web.api.mcp import GIVE_A_DATA_URL, IMAGES_SENTENCE

logger = logging.getLogger(__name__)

MALFORMED = Text("A value does not have the form of its field. Images must be files that were uploaded here before.")

CALLS_AT_ONCE = 128
"""Calls of MCP tools at the same time, each in a thread: more than may wait in the queue."""


def refuse_malformed(page: gr.Blocks) -> None:
    """Say in a sentence what is wrong with the form of a call: Gradio's own messages are for people who build pages.

    Inputs of `/generate` that were added later may be left out: programs from before know only the first ones.
    """
    preprocess = page.preprocess_data

    async def checked(block_fn: Any, inputs: list[Any], *rest: Any, **named: Any) -> Any:
        if block_fn.api_name == "generate" and len(inputs) >= FIRST_INPUTS:
            inputs = [*inputs, *Inputs()[len(inputs) :]]
        given, wanted = len(inputs), len(block_fn.inputs)
        if given < wanted or (given > wanted and block_fn.api_visibility == "public"):
            sentence = tr("The call has {} values in `data`; there must be {}.", given, wanted)
            raise gr.Error(sentence, print_exception=False)
        try:
            return await preprocess(block_fn, inputs, *rest, **named)
        except gr.Error:
            raise
        except Exception as error:
            logger.info("A call of %s was malformed: %s", block_fn.api_name, type(error).__name__)
            raise gr.Error(told(MALFORMED), print_exception=False) from error

    page.preprocess_data = checked


def name_in_english(page: gr.Blocks) -> None:
    """Gradio puts the keys of its translations into the description of the API, for it knows no reader there."""
    described = page.get_api_info

    @functools.wraps(described)
    def in_english(*args: Any, **named: Any) -> Any:
        found = described(*args, **named)
        for endpoint in [*found["named_endpoints"].values(), *found["unnamed_endpoints"].values()]:
            for value in [*endpoint["parameters"], *endpoint["returns"]]:
                if isinstance(value["label"], I18nData):
                    value["label"] = value["label"].key
        return found

    page.get_api_info = in_english


# The page and the app that it is mounted in

ASSETS = Path(str(gr.__file__)).parent / "templates" / "frontend" / "assets"

SCRIPTS = {
    "Blocks-*.js": (r"(async update_loading_stati_state\(\)\{)", r"\1return;"),
    "statustracker-*.js": (r"(\(performance\.now\(\)-\w+\(\w+\)\)/1e3\)),\w+&&\w+\(\)", r"\1"),
}
"""What is changed in Gradio's scripts. The first tells every component how the events stand. The second is the clock of
an event, which sets its time, and then waits for the next frame."""

MAX_SESSIONS = 1000
"""Tabs and calls whose state Gradio keeps, 0.1 MB each; the one that was quiet for longest goes first."""

QUEUE_POLL_SECONDS = 0.02
"""How often Gradio's queue looks for something to do."""

MAX_EVENTS = 1000
"""Events at the same time: everybody who waits, or is shown something."""

RANKS_SECONDS = 3600.0
"""How often Gradio sends everybody their place in its own queue, where nobody waits."""


def fit_queue(page: gr.Blocks) -> None:
    """Gradio's queue passes everything on at once, because jobs wait in our own queue.

    - At Gradio's own poll interval of 0.001 s an idle server takes 6 % of a core.
    - At its own 40 events the next ones wait before they are in our queue, unseen, and their Stop with them.
    - It sends places "after each event" in the loop that starts all events, and that loop ends for good if one of the
      people has just gone.
    """
    page.queue(default_concurrency_limit=None, api_open=False, status_update_rate=RANKS_SECONDS)
    for name, value in (
        ("sleep_when_free", QUEUE_POLL_SECONDS),
        ("progress_update_sleep_when_free", QUEUE_POLL_SECONDS),
        ("max_thread_count", MAX_EVENTS),
    ):
        if hasattr(page._queue, name):
            setattr(page._queue, name, value)


def accept_uploads_only(page: gr.Blocks) -> None:
    """Gradio checks that a file which a client names was uploaded by a client, but only on pages that were launched. A
    mounted page never is: without this, `{"path": "/etc/passwd"}` is opened."""
    page.has_launched = True


def limit_sessions(page: gr.Blocks) -> None:
    """Mounting has no parameter for it. At Gradio's own 10,000 a server that programs call fills a gigabyte with
    sessions that are over."""
    page.state_session_capacity = MAX_SESSIONS


def fit_scripts(app: FastAPI) -> None:
    """Leave out of Gradio's scripts what nobody sees here, since every event has `show_progress="hidden"`. To be called
    before the page is mounted.

    - At every turn of an event, every component of the page is told how all the events stand. With it, a picture takes
      0.69 s of the browser's main thread, without it 0.24 s.
    - Each part of a page has a hidden clock that counts how long an event runs, drawn anew in each frame, and those of
      parts that are replaced meanwhile go on for good: a page at rest takes 6 % of a core.
    """
    for pattern, (found, instead) in SCRIPTS.items():
        for file in ASSETS.glob(pattern):
            script = re.sub(found, instead, file.read_text(encoding="utf-8"))
            answer = Response(script, media_type="text/javascript", headers={"Cache-Control": "max-age=3600"})
            app.add_api_route(f"/assets/{file.name}", _always(answer), include_in_schema=False)


def _always(answer: Response) -> Callable[[], Response]:
    return lambda: answer


def end_streams(app: FastAPI) -> None:
    """End the streams of the Gradio app that is mounted in `app`: an open tab would keep the process alive."""
    for route in app.routes:
        ended: Any = getattr(getattr(route, "app", None), "stop_event", None)
        if ended is not None:
            ended.set()


# MCP


def fit_tools(page: gr.Blocks, own_url: Callable[[], str], own_headers: dict[str, str]) -> None:
    """Change the MCP server of a page that was mounted with `mcp_server=True`.

    Args:
        own_url: where this process listens, such as `http://127.0.0.1:7860`; called at the first call of a tool.
        own_headers: sent with every call to itself (`Relay.own_headers`).

    Raises:
        ConfigError: Gradio could not make its MCP server.
    """
    tools: Any = page.mcp_server_obj
    if tools is None:
        raise ConfigError(f"The MCP tools cannot be offered. {page.mcp_error or ''} Start without --mcp.")
    _call_this_process(tools, own_url, own_headers)
    _wait_without_a_thread(tools)
    _describe_tools(tools)
    _take_data_urls(page, tools)
    _answer_in_json(tools)


def _call_this_process(tools: Any, own_url: Callable[[], str], own_headers: dict[str, str]) -> None:
    """Gradio's tools call the server over HTTP, at the address that the first caller's headers name. A caller could
    send them anywhere, so the address is this process's own; `identity.Relay` passes on who called."""
    lock = threading.Lock()

    def client() -> Client:
        with lock:
            if tools._client_instance is None:
                tools._client_instance = Client(
                    own_url(),
                    token=False,  # None would send the Hugging Face token of this machine
                    verbose=False,
                    analytics_enabled=False,
                    download_files=False,
                    headers={"x-gradio-user": "mcp", **own_headers},
                    httpx_kwargs={"trust_env": False, "timeout": 60},  # past any proxy that the environment names
                    max_workers=CALLS_AT_ONCE,
                    _skip_components=False,
                )
            return tools._client_instance

    tools._get_or_create_client = client


def _wait_without_a_thread(tools: Any) -> None:
    """Gradio waits for a tool's result in one of the few threads that it and Starlette work with."""

    async def result(job: Any) -> list[Any]:
        return [await asyncio.wrap_future(job.future)]

    tools._execute_tool_without_progress = result


def _describe_tools(tools: Any) -> None:
    """Gradio's descriptions ask for images in a way that is refused here, and its schemas allow unknown parameters."""
    describe, simplify = tools.get_fn_description, tools.simplify_filedata_schema

    def described(block_fn: Any, tool_name: str) -> tuple[str, dict[str, str]]:
        text, parameters = describe(block_fn, tool_name)
        return text.replace(tools._file_data_tool_description, IMAGES_SENTENCE), parameters

    def simplified(schema: dict[str, Any]) -> tuple[dict[str, Any], list[list[str | int]]]:
        simple, places = simplify(schema)
        simple["additionalProperties"] = False
        for value in simple["properties"].values():
            if str(value.get("format", "")).startswith("Gradio File Input"):
                value["format"] = GIVE_A_DATA_URL
            value.pop("additional_description", None)  # the same as "description"
        return simple, places

    tools.get_fn_description = described
    tools.simplify_filedata_schema = simplified


def _take_data_urls(page: gr.Blocks, tools: Any) -> None:
    """Gradio also fetches images from addresses that a caller names. Here they come as data URLs alone, and become
    files that Gradio removes in time, as it does uploads."""

    def filled(arguments: Any, places: list[list[str | int]]) -> Any:
        given = dict(arguments)
        for name in {str(place[0]) for place in places} & set(given):
            path = _image_file(given[name])
            page.upload_file_set.add(str(path))
            given[name] = {"path": str(path), "orig_name": path.name}
        return given

    tools.convert_strings_to_filedata = filled


def _answer_in_json(tools: Any) -> None:
    """Gradio answers in Python's notation, with the word None for a picture that is not there, and with one picture of
    several."""
    in_words = tools.postprocess_output_data

    def content(data: list[Any], root_url: str) -> list[Any]:
        if len(data) == 1 and isinstance(data[0], (tuple, list)):  # several results, of a call that wants no progress
            data = list(data[0])
        facts = [value for value in data if _is_facts(value)]
        files = [value for value in data if not _is_facts(value)]
        files += [one["picture"] for value in facts for one in value.get("pictures", [])[1:]]
        said = [json.dumps(value, ensure_ascii=False) for value in facts]
        parts: list[Any] = in_words([*(file for file in files if file is not None), *said], root_url)
        return parts

    tools.postprocess_output_data = content


def _is_facts(value: Any) -> bool:
    """Whether a result of an endpoint is JSON, not a file."""
    return isinstance(value, dict) and "meta" not in value


def _image_file(data_url: str) -> Path:
    """The image of a data URL as a file among the uploads. Its bytes show later what kind of image it is.

    Raises:
        ValueError: it is no data URL, in a sentence.
    """
    kind, comma, text = data_url.partition(",")
    try:
        if not (comma and kind.startswith("data:") and kind.endswith(";base64")):
            raise ValueError("no data URL")
        data = base64.b64decode(text)
    except ValueError as error:
        raise ValueError(f"An image must be {GIVE_A_DATA_URL}") from error
    path = Path(get_upload_folder()) / uuid.uuid4().hex / "image"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path
