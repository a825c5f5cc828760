"""The records of a run, and durations for people."""

import json
from pathlib import Path

from uso.training.loop.log import Journal, duration


def test_journal_takes_back_what_is_done_again(tmp_path: Path) -> None:
    """Catches a curve that goes twice over the steps after a checkpoint, and a line that was cut off."""
    journal = Journal(tmp_path, 0, 9, tensorboard=True)
    for step in (1, 2, 3):
        journal.write(step, {"loss": step / 2})
    journal.close()
    assert list((tmp_path / "tensorboard").iterdir())
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "lo')
    Journal(tmp_path, 2, 9, tensorboard=False).close()
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_durations_are_said_as_people_say_them() -> None:
    """Catches "86400 s left"."""
    assert [duration(seconds) for seconds in (45, 720, 12240, 181440)] == ["45 s", "12 min", "3.4 h", "2.1 days"]
