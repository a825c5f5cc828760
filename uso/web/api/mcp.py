"""The endpoints as tools for assistants (Model Context Protocol): what is installed, and how Gradio fits this server.

What the tools are and say is in `programs.py`; nobody is let in or refused here.
Gradio's tools call the server itself over HTTP. Left alone they take its address from the first caller's headers, so a
caller could send them anywhere; here the address is this process's own, and on whose behalf they call is passed on
(`identity.Relay`). Importing this needs neither Gradio nor the `mcp` package.
"""

import asyncio
import base64
import json
import threading
import uuid
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from uso.errors import ConfigError

PACKAGE = "mcp==1.30.0"
"""Gradio 6.31 takes version 1 from 1.21 on; its extra `gradio[mcp]` would pull pydantic back."""

CALLS_AT_ONCE = 128
"""Of tools, each in a thread; more than may wait in line."""

OLDEST, TOO_NEW = (1, 21), (2,)

GIVE_A_DATA_URL = "a data URL with the image file in Base64, such as data:image/png;base64,..."
IMAGES_SENTENCE = f" Each image is given as {GIVE_A_DATA_URL}"


def check_mcp() -> None:
    """Make sure that tools can be offered, before anything heavy is imported.

    Raises:
        ConfigError: the package is not installed, or is of a version that Gradio cannot use.
    """
    try:
        version = metadata.version("mcp")
    except metadata.PackageNotFoundError:
        raise ConfigError(f"--mcp needs a package that is not installed. Run: pip install '{PACKAGE}'") from None
    if not OLDEST <= tuple(map(int, version.split(".")[:2])) < TOO_NEW:
        raise ConfigError(f"--mcp cannot use version {version} of the package mcp. Run: pip install '{PACKAGE}'")


def fit_tools(page: Any, own_url: Callable[[], str], own_headers: dict[str, str]) -> None:
    """Change the MCP server of a page that was mounted with `mcp_server=True`.

    Args:
        own_url: where this process listens, such as `http://127.0.0.1:7860`; asked at the first call of a tool.
        own_headers: sent with every call to itself (`Relay.own_headers`).

    Raises:
        ConfigError: Gradio could not make its MCP server.
    """
    tools = page.mcp_server_obj
    if tools is None:
        raise ConfigError(f"The MCP tools cannot be offered. {page.mcp_error or ''} Start without --mcp.")
    lock = threading.Lock()
    describe, simplify = tools.get_fn_description, tools.simplify_filedata_schema
    in_words = tools.postprocess_output_data

    def client() -> Any:
        with lock:
            if tools._client_instance is None:
                tools._client_instance = _client(own_url(), own_headers)
            return tools._client_instance

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

    def filled(arguments: Any, places: list[list[str | int]]) -> Any:
        """The arguments with their images as files, which Gradio removes in time as it does what was uploaded."""
        given = dict(arguments)
        for name in {str(place[0]) for place in places} & set(given):
            path = _kept(given[name])
            page.upload_file_set.add(str(path))
            given[name] = {"path": str(path), "orig_name": path.name}
        return given

    def content(data: list[Any], root_url: str) -> list[Any]:
        """What a caller reads: JSON instead of Python's own notation, and no word for a picture that is not there."""
        if len(data) == 1 and isinstance(data[0], (tuple, list)):  # several results, of a call that wants no progress
            data = list(data[0])
        facts = [json.dumps(value, ensure_ascii=False) if _is_facts(value) else value for value in data]
        told: list[Any] = in_words([value for value in facts if value is not None], root_url)
        return told

    async def result(job: Any) -> list[Any]:
        """Wait without one of the few threads in which Gradio and Starlette do their own work."""
        return [await asyncio.wrap_future(job.future)]

    tools._get_or_create_client = client
    tools._execute_tool_without_progress = result
    tools.get_fn_description = described
    tools.simplify_filedata_schema = simplified
    tools.convert_strings_to_filedata = filled
    tools.postprocess_output_data = content


def _kept(data_url: str) -> Path:
    """The image of a data URL, as a file among the uploads; what kind of image it is, is seen by its bytes later.

    Raises:
        ValueError: it is no data URL, in a sentence.
    """
    from gradio.utils import get_upload_folder

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


def _is_facts(value: Any) -> bool:
    """Whether a result of an endpoint is JSON, and no file."""
    return isinstance(value, dict) and "meta" not in value


def _client(url: str, headers: dict[str, str]) -> Any:
    from gradio_client import Client

    return Client(
        url,
        token=False,  # None would send the Hugging Face token that lies on this machine
        verbose=False,
        analytics_enabled=False,
        download_files=False,
        headers={"x-gradio-user": "mcp", **headers},
        httpx_kwargs={"trust_env": False, "timeout": 60},  # past any proxy that the environment names
        max_workers=CALLS_AT_ONCE,
        _skip_components=False,
    )
