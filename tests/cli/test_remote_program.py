"""`generate --server` and the README's example against the real program."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.commands import Ran, request_of
from tests.support.running import LONG, Program, program
from uso import output
from uso.cli.main import main
from uso.cli.remote_server import RemoteServer
from uso.config import ROOT
from uso.errors import USOError

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("remote"), pytest.mark.usefixtures("nobodys_machine")]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The program, which loads its model when the first test comes and is killed by the last."""
    with program(tmp_path_factory.mktemp("program")) as made:
        made.wait_until_listening()
        yield made


def test_the_command_line_and_a_server_make_the_same_picture(running: Program, remote: Callable[..., Ran]) -> None:
    """Catches a default, or a value, that is not the same on both ways; a request that comes before the model waits."""
    values = ("--prompt", "a fox", "--style", ROOT / "assets/examples/woodcut.jpg", "--steps", 2, "--seed", 7)
    running.wait_until_listening()
    ran = remote(f"http://127.0.0.1:{running.port}", *values)
    assert ran.status == 0, ran.err
    theirs = ran.pictures[0]
    assert main(["generate", "--model", "demo", "--device", "cpu", *map(str, values), "--output", "own"]) == 0
    (ours,) = Path("own").glob("*.png")
    assert request_of(ours) == request_of(theirs)
    assert output.read(ours).model["components"] == output.read(theirs).model["components"]


def test_the_readme_example_runs(running: Program, tmp_path: Path) -> None:
    """Catches an example that people copy and that fails."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"### From programs\n.*?```python\n(.*?)```", text, re.DOTALL)
    running.wait_until("ready")
    before = len(running.pictures())
    example = example.replace("http://127.0.0.1:7860", f"http://127.0.0.1:{running.port}")
    ran = subprocess.run(
        [sys.executable, "-c", example],
        cwd=ROOT,
        env=os.environ | {"GRADIO_TEMP_DIR": str(tmp_path / "downloads")},
        capture_output=True,
        text=True,
        timeout=LONG,
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"(?m)^(Your turn|Reading|Step|Done)", ran.stdout), ran.stdout
    assert ran.stdout.count("'state': 'done'") == 2 and ran.stdout.endswith("The job was stopped.\n"), ran.stdout
    assert len(running.pictures()) == before + 1


def test_a_server_that_is_killed_is_said(running: Program, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a command that waits for ever for a server that is gone, and a traceback of the client's."""
    running.wait_until("ready")
    with RemoteServer(f"http://127.0.0.1:{running.port}") as server, pytest.raises(USOError) as broken:
        server.picture({"num_inference_steps": 50}, lambda details: running.process.kill())
    assert re.match(r"The connection to http://127.0.0.1:\d+ broke. A picture", str(broken.value))
    assert capsys.readouterr().err == ""
