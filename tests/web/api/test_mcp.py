"""The endpoints as tools for assistants: what they say, give and refuse, to a real MCP client."""

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from mcp import ClientSession, types
from mcp.client.streamable_http import streamable_http_client

from tests.support.offered import Offered, offered
from tests.support.scripted import Script
from tests.test_project_files import requirements
from uso import output
from uso.errors import ConfigError
from uso.request.request import ReferenceImage
from uso.web.api import mcp
from uso.web.api.endpoints import NO_JOB

pytestmark = pytest.mark.usefixtures("uploads")

FIRST = {"prompt": "a fox", "seed": 11, "num_inference_steps": 2}


@pytest.fixture
def script() -> Script:
    return Script()


def with_tools(folder: Path, work: Callable[[ClientSession, Offered], Awaitable[None]], script: Script) -> None:
    """Run something with an MCP client of a server."""

    async def session(server: Offered) -> None:
        async with (
            streamable_http_client(f"{server.url}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as tools,
        ):
            await tools.initialize()
            await work(tools, server)

    with offered(folder, script, mcp=True) as server:
        asyncio.run(session(server))


def texts(result: types.CallToolResult) -> list[str]:
    return [part.text for part in result.content if isinstance(part, types.TextContent)]


def test_tools_explain_themselves(tmp_path: Path, script: Script) -> None:
    """Catches a tool without a description or a range, one that asks for files in a way that is refused here, and a
    event of the page that becomes a tool."""

    async def look(tools: ClientSession, server: Offered) -> None:
        found = {tool.name: tool for tool in (await tools.list_tools()).tools}
        assert list(found) == ["generate", "status", "cancel"]
        generate = found["generate"]
        assert str(generate.description).startswith("Make a picture from a sentence, a content image")
        assert str(generate.description).endswith(mcp.IMAGES_SENTENCE) and "upload_file" not in str(
            generate.description
        )
        schema = generate.inputSchema["properties"]
        assert schema["width"]["description"] == "of the picture in pixels, a multiple of 16; 128 to 256."
        assert (schema["content_image"]["type"], schema["content_image"]["format"]) == ("string", mcp.GIVE_A_DATA_URL)
        assert all(parameter["description"] for tool in found.values() for parameter in schema.values())
        assert found["cancel"].inputSchema["required"] == ["job"] and "required" not in generate.inputSchema

    with_tools(tmp_path, look, script)


def test_a_tool_gives_the_picture_and_says_how_far_it_is(
    tmp_path: Path, script: Script, picture_file: Callable[..., Path]
) -> None:
    """Catches a picture that is only named, an image that does not arrive, details in Python's notation, and callers
    who all count as one person: the server itself."""
    style = picture_file("ink.png")
    script.steps = Script(free=False).steps
    awaited = ["Reading the prompt", "Step 1 of 2"]

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        if awaited and awaited[0] in str(message):
            awaited.pop(0)
            script.steps.release(1)

    async def make(tools: ClientSession, server: Offered) -> None:
        image = "data:image/png;base64," + base64.b64encode(style.read_bytes()).decode()
        result = await tools.call_tool("generate", {**FIRST, "style_image": image}, progress_callback=listen)
        assert not result.isError, result
        (shown,) = (part for part in result.content if isinstance(part, types.ImageContent))
        assert shown.mimeType == "image/png" and base64.b64decode(shown.data).startswith(b"\x89PNG")
        details = json.loads(texts(result)[-1])
        saved = output.read(server.settings.output / details["file"]).record["request"]
        assert [entry["sha256"] for entry in saved["style_images"]] == [ReferenceImage.from_path(style).sha256]
        job = server.queue.find(details["job"])
        assert job is not None and job.asker.person == "at:127.0.0.1"
        assert not awaited
        script.steps.release(10)
        several = await tools.call_tool("generate", {**FIRST, "num_images": 3})
        assert sum(isinstance(part, types.ImageContent) for part in several.content) == 3, texts(several)
        assert len(json.loads(texts(several)[-1])["pictures"]) == 3
        again = await tools.call_tool("status", {"job": details["job"]})
        assert json.loads(texts(again)[-1]) == details
        assert [part.type for part in again.content] == ["image", "text", "text"]
        over = await tools.call_tool("cancel", {"job": details["job"]})
        assert json.loads(texts(over)[0])["cancelled"] is False

    with_tools(tmp_path, make, script)


def test_tools_refuse_in_sentences(tmp_path: Path, script: Script) -> None:
    """Catches an advice that does not hold here (to give an address), and words about Gradio's own page."""
    calls: list[tuple[str, dict[str, Any], str]] = [
        ("generate", {"width": 1000}, "Width is 1000; a whole number from 128 to 256 is allowed."),
        ("generate", {"content_image": "cat.png"}, f"An image must be {mcp.GIVE_A_DATA_URL}"),
        ("generate", {"style_image": "data:image/png;base64,abc"}, f"An image must be {mcp.GIVE_A_DATA_URL}"),
        ("generate", {"colour": "red"}, "Input validation error: Additional properties are not allowed"),
        ("status", {"job": "x"}, NO_JOB),
    ]

    async def ask(tools: ClientSession, server: Offered) -> None:
        for tool, arguments, sentence in calls:
            result = await tools.call_tool(tool, arguments)
            assert result.isError and texts(result)[0].startswith(sentence)

    with_tools(tmp_path, ask, script)


@pytest.mark.parametrize("version", [None, "1.20.0", "2.3.0"])
def test_tools_without_their_package_are_refused_with_the_command(
    version: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches `--mcp` that starts a server without tools, and a command that installs what Gradio cannot use."""

    def installed(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    mcp.check_mcp()
    monkeypatch.setattr(metadata, "version", installed)
    with pytest.raises(ConfigError, match=re.escape(f"Run: pip install '{mcp.PACKAGE}'")):
        mcp.check_mcp()
    assert requirements("requirements-dev.txt")["mcp"] == mcp.PACKAGE.split("==")[1]
