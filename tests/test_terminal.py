"""Output that fails costs no picture, raises nothing, and is told by the exit status."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import SMALL
from uso import output
from uso.config import ROOT

VERBS = [
    ["-m", "uso", "--help"],
    ["-m", "uso", "--version"],
    ["-m", "uso", "generate", "--help"],
    ["-m", "uso", "models"],
    ["-m", "uso", "train", "--help"],
    ["-m", "tools.demo", "--help"],
    ["app.py", "--help"],
]


def shell(command: str, *argv: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run Python with `argv`; `command` says where its output goes: `"$@" > /dev/full`."""
    return subprocess.run(
        ["bash", "-c", command, "bash", sys.executable, *argv],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        check=False,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize("argv", VERBS, ids=" ".join)
def test_a_full_disk_is_told(argv: list[str]) -> None:
    ran = shell('"$@" > /dev/full', *argv)
    assert ran.returncode == 1
    assert ran.stderr == b"stdout cannot be written (No space left on device). Pictures that were made are kept.\n"
    assert shell('"$@" > /dev/full 2>&1', *argv).returncode == 1


@pytest.mark.parametrize("argv", VERBS, ids=" ".join)
def test_a_closed_output_or_one_without_the_letters_is_no_error(argv: list[str]) -> None:
    for command, environment in (
        ('"$@" >&-', {}),
        ('"$@" >&- 2>&-', {}),
        ('"$@"', {"PYTHONIOENCODING": "ascii"}),
        ('"$@"', {"PYTHONIOENCODING": "cp1252"}),
    ):
        ran = shell(command, *argv, **environment)
        assert (ran.returncode, ran.stderr) == (0, b"")


def test_a_refusal_keeps_its_status_wherever_it_goes() -> None:
    for command in ('"$@" > /dev/full', '"$@" 2> /dev/full', '"$@" >&- 2>&-'):
        assert shell(command, "-m", "uso", "info", "nowhere.png").returncode == 2
        assert shell(command, "-m", "uso", "generate", "--promt", "x").returncode == 2


def test_letters_that_the_output_lacks_are_escaped(tmp_path: Path) -> None:
    script = (
        "import sys; from uso.terminal import print_path, run_program; from pathlib import Path\n"
        "def main():\n    print('\\u00d7 \\u72d0'); print_path(Path('f\\udce9e/\\u72d0.png')); return 0\n"
        "sys.exit(run_program(main))"
    )
    ran = shell('"$@"', "-c", script, PYTHONIOENCODING="ascii")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout == b"\\xd7 \\u72d0\n" + os.fsencode("f\udce9e/\u72d0.png") + b"\n"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_pictures_are_made_and_kept(tmp_path: Path) -> None:
    """Of two pictures both are there, though the path of the first could not be written."""
    flags = ["-m", "uso", "generate", *SMALL, "--steps", "1", "--images", "2", "--prompt", "a fox", "--device", "cpu"]
    ran = shell('"$@" > /dev/full', *flags, "--output", str(tmp_path))
    assert ran.returncode == 1 and b"Traceback" not in ran.stderr
    assert len([output.read(path) for path in tmp_path.glob("*.png")]) == 2
