"""The report: what it says of its figures, and a page that needs nothing else."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import draw_picture
from uso.errors import ConfigError
from uso.evaluation.bench.entries import read_bench
from uso.evaluation.page import html
from uso.evaluation.page.report import write_report
from uso.evaluation.pictures import results
from uso.evaluation.records import FORMAT, SCORES
from uso.evaluation.scores import METRICS, Score
from uso.evaluation.sheet import ROWS

PROMPT = "A <b>cup</b> | with a bar"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two measured runs of a list of all tasks, with made-up scores; the second is better at everything."""
    folder = tmp_path_factory.mktemp("report")
    for number, name in enumerate(("cup", "owl", "ink", "neon")):
        draw_picture(40, 30, number).save(folder / f"{name}.png")
    rows = [
        {"prompt": PROMPT, "image_paths": [f"{each}.png"], "save_dir": each, "images": 2} for each in ("cup", "owl")
    ]
    for style in ("ink", "neon"):
        rows.append({"prompt": "a boat", "image_paths": ["", f"{style}.png"], "save_dir": style, "images": 2})
        for content in ("cup", "owl"):
            for prompt in ("", PROMPT):
                paths = [f"{content}.png", f"{style}.png"]
                rows.append({"prompt": prompt, "image_paths": paths, "save_dir": f"{content}+{style}{bool(prompt)}"})
    (folder / "list.json").write_text(json.dumps(rows))
    bench = read_bench(folder / "list.json")
    random = np.random.default_rng(0)
    made = []
    for better, name in enumerate(("first", "second")):
        out = folder / name
        scores: list[dict[str, object]] = []
        for result in results(bench, out):
            result.path.parent.mkdir(parents=True, exist_ok=True)
            draw_picture(32, 32, len(scores)).save(result.path)
            entry = result.entry
            metrics = [each for each in METRICS[entry.task] if entry.prompt or each != "clip_t"]
            values = {each: float(random.uniform(0.2, 0.3)) + 0.3 * better for each in metrics}
            place = (entry.id, result.index, entry.task, entry.prompt, entry.content, entry.style)
            scores.append(Score(*place, result.seed, str(result.path), "", values).plain())
        record: dict[str, object] = {
            "format": FORMAT,
            "title": "T & co",
            "bench": str(bench.path),
            "digest": bench.digest,
            "name": name,
        }
        origin = {"repo": "a/b", "commit": "c" * 40, "file": "model.safetensors", "fingerprint": "f" * 64}
        record |= {"made_by": {"model": "demo"}, "naming": "uso", "asked": len(scores), "cut_prompts": 1}
        (out / SCORES).write_text(json.dumps(record | {"encoders": {"clip": origin}, "scores": scores}))
        made.append(out)
    return made


@pytest.fixture(scope="module")
def written(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report of both."""
    folder = tmp_path_factory.mktemp("written")
    assert write_report(runs, folder) == (folder / "report.md", folder / "report.html")
    return folder


def test_both_forms_say_the_same(written: Path) -> None:
    """Catches a table that one form lacks, figures without their n, and a paper's figure that reads as a pass mark."""
    text, page = ((written / name).read_text() for name in ("report.md", "report.html"))
    for title in ("Subject-driven", "Style-driven", "layout kept", "layout moved", "second against first"):
        assert title in text and title in page
    row = next(line for line in text.splitlines() if line.startswith("| CLIP-I ↑"))
    assert re.fullmatch(r"\| CLIP-I ↑ \| 0\.2\d+ \[0\.2\d+, 0\.2\d+\] 4/2 \| 0\.5\d+ \[.*\] 4/2 \| 0\.623 \|", row), row
    apart = [line for line in text.splitlines() if line.startswith("| Subject-driven | DINO |")]
    assert len(apart) == 1 and apart[0].endswith("| 4 | yes |")
    assert "not as a mark to pass" in text and "cccccccc" in text
    assert "Prompts that CLIP could read the beginning of only: first: 1, second: 1" in text
    for name in re.findall(r"!\[[^]]*\]\(([^)]*)\)", text):
        assert (written / name).stat().st_size > 100, name


def test_the_page_needs_nothing_else(written: Path) -> None:
    """Catches a plot, font or picture that would have to be fetched, and a prompt that becomes markup."""
    page = (written / "report.html").read_text()
    links = [each for each in re.findall(r'(?:src|href)="([^"]*)"', page) if not each.startswith(("data:", "#"))]
    assert not links and "@import" not in page and "<script" not in page
    assert not [each for each in re.findall(r"url\(([^)]*)\)", page) if not each.startswith("#")]
    assert "<b>cup</b>" not in page and "T &amp; co" in page
    assert page.count("<svg") == 8 and page.count("data:image/webp") >= 8
    assert ROWS >= 8


def test_a_report_is_written_where_the_benchmark_is_gone(runs: list[Path], tmp_path: Path) -> None:
    """Catches a crash on the machine that has only the scores."""
    record = json.loads((runs[0] / SCORES).read_text()) | {"bench": "/nowhere/list.json"}
    record["scores"] = [score | {"file": "/nowhere/0.png"} for score in record["scores"] if score["task"] == "style"]
    (tmp_path / SCORES).write_text(json.dumps(record))
    text, page = (path.read_text() for path in write_report([tmp_path], tmp_path))
    assert "no pictures are shown" in text and "data:image" not in page
    assert f"Pictures of {record['name']} are no longer where they were measured" in text


def test_runs_of_two_benchmarks_are_not_compared(runs: list[Path], tmp_path: Path) -> None:
    record = json.loads((runs[0] / SCORES).read_text()) | {"digest": "0"}
    (tmp_path / SCORES).write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="is of another benchmark than"):
        write_report([runs[0], tmp_path], tmp_path)
    (tmp_path / SCORES).write_text("{}")
    with pytest.raises(ConfigError, match="is damaged"):
        write_report([tmp_path], tmp_path)


def test_tables_are_escaped() -> None:
    assert "&lt;i&gt;" in html.table([["a"], ["<i>"]], "T")


def test_encoders_of_ones_own_are_told_at_the_top(runs: list[Path], written: Path, tmp_path: Path) -> None:
    """Catches figures of other encoders that pass for those of the published ones."""
    record = json.loads((runs[0] / SCORES).read_text())
    del record["encoders"]["clip"]["repo"]
    (tmp_path / SCORES).write_text(json.dumps(record))
    for path, plain in zip(write_report([tmp_path], tmp_path), ("report.md", "report.html"), strict=True):
        text = path.read_text()
        assert 0 < text.index("files of one") < text.index("Subject-driven")
        assert "Encoders from files" in text and "Encoders from files" not in (written / plain).read_text()
