"""Which process this is: what launchers set is read, what they left behind is refused."""

import pytest

from uso.errors import ConfigError
from uso.system.launcher import MEETING, VARIABLES, Process, this_process


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *MEETING):
        monkeypatch.delenv(name, raising=False)


def given(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for pair in text.split():
        monkeypatch.setenv(*pair.split("=", 1))


@pytest.mark.parametrize(
    ("text", "process"),
    [
        ("", Process(0, 1, 0)),
        ("WORLD_SIZE=1", Process(0, 1, 0)),
        ("WORLD_SIZE=1 RANK=0", Process(0, 1, 0)),
        ("MASTER_ADDR=10.0.0.1", Process(0, 1, 0)),
        ("RANK= WORLD_SIZE=", Process(0, 1, 0)),
        ("RANK=5 WORLD_SIZE=8 LOCAL_RANK=1", Process(5, 8, 1)),
    ],
)
def test_what_is_whole_or_harmless_is_read(monkeypatch: pytest.MonkeyPatch, text: str, process: Process) -> None:
    given(monkeypatch, text)
    assert this_process() == process


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("WORLD_SIZE=2", "WORLD_SIZE=2 in the environment: RANK and LOCAL_RANK are not set"),
        ("RANK=1", "WORLD_SIZE and LOCAL_RANK are not set"),
        ("LOCAL_RANK=0", "RANK and WORLD_SIZE are not set"),
        ("RANK=1 WORLD_SIZE=2", "LOCAL_RANK is not set"),
        ("RANK=2 WORLD_SIZE=2 LOCAL_RANK=0", "RANK must be below WORLD_SIZE"),
        ("RANK=0 WORLD_SIZE=0 LOCAL_RANK=0", "RANK must be below WORLD_SIZE"),
        ("RANK=-1 WORLD_SIZE=2 LOCAL_RANK=0", "RANK is no number"),
        ("RANK=0 WORLD_SIZE=two LOCAL_RANK=0", "WORLD_SIZE is no number"),
        ("RANK=0 WORLD_SIZE=2 LOCAL_RANK=1", "LOCAL_RANK must not be above RANK"),
    ],
)
@pytest.mark.parametrize("meets", [False, True])
def test_what_is_left_over_is_refused(monkeypatch: pytest.MonkeyPatch, text: str, why: str, meets: bool) -> None:
    """Catches half of the jobs done with exit status 0, and a traceback of torch.distributed."""
    given(monkeypatch, text + " MASTER_ADDR=127.0.0.1 MASTER_PORT=1")
    with pytest.raises(ConfigError, match=f"{why}.*unset"):
        this_process(meets=meets)


def test_processes_that_meet_must_know_where(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, "RANK=0 WORLD_SIZE=2 LOCAL_RANK=0")
    assert this_process() == Process(0, 2, 0)
    with pytest.raises(ConfigError, match="MASTER_ADDR and MASTER_PORT are not set"):
        this_process(meets=True)
    given(monkeypatch, "MASTER_ADDR=127.0.0.1 MASTER_PORT=x")
    with pytest.raises(ConfigError, match="MASTER_PORT is no number"):
        this_process(meets=True)
