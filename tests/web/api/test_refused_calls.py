"""Calls over real sockets that are refused, and jobs that fail: one sentence, and nothing of the server's inside."""

import json
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from tests.support.offered import Offered, calling, offered, plain_call
from tests.support.scripted import Script
from uso.errors import MissingWeightsError
from uso.web.api.endpoints import NO_JOB


@pytest.fixture(scope="module")
def strict(gradio_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Offered, None, None]:
    """A server for calls that are all refused before they are admitted."""
    with offered(tmp_path_factory.mktemp("strict"), Refusing()) as made:
        yield made


class Refusing(Script):
    """Is never called."""

    def stream(self, request: Any) -> Any:
        pytest.fail("a call that should have been refused was admitted")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"width": 1000}, "Width is 1000; a whole number from 128 to 256 is allowed."),
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
    """Catches a traceback, or a path of the server, in a message to a program."""
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
        '["", null, null, null, 256, 256, false, 1, 4, 128]',
        '["", null, null, null, 256, 256, false, 1, 4, 128, -1, 1, 1, 1, "more"]',
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
    assert re.match(r"(The|A|Width|Number|Extra) [^\n]*\.$", sentence), sentence
    for word in ("Traceback", " object at ", "pydantic", "/etc", "validation error", "handler"):
        assert word not in sentence
    assert strict.queue.status.running == strict.queue.status.waiting == 0
