"""What is written: the table, JSON, and the album of pictures."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.support.drawn import needs_font
from tests.support.judging import BY_NAME, SIZE, colour
from tools.demo.judge.album import Album
from tools.demo.judge.material import FIRST, draw_task
from tools.demo.judge.report import LEGEND, Score, as_json, as_text
from tools.demo.judge.scores import Batch
from uso.evaluation.report import Figure
from uso.evaluation.sheet import ROWS

pytestmark = needs_font


def a_score(condition: str, measure: Any, value: float, chance: float | None = 0.1) -> Score:
    figure = Figure(value, value - 0.05, value + 0.05, 40)
    return Score(condition, measure, {"before": figure, "after": figure}, chance, figure, figure)


def test_table_and_json_say_the_same() -> None:
    """Catches a column under another's head, and a share printed as a correlation."""
    scores = [a_score("seen", "style", 0.825), a_score("new-subjects", "layout", 0.5, chance=None)]
    head, first, second = as_text(scores).removesuffix(LEGEND).splitlines()[:3]
    assert " ".join(head.split()) == "condition measure n before 95 % after 95 % chance reference truth decoded"
    assert first.split("  ")[0] == "seen" and "82.5 %" in first and "77.5 % to 87.5 %" in first and "10.0 %" in first
    assert "0.50" in second and "0.45 to 0.55" in second and "%" not in second
    assert second.split()[-4:] == ["-", "-", "0.50", "0.50"]
    seen = replace(scores[0], reference=Figure(0.975, 0.9, 1.0, 40))
    assert as_text([seen]).splitlines()[1].split()[-6:] == ["97.5", "%", "82.5", "%", "82.5", "%"]
    assert len(head) == len(first) == len(second)
    values = json.loads(json.dumps(as_json(scores, {"count": 40})))
    assert values["settings"] == {"count": 40}
    assert values["scores"][0]["models"]["before"] == vars(scores[0].models["before"])


def test_album_writes_what_was_drawn(tmp_path: Path) -> None:
    """Catches selection: every picture is a file of its own, and the sheet holds the first ones in their order."""
    tasks = [draw_task(BY_NAME["text"], number, SIZE) for number in range(14)]
    results = np.stack([colour(number, SIZE) for number in range(14)])
    album = Album(tmp_path)
    for start, stop in ((0, 5), (5, 14)):
        album.add(
            Batch(BY_NAME["text"], tasks[start:stop], {"result": results[start:stop]}, results[start:stop], done=stop)
        )
    files = sorted((tmp_path / "text" / "result").iterdir())
    assert [file.name for file in files] == [f"{FIRST + number}.png" for number in range(14)]
    assert [int(np.asarray(Image.open(file))[0, 0, 0]) for file in files] == list(range(14))
    with Image.open(tmp_path / "text.png") as sheet:
        assert sheet.height == 16 + ROWS * (SIZE + 20)
