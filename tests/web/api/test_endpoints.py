"""What programs may call, over real sockets: the contract, the way of a job, refusals, calls that are malformed, tools.

The pipeline is a script. The examples of README and docs run against the real program in `tests/test_readme.py`, the
command line in `tests/cli/test_remote.py`.
"""

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession, types
from mcp.client.streamable_http import streamable_http_client

from tests.support.offered import Offered, offered
from tests.support.scripted import PATIENCE, Script, until
from tests.test_project_files import requirements
from uso import output
from uso.config import ROOT
from uso.errors import ConfigError, MissingWeightsError
from uso.request import ReferenceImage
from uso.web.api import mcp
from uso.web.api.endpoints import NO_JOB

CONTRACT = ROOT / "tests" / "contract.json"
FIRST = {"prompt": "a fox", "seed": 11, "num_inference_steps": 2}


@pytest.fixture(autouse=True, scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path, None, None]:
    """Gradio's folder for what is uploaded; its table of all calls is off, as in `app.py` (its pandas code warns)."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("uploads")
        patch.setenv("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def server(tmp_path: Path, script: Script) -> Generator[Offered, None, None]:
    with offered(tmp_path, script) as made:
        yield made


@contextmanager
def calling(server: Offered, **options: Any) -> Iterator[Client]:
    client = server.client(**options)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture(scope="module")
def strict(uploads: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Offered, None, None]:
    """A server for calls that are refused at the door, all of them the same one."""
    with offered(tmp_path_factory.mktemp("strict"), Refusing()) as made:
        yield made


class Refusing(Script):
    """Is never asked."""

    def stream(self, request: Any) -> Any:
        pytest.fail("a call that should have been refused was let in")


@pytest.fixture
def client(server: Offered) -> Generator[Client, None, None]:
    with calling(server) as made:
        yield made


def told(job: Any) -> list[dict[str, Any]]:
    """The details that a job's caller has been told so far."""
    return [details for _, details in job.outputs()]


def begun(client: Client, script: Script, **values: Any) -> tuple[Any, str]:
    """A job that has been taken, and its id."""
    job = client.submit(**FIRST | values, api_name="/generate")
    until(job.outputs)
    return job, told(job)[0]["job"]


def plain_call(server: Offered, endpoint: str, body: str) -> str:
    """A call by plain HTTP; all that is answered, from the first request or the second."""
    address = f"{server.url}/gradio_api/call/{endpoint}"
    answer = httpx.post(address, content=body, headers={"content-type": "application/json"})
    if answer.status_code != 200:
        return answer.text
    return httpx.get(f"{address}/{answer.json()['event_id']}", timeout=PATIENCE).text


# The contract.


def test_the_contract_is_kept(server: Offered) -> None:
    """Catches a name, an order, a type, a default, a range or a description that changes under the programs that rely
    on it, and a verb of the page that becomes public. A change on purpose is written into contract.json."""
    info = httpx.get(f"{server.url}/gradio_api/info").json()
    assert info["unnamed_endpoints"] == {}
    found = {
        name: {
            "description": endpoint["description"],
            "parameters": {
                parameter["parameter_name"]: {
                    "type": parameter["python_type"]["type"],
                    "description": parameter["python_type"]["description"],
                    **({"default": parameter["parameter_default"]} if parameter["parameter_has_default"] else {}),
                }
                for parameter in endpoint["parameters"]
            },
            "returns": {result["label"]: result["python_type"]["type"] for result in endpoint["returns"]},
        }
        for name, endpoint in info["named_endpoints"].items()
    }
    expected = json.loads(CONTRACT.read_text(encoding="utf-8"))
    assert found == expected
    assert [list(one["parameters"]) for one in found.values()] == [list(one["parameters"]) for one in expected.values()]


def test_view_api_explains_the_parameters(client: Client) -> None:
    """Catches descriptions and ranges that a program's author never sees."""
    text = client.view_api(print_info=False, return_format="str")
    assert "who or what is shown" in text and "a multiple of 16; 128 to 384." in text
    assert "-1 to 4294967295." in text and "32 letters and digits" in text


# The way of a job.


def test_the_last_answer_is_the_picture_byte_for_byte(
    client: Client, server: Offered, picture_file: Callable[..., Path]
) -> None:
    """Catches a result that is not the last thing that was told, a picture that loses its record, an image that arrives
    as another parameter, and details that are not the picture's."""
    images = {"content_image": picture_file("who.png", seed=1), "extra_style_image": picture_file("how.png", seed=2)}
    given = {name: handle_file(str(path)) for name, path in images.items()}
    job = client.submit(**FIRST, **given, api_name="/generate")
    file, details = job.result(timeout=PATIENCE)
    assert job.outputs()[-1] == (file, details)
    saved = server.settings.output / details["file"]
    assert Path(file).read_bytes() == saved.read_bytes()
    request = output.read(file).record["request"]
    assert (request["prompt"], request["seed"], request["num_inference_steps"]) == ("a fox", 11, 2)
    assert [entry["name"] for entry in request["content_images"]] == ["who.png"]
    assert [entry["name"] for entry in request["style_images"]] == ["how.png"]
    assert re.fullmatch(r"[0-9a-f]{32}", details.pop("job"))
    assert details == {
        "state": "done",
        "message": "Done.",
        "seed": 11,
        "width": 128,
        "height": 128,
        "num_inference_steps": 2,
        "seconds": 2.0,
        "file": saved.name,
    }


