"""`python -m uso evaluate`: refused at once where it must be, and from a list to a report on the demo model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_picture
from tests.support.running import LONG, Forked
from tests.support.tiny_encoders import encoder_flags
from uso.cli.main import main
from uso.config import ROOT
from uso.evaluation.records import Measured, read_scores
from uso.evaluation.statistics import estimate

DRAWN = ROOT / "assets" / "examples" / "drawn"
JUDGE = ROOT / "assets" / "judge" / "descriptor.safetensors"
CONTENTS, STYLES = ("owl", "robot"), ("watercolour", "pixel-art")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("prepare --bench nothing", "There is no benchmark 'nothing'. Choose full or mini"),
        ("prepare --bench mini --references nowhere", "There is no folder nowhere"),
        ("generate --bench nowhere --output out", "nowhere is not there. Make a benchmark with"),
        ("score nowhere", "There is no folder nowhere"),
        ("score . --batch 0", "--batch is 0; it must be at least 1"),
        ("score . --device tpu", "There is no device 'tpu'"),
        ("score .", "holds no run.json, so these pictures were made elsewhere"),
        ("report nowhere", "There is no nowhere. Name folders with a scores.json"),
    ],
)
def test_wrong_arguments_are_refused(
    argv: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *argv.split()]) == 2
    assert says in capsys.readouterr().err


def test_refusals_come_without_torch(tmp_path: Path) -> None:
    """Catches seconds of waiting for a word that is misspelt."""
    code = (
        "import sys; from uso.cli.main import main\n"
        "for argv in (['prepare', '--bench', 'x'], ['generate', '--bench', 'x', '--output', 'o'], ['score', 'x']):\n"
        "    assert main(['evaluate', *argv]) == 2\n"
        "print('torch' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]


def listed(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "list.json"
    path.write_text(json.dumps(rows))
    return path


def two_rows(folder: Path, count: int) -> Path:
    draw_picture(24, 24, 1).save(folder / "style.png")
    rows = [
        {"prompt": f"a boat {number}", "image_paths": ["", "style.png"], "save_dir": f"style/{number}"}
        for number in range(count)
    ]
    return listed(folder, rows)


def scored(folder: Path, *flags: str) -> Measured:
    assert main(["evaluate", "score", str(folder), "--device", "cpu", *flags]) == 0
    return read_scores(folder)


def test_pictures_of_others_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches upstream's names that are not found, pictures that are missing without a word, and scores that outlive
    the pictures they belong to."""
    bench, out = two_rows(tmp_path, 3), tmp_path / "others"
    (out / "style").mkdir(parents=True)
    for number in range(2):
        draw_picture(24, 24, 10 + number).save(out / "style" / f"{number}_0.png")
    flags = ["--bench", str(bench), "--naming", "upstream", *encoder_flags(tmp_path / "encoders")]
    assert main(["evaluate", "score", str(out), "--device", "cpu", *flags]) == 2
    assert "1 of 3 pictures are missing, such as" in capsys.readouterr().err
    partial = scored(out, *flags, "--partial")
    assert (len(partial.scores), partial.record["asked"], partial.record["made_by"]) == (2, 3, None)
    draw_picture(24, 24, 12).save(out / "style" / "2_0.png")
    first = scored(out, *flags)
    kept = {path.name for path in (out / "features").iterdir()}

    # Everything is known now: no encoder is loaded again.
    monkeypatch.setattr("uso.evaluation.measure.loaded", lambda *_: pytest.fail("an encoder was loaded"))
    assert scored(out, *flags).scores == first.scores
    monkeypatch.undo()
    assert {path.name for path in (out / "features").iterdir()} == kept

    draw_picture(24, 24, 99).save(out / "style" / "1_0.png")  # another picture under the same name
    second = scored(out, *flags)
    assert second.scores[0] == first.scores[0] and second.scores[2] == first.scores[2]
    assert all(second.scores[1].values[name] != first.scores[1].values[name] for name in ("csd", "leak"))


