"""`generate --server` against the real program."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.commands import Ran, request_of
from tests.support.running import Program, program
from uso import output
from uso.cli.main import main
from uso.cli.pictures.remote_server import RemoteServer
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


def test_a_server_that_is_killed_is_said(running: Program, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a command that waits for ever for a server that is gone, and a traceback of the client's."""
    running.wait_until("ready")
    with RemoteServer(f"http://127.0.0.1:{running.port}") as server, pytest.raises(USOError) as broken:
        list(server.pictures({"num_inference_steps": 50}, lambda details: running.process.kill()))
    assert re.match(r"The connection to http://127.0.0.1:\d+ broke. A picture", str(broken.value))
    assert capsys.readouterr().err == ""