def test_a_caller_has_the_id_at_once_and_then_every_change(server: Offered, script: Script) -> None:
    """Catches a program that cannot stop or look at its job until it is over, and one that waits without a word."""
    script.steps = Script(free=False).steps
    with calling(server) as client:
        first, _ = begun(client, script)
        second, number = begun(client, script)
        waiting = told(second)[0]
        assert (waiting["state"], waiting["ahead"], waiting["message"]) == (
            "queued",
            1,
            "One picture is ahead of yours.",
        )
        assert waiting.keys() == {"job", "state", "message", "ahead", "seconds_to_start"}
        script.steps.release(3)
        until(lambda: told(second)[-1].get("step") == 1)
        running = told(second)[-1]
        assert (running["state"], running["stage"], running["num_steps"]) == ("running", "denoise", 2)
        assert running.keys() == {"job", "state", "message", "stage", "step", "num_steps", "seconds_left"}
        file, looked = client.predict(job=number, api_name="/status")
        assert file is None and {**looked, "seconds_left": 0} == {**running, "seconds_left": 0}
        script.steps.release(1)
        assert second.result(timeout=PATIENCE)[1]["job"] == number
        assert first.result(timeout=PATIENCE)[1]["job"] != number
        assert [file for file, _ in second.outputs()[:-1]] == [None] * (len(second.outputs()) - 1)


def test_a_finished_job_is_found_after_a_restart(tmp_path: Path, uploads: Path) -> None:
    """Catches ids that die with the process, and a picture that is promised but gone."""
    with offered(tmp_path, Script()) as server, calling(server) as client:
        _, details = client.predict(**FIRST, api_name="/generate")
    with offered(tmp_path, Script()) as server, calling(server) as client:
        file, again = client.predict(job=details["job"], api_name="/status")
        saved = server.settings.output / details["file"]
        assert again == details and Path(file).read_bytes() == saved.read_bytes()
        client.predict(job=details["job"], api_name="/cancel")
        saved.unlink()
    with offered(tmp_path, Script()) as server, calling(server) as client:
        for copy in uploads.rglob(saved.name):
            copy.unlink()
        file, again = client.predict(job=details["job"], api_name="/status")
        assert file is None and again["message"] == "Done, but the picture is no longer on the server's disk."


def test_cancel_stops_what_runs_and_what_waits(server: Offered, script: Script) -> None:
    """Catches a cancel that stops another job, or that is told to have worked when the job was over."""
    script.steps = Script(free=False).steps
    with calling(server) as client:
        running, first = begun(client, script, prompt="first")
        waiting, second = begun(client, script, prompt="second")
        until(lambda: server.queue.find(first).status.state == "running")  # type: ignore[union-attr]
        said = client.predict(job=second, api_name="/cancel")
        assert said == {"job": second, "state": "cancelled", "message": "Stopped.", "cancelled": True}
        with pytest.raises(AppError, match="^The job was stopped.$"):
            waiting.result(timeout=PATIENCE)
        said = client.predict(job=first, api_name="/cancel")
        assert (said["state"], said["cancelled"]) == ("running", True)
        assert said["message"] == "It stops after the step it is at."
        script.steps.release(1)
        with pytest.raises(AppError, match="^The job was stopped.$"):
            running.result(timeout=PATIENCE)
        assert client.predict(job=first, api_name="/cancel")["cancelled"] is False
        assert client.predict(job=first, api_name="/status")[1]["state"] == "cancelled"
    assert script.seen == ["first"]


def test_what_the_server_stops_says_why(server: Offered, script: Script) -> None:
    """Catches a program that is told nothing when the server goes down."""
    script.steps = Script(free=False).steps
    with calling(server) as client:
        _, first = begun(client, script)
        job, _ = begun(client, script)
        server.queue.close()
        with pytest.raises(AppError, match=r"^The job was stopped. The server is shutting down. Send it again"):
            job.result(timeout=PATIENCE)
        server.queue.cancel(first)
        script.steps.release(1)