def test_the_process_that_ends_last_writes_the_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches scores that lack another process's part, with the variables that `accelerate launch` sets."""
    bench, out = two_rows(tmp_path, 4), tmp_path / "others"
    (out / "style").mkdir(parents=True)
    for number in range(4):
        draw_picture(24, 24, 10 + number).save(out / "style" / f"{number}_0.png")
    score = ["evaluate", "score", str(out), "--bench", str(bench), "--naming", "upstream", "--device", "cpu"]
    score += encoder_flags(tmp_path / "encoders")
    for rank, says in (("0", "Process 0 of 2. Done with its part."), ("1", "")):
        for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", "2")):
            monkeypatch.setenv(name, value)
        assert main(score) == 0
        assert says in capsys.readouterr().err
        assert (out / "scores.json").exists() == (rank == "1")
    assert len(read_scores(out).scores) == 4


@pytest.mark.slow
def test_two_processes_share_the_pictures(tmp_path: Path) -> None:
    """Catches pictures that are made twice, or by nobody, where two processes run side by side."""
    bench, out = two_rows(tmp_path, 3), tmp_path / "run"
    command = ["uso/__main__.py", "evaluate", "generate", "--bench", str(bench), "--output", str(out)]
    command += ["--model", "demo", "--steps", "1", "--device", "cpu"]
    logs = [tmp_path / "log-0", tmp_path / "log-1"]
    running = []
    for rank, log in enumerate(logs):
        places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
        running.append(Forked(command, os.environ | places, log))
    ended = [each.wait(LONG) for each in running]
    said = [log.read_text(encoding="utf-8") for log in logs]
    for each in running:
        each.end()
    assert ended == [0, 0], said
    assert sorted(one.count(".png") for one in said) == [1, 2]
    assert "Process 1 of 2. Pictures made: 1, there already: 0; entries failed: 0." in said[1]
    assert len(list((out / "style").glob("*.png"))) == 3


@pytest.mark.slow
def test_truth_is_above_results_and_results_above_strangers(tmp_path: Path) -> None:
    """From a list to a report on the demo model, with the judge in CSD's place: catches scores that do not follow what
    pictures show. Truth is the references themselves; strangers are results under each other's names."""
    rows: list[dict[str, Any]] = []
    for content in CONTENTS:
        prompt = f"A {content} on the beach."
        rows.append({"prompt": prompt, "image_paths": [str(DRAWN / f"{content}.png")], "save_dir": f"s/{content}"})
    for style in STYLES:
        rows.append({"prompt": "A cat.", "image_paths": ["", str(DRAWN / f"{style}.png")], "save_dir": f"y/{style}"})
    bench = listed(tmp_path / "bench", rows)
    flags = encoder_flags(tmp_path / "encoders")
    flags[-1] = str(JUDGE)
    run = tmp_path / "result"
    generate = ["evaluate", "generate", "--bench", str(bench), "--output", str(run), "--model", "demo"]
    generate += ["--device", "cpu", "--steps", "12", "--images", "2", "--style-strength", "1.1"]
    assert main(generate) == 0
    made = {path: path.stat().st_mtime_ns for path in run.rglob("*.png")}
    next(iter(made)).unlink()
    assert main(generate) == 0
    assert set(run.rglob("*.png")) == set(made)
    assert sum(path.stat().st_mtime_ns != when for path, when in made.items()) == 1, "only the lost one is made again"

    truth, strangers = tmp_path / "truth", tmp_path / "strangers"
    for folder in (truth, strangers):
        (folder / "s").mkdir(parents=True)
        (folder / "y").mkdir()
    for kind, names in (("s", CONTENTS), ("y", STYLES)):
        for place, name in enumerate(names):
            for number in range(2):
                with Image.open(DRAWN / f"{name}.png") as picture:
                    # Not the very pixels: a picture of the same subject or style that was saved once more.
                    noisy = np.asarray(picture.convert("RGB"), np.int16) + number + 1
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(truth / kind / f"{name}_{number}.png")
                other = names[(place + 1) % len(names)]
                own = run / kind / f"{other}_seed{3407 + number}.png"
                (strangers / kind / f"{name}_{number}.png").write_bytes(own.read_bytes())
    results = scored(run, *flags)
    others = ["--bench", str(bench), "--images", "2", "--naming", "upstream", *flags]
    best, worst = scored(truth, *others), scored(strangers, *others)
    for task, metric in (("subject", "dino"), ("subject", "clip_i"), ("style", "csd")):
        figures = []
        for measured in (best, results, worst):
            figure = estimate([each for each in measured.scores if each.task == task], metric)
            assert figure is not None and figure.n == 4
            figures.append(figure.value)
        assert figures[0] > figures[1] > figures[2], (task, metric, figures)
    assert main(["evaluate", "report", str(run), str(worst.path.parent), "--output", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000
