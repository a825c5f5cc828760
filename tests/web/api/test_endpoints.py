"""The endpoints over real sockets: the contract, the way of a job, refusals, malformed calls. Tools are in test_mcp.py.

The pipeline is a script. The examples of README and docs run against the real program in `tests/test_readme.py`, the
command line in `tests/cli/test_remote_program.py`.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from tests.support.offered import Offered, calling, offered, plain_call
from tests.support.scripted import PATIENCE, Script, until
from uso import output
from uso.config import ROOT

CONTRACT = ROOT / "tests" / "contract.json"
FIRST = {"prompt": "a fox", "seed": 11, "num_inference_steps": 2}


def answers(job: Any) -> list[dict[str, Any]]:
    """The details that a job's caller has received so far."""
    return [details for _, details in job.outputs()]


def begun(client: Client, script: Script, **values: Any) -> tuple[Any, str]:
    """A job that has been taken, and its id."""
    job = client.submit(**FIRST | values, api_name="/generate")
    until(job.outputs)
    return job, answers(job)[0]["job"]


# The contract.


def test_the_contract_is_kept(server: Offered) -> None:
    """Catches a name, an order, a type, a default, a range or a description that changes under the programs that rely
    on it, and an event of the page that becomes public. A change on purpose is written into contract.json."""
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
    assert "who or what is shown" in text and "a multiple of 16; 128 to 256." in text
    assert "-1 to 4294967295." in text and "32 letters and digits" in text


# The way of a job.