# Refusals.


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"width": 1000}, "Width is 1000; a whole number from 128 to 384 is allowed."),
        ({"seed": -2}, "Seed is -2; 0 to 4294967295 is allowed, or -1 for a random one."),
        ({"keep_input_size": True}, "Keep input size needs a content image. Add one, or switch it off."),
    ],
)
def test_a_refusal_is_the_sentence_alone(strict: Offered, values: dict[str, Any], sentence: str) -> None:
    """Catches Gradio's own words, and a prefix or a quotation mark around ours."""
    with calling(strict) as client, pytest.raises(AppError) as refused:
        client.predict(**values, api_name="/generate")
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MissingWeightsError("A file is gone. Fetch it again."), r"A file is gone\. Fetch it again\."),
        (
            RuntimeError("/home/secret"),
            r"Something unexpected happened \(RuntimeError\); the server's log says more under \w{12}\.",
        ),
    ],
)
def test_a_failure_is_a_sentence(client: Client, script: Script, error: Exception, sentence: str) -> None:
    """Catches a traceback, or a path of the server, in what a program is told."""
    script.error = error
    with pytest.raises(AppError) as failed:
        client.predict(api_name="/generate")
    assert re.fullmatch(sentence, str(failed.value))


@pytest.mark.parametrize("job", ["", "x", "0" * 32, "0" * 32 + "\n", "A" * 32, "../../etc/passwd", "%", None, 7, ["a"]])
@pytest.mark.parametrize("endpoint", ["status", "cancel"])
def test_an_id_that_is_none_is_refused(strict: Offered, endpoint: str, job: Any) -> None:
    """Catches an id that is looked for before its form is known, and an answer that tells one wrong id from another."""
    answer = plain_call(strict, endpoint, json.dumps({"data": [job]}))
    assert json.loads(answer.split("data: ")[1])["error"] == NO_JOB


@pytest.mark.parametrize(
    "data",
    [
        "[]",
        '[""]',
        '["", null, null, null, 256, 256, false, 1, 4, 128, -1, "more"]',
        '["", "photo.png", null, null, 256, 256, false, 1, 4, 128, -1]',
        '["", [], null, null, 256, 256, false, 1, 4, 128, -1]',
        '["", {"path": ["a"], "meta": {"_type": "gradio.FileData"}}, null, null, 256, 256, false, 1, 4, 128, -1]',
        '["", {"path": "/etc/fstab", "meta": {"_type": "gradio.FileData"}}, null, null, 256, 256, false, 1, 4, 9, -1]',
        '["", {"path": "/etc/hostname"}, null, null, 256, 256, false, 1, 4, 128, -1]',
        '["", {}, null, null, 256, 256, false, 1, 4, 128, -1]',
        '[{"a": 1}, null, null, null, 256, 256, false, 1, 4, 128, -1]',
        '["\\ud800", null, null, null, 256, 256, false, 1, 4, 128, -1]',
        '["", null, null, null, 256, 256, false, "many", 4, 128, true]',
    ],
)
def test_a_malformed_call_is_refused_in_a_sentence(strict: Offered, data: str) -> None:
    """Catches what Gradio says to those who build pages: tracebacks, objects, pydantic's words, paths."""
    answer = plain_call(strict, "generate", f'{{"data": {data}}}')
    assert answer.startswith("event: error")
    sentence = json.loads(answer.split("data: ")[1])["error"]
    assert re.match(r"(The|A|Width|Number) [^\n]*\.$", sentence), sentence
    for word in ("Traceback", " object at ", "pydantic", "/etc", "validation error", "handler"):
        assert word not in sentence
    assert strict.queue.status.running == strict.queue.status.waiting == 0


# Tools for assistants.


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
    verb of the page that becomes a tool."""

    async def look(tools: ClientSession, server: Offered) -> None:
        found = {tool.name: tool for tool in (await tools.list_tools()).tools}
        assert list(found) == ["generate", "status", "cancel"]
        generate = found["generate"]
        assert str(generate.description).startswith("Make a picture from a sentence, a content image")
        assert str(generate.description).endswith(mcp.IMAGES_SENTENCE) and "upload_file" not in str(
            generate.description
        )
        schema = generate.inputSchema["properties"]
        assert schema["width"]["description"] == "of the picture in pixels, a multiple of 16; 128 to 384."
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
        again = await tools.call_tool("status", {"job": details["job"]})
        assert json.loads(texts(again)[-1]) == details
        assert [part.type for part in again.content] == ["image", "text", "text"]
        over = await tools.call_tool("cancel", {"job": details["job"]})
        assert json.loads(texts(over)[0])["cancelled"] is False

    with_tools(tmp_path, make, script)


def test_tools_refuse_in_sentences(tmp_path: Path, script: Script) -> None:
    """Catches an advice that does not hold here (to give an address), and words about Gradio's own page."""
    calls: list[tuple[str, dict[str, Any], str]] = [
        ("generate", {"width": 1000}, "Width is 1000; a whole number from 128 to 384 is allowed."),
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