def test_the_last_answer_is_the_picture_byte_for_byte(
    client: Client, server: Offered, picture_file: Callable[..., Path]
) -> None:
    """Catches a result that is not the last answer, a picture that loses its record, an image that arrives
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


def test_several_pictures_are_all_told_and_can_be_fetched(client: Client, server: Offered) -> None:
    """Catches pictures of a request that a program cannot get at, in another order than their seeds, or only at the
    end; and details that change for a request for one."""
    job = client.submit(**FIRST, num_images=3, api_name="/generate")
    file, details = job.result(timeout=PATIENCE)
    made = details["pictures"]
    assert [one["seed"] for one in made] == [11, 12, 13] and details["seed"] == 11
    assert details["message"] == "Done. 3 pictures."
    for one in made:  # the client fetches them as it does the first
        saved = server.settings.output / one["file"]
        assert Path(one["picture"]).read_bytes() == saved.read_bytes()
    assert Path(file).read_bytes() == Path(made[0]["picture"]).read_bytes()
    looked, again = client.predict(job=details["job"], api_name="/status")
    assert Path(looked).read_bytes() == Path(file).read_bytes()
    assert [one["file"] for one in again["pictures"]] == [one["file"] for one in made]
    assert "pictures" not in client.predict(**FIRST, api_name="/generate")[1]
    answer = plain_call(server, "status", json.dumps({"data": [details["job"]]}))
    addresses = re.findall(r'"url": "(/[^"]+)"', answer)
    assert len(addresses) == 3 and all(httpx.get(f"{server.url}{one}").status_code == 200 for one in addresses)


def test_each_picture_is_told_when_it_is_finished(server: Offered, script: Script) -> None:
    """Catches a program that waits for eight pictures to see the first."""
    script.steps = Script(free=False).steps
    with calling(server) as client:
        job, number = begun(client, script, num_images=2)
        script.steps.release(2)
        until(lambda: len(answers(job)[-1]["pictures"]) == 1)
        running = answers(job)[-1]
        assert running["state"] == "running" and Path(running["pictures"][0]["picture"]).is_file()
        client.predict(job=number, api_name="/cancel")
        script.steps.release(2)
        with pytest.raises(AppError, match="stopped"):
            job.result(timeout=PATIENCE)
        file, details = client.predict(job=number, api_name="/status")
        assert details["state"] == "cancelled" and "Finished before: 1 of 2 pictures." in details["message"]
        assert Path(file).is_file() and len(details["pictures"]) == 1


def test_the_loras_of_a_picture_are_told(server: Offered, script: Script, client: Client) -> None:
    """Catches a program that cannot tell which LoRAs made its picture."""
    loras = {"added_loras": [{"file": "ink.safetensors", "fingerprint": "ab", "strength": 0.8}], "lora_scale": 0.5}
    script.provenance = {**script.provenance, **loras}
    _, details = client.predict(**FIRST, api_name="/generate")
    assert {name: details[name] for name in loras} == loras
    assert client.predict(job=details["job"], api_name="/status")[1] == details


def test_a_caller_has_the_id_at_once_and_then_every_change(server: Offered, script: Script) -> None:
    """Catches a program that cannot stop or look at its job until it is over, and one that waits without a word."""
    script.steps = Script(free=False).steps
    with calling(server) as client:
        first, _ = begun(client, script)
        second, number = begun(client, script)
        waiting = answers(second)[0]
        assert (waiting["state"], waiting["ahead"], waiting["message"]) == (
            "queued",
            1,
            "One picture is ahead of yours.",
        )
        assert waiting.keys() == {"job", "state", "message", "ahead", "seconds_to_start"}
        script.steps.release(3)
        until(lambda: answers(second)[-1].get("step") == 1)
        running = answers(second)[-1]
        assert (running["state"], running["stage"], running["num_steps"]) == ("running", "denoise", 2)
        assert running.keys() == {"job", "state", "message", "stage", "step", "num_steps", "seconds_left"}
        file, looked = client.predict(job=number, api_name="/status")
        assert file is None and {**looked, "seconds_left": 0} == {**running, "seconds_left": 0}
        script.steps.release(1)
        assert second.result(timeout=PATIENCE)[1]["job"] == number
        assert first.result(timeout=PATIENCE)[1]["job"] != number
        assert [file for file, _ in second.outputs()[:-1]] == [None] * (len(second.outputs()) - 1)


def test_a_finished_job_is_found_after_a_restart(tmp_path: Path, gradio_folder: Path) -> None:
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
        for copy in gradio_folder.rglob(saved.name):
            copy.unlink()
        file, again = client.predict(job=details["job"], api_name="/status")
        assert file is None and again["message"] == "Done, but the picture is no longer on the server's disk."


def test_a_job_of_another_server_in_the_same_folder(tmp_path: Path, gradio_folder: Path) -> None:
    """Catches a job that is "next" for ever at a server which does not have it, or that it claims to have stopped."""
    script = Script(free=False)
    with (
        offered(tmp_path, script) as first,
        offered(tmp_path, Script()) as second,
        calling(first) as one,
        calling(second) as other,
    ):
        job, name = begun(one, script, prompt="first")
        waiting = begun(one, script, prompt="second")[1]

        def told(verb: str, name: str) -> dict[str, Any]:
            answer = other.predict(job=name, api_name=verb)
            return dict(answer[1] if verb == "/status" else answer)

        until(lambda: told("/status", name)["state"] == "running")
        running = told("/status", name)
        assert running["message"].startswith("Another server has it: your picture is being made there.")
        assert told("/cancel", name) == {**running, "cancelled": False}
        queued = told("/status", waiting)
        assert (queued["state"], queued["ahead"], queued["seconds_to_start"]) == ("queued", None, None)
        script.steps.release(10**6)
        job.result(timeout=PATIENCE)
        until(lambda: told("/status", name)["state"] == "done")
        file, details = other.predict(job=name, api_name="/status")
        assert Path(file).read_bytes() == (second.settings.output / details["file"]).read_bytes()


def test_cancel_stops_what_runs_and_what_waits(server: Offered, script: Script) -> None:
    """Catches a cancel that stops another job, or that is reported to have worked when the job was over."""
    script.steps = Script(free=False).steps
    with calling(server) as client:
        running, first = begun(client, script, prompt="first")
        waiting, second = begun(client, script, prompt="second")
        until(lambda: server.queue.find(first).status.state == "running")  # type: ignore[union-attr]
        answer = client.predict(job=second, api_name="/cancel")
        assert answer == {"job": second, "state": "cancelled", "message": "Stopped.", "cancelled": True}
        with pytest.raises(AppError, match="^The job was stopped.$"):
            waiting.result(timeout=PATIENCE)
        answer = client.predict(job=first, api_name="/cancel")
        assert (answer["state"], answer["cancelled"]) == ("running", True)
        assert answer["message"] == "It stops after the current step."
        script.steps.release(1)
        with pytest.raises(AppError, match="^The job was stopped.$"):
            running.result(timeout=PATIENCE)
        assert client.predict(job=first, api_name="/cancel")["cancelled"] is False
        assert client.predict(job=first, api_name="/status")[1]["state"] == "cancelled"
    assert script.seen == ["first"]


def test_what_the_server_stops_says_why(server: Offered, script: Script) -> None:
    """Catches a program that gets no reason when the server goes down."""
    script.steps = Script(free=False).steps
    with calling(server) as client:
        _, first = begun(client, script)
        job, _ = begun(client, script)
        server.queue.close()
        with pytest.raises(AppError, match=r"^The job was stopped. The server is shutting down. Send it again"):
            job.result(timeout=PATIENCE)
        server.queue.cancel(first)
        script.steps.release(1)
