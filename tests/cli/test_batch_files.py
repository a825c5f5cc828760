"""Batch files: verified as a whole, split over processes, resumed where a killed run stopped, nothing made twice."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from uso import output
from uso.cli import batch
from uso.cli.main import main
from uso.config import ROOT

SMALL = ("--model", "demo", "--width", "128", "--height", "128", "--steps", "1", "--content-size", "64")
TOO_LONG = " ".join(["word"] * 200)
"""More tokens than the demo reads: known only once the model is loaded, so this job fails while it runs."""


class Ran(NamedTuple):
    status: int
    out: list[str]
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """`run(jobs, *flags)` writes `jobs/jobs.json` in an empty folder and runs it from there."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    Path("jobs").mkdir()

    def generate(jobs: Any, *flags: object) -> Ran:
        Path("jobs/jobs.json").write_text(jobs if isinstance(jobs, str) else json.dumps(jobs), encoding="utf-8")
        capsys.readouterr()
        status = main(["generate", *SMALL, "--batch", "jobs/jobs.json", *map(str, flags)])
        captured = capsys.readouterr()
        return Ran(status, captured.out.splitlines(), captured.err)

    return generate


@pytest.fixture
def draw(run: Any, picture: Callable[..., Image.Image]) -> Callable[..., str]:
    """Draw `jobs/NAME`; returns the name."""

    def draw(name: str, width: int = 100, height: int = 80, seed: int = 0) -> str:
        picture(width, height, seed).save(Path("jobs") / name)
        return name

    return draw


@pytest.fixture
def nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "load", lambda *_: pytest.fail("the model was loaded"))


def made(folder: str | Path = "outputs") -> dict[str, bytes]:
    """Name and pixels of every picture in a folder."""
    pictures = {}
    for path in sorted(Path(folder).glob("*.png")):
        with Image.open(path) as image:
            pictures[path.name] = image.tobytes()
    return pictures


def requests(folder: str | Path = "outputs") -> list[dict[str, Any]]:
    return [output.read(path).record["request"] for path in sorted(Path(folder).glob("*.png"))]


def names(entries: list[dict[str, str]]) -> list[str]:
    return [entry["name"] for entry in entries]


# What a file says.


def test_image_paths_are_content_then_styles(run: Callable[..., Ran], draw: Callable[..., str]) -> None:
    """Taken as styles, the first image would be lost as the subject, and all pictures be wrong."""
    a, b, c = (draw(f"{name}.png", seed=seed) for seed, name in enumerate("abc"))
    paths: list[Any] = [[a], [a, b], [a, b, c], ["", b], ["", b, c], [""], [], None]
    ran = run([{"prompt": str(number), "image_paths": path} for number, path in enumerate(paths)] + [{"prompt": "x"}])
    assert ran.status == 0 and len(ran.out) == 9
    got = [(names(request["content_images"]), names(request["style_images"])) for request in requests()]
    empty: tuple[list[str], list[str]] = ([], [])
    assert got == [([a], []), ([a], [b]), ([a], [b, c]), ([], [b]), ([], [b, c]), empty, empty, empty, empty]


def test_every_field_of_a_request_may_be_given(run: Callable[..., Ran], draw: Callable[..., str]) -> None:
    job = {
        "prompt": "狐狸",
        "width": 144,
        "height": 160,
        "steps": 2,
        "guidance": 1.5,
        "content_size": 80,
        "seed": 5,
        "images": 2,
        "schedule": "flux",
        "tiled_decode": True,
    }
    kept = {"prompt": "", "image_paths": [draw("wide.png", 160, 130)], "keep_size": True, "seed": None, "steps": None}
    assert run([job, kept]).status == 0
    first, second, third = requests()
    expected: dict[str, Any] = {
        "width": 144,
        "height": 160,
        "num_inference_steps": 2,
        "guidance_scale": 1.5,
        "content_size": 80,
    }
    expected |= {"prompt": "狐狸", "schedule": "flux", "tiled_decode": True}
    assert expected.items() <= first.items() and expected.items() <= second.items()
    assert (first["seed"], second["seed"]) == (5, 6)
    assert (third["width"], third["height"], third["keep_input_size"], third["num_inference_steps"]) == (
        160,
        128,
        True,
        1,
    )


def test_flags_give_what_a_job_leaves_out(run: Callable[..., Ran], draw: Callable[..., str]) -> None:
    jobs = [{"prompt": "a"}, {"prompt": "b", "seed": 3, "guidance": 2}]
    assert run(jobs, "--seed", 1, "--guidance", 3, "--output", "one").status == 0
    assert [(request["seed"], request["guidance_scale"]) for request in requests("one")] == [(1, 3.0), (3, 2.0)]
    content = draw("a.png", 160, 130)
    jobs = [{"prompt": "", "image_paths": [content]}, {"prompt": "", "image_paths": [content], "width": 144}]
    main(["generate", "--model", "demo", "--steps", "1", "--keep-size", "--output", "two", "--batch", str(save(jobs))])
    assert [(request["width"], request["keep_input_size"]) for request in requests("two")] == [
        (160, True),
        (144, False),
    ]


def save(jobs: Any) -> Path:
    Path("jobs/jobs.json").write_text(json.dumps(jobs))
    return Path("jobs/jobs.json")


def test_paths_start_at_the_file(run: Callable[..., Ran], draw: Callable[..., str], tmp_path: Path) -> None:
    """Started at the current folder, the same file would work from one folder only."""
    Path("jobs/in").mkdir()
    name = draw("in/a.png")
    jobs = [
        {"prompt": "0", "image_paths": [draw("~cat.png")], "save_dir": "~cats"},
        {"prompt": "1", "image_paths": [name], "save_dir": "near"},
        {"prompt": "2", "image_paths": [str(tmp_path / "jobs" / name)], "save_dir": str(tmp_path / "far")},
        {"prompt": "3"},
    ]
    assert run(jobs, "--output", "here").status == 0
    assert [len(made(folder)) for folder in ("jobs/~cats", "jobs/near", "far", "here")] == [1, 1, 1, 1]


# Refusals.


def refused(ran: Ran) -> list[str]:
    assert (ran.status, ran.out) == (2, [])
    return ran.err.splitlines()


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        ("a fox", 'A job is {"prompt": "...", "image_paths": [...]}, not "a fox".'),
        ({}, 'It has no "prompt". An empty one ("") keeps the layout of its content image.'),
        ({"prompt": None}, 'It has no "prompt".'),
        ({"prompt": 7}, "The prompt must be text, not int."),
        (
            {"prompt": "", "promt": "typo"},
            "There is no 'promt'. The keys of a job are: prompt, image_paths, save_dir, width",
        ),
        ({"prompt": "", "image_paths": "a.png"}, '"image_paths" is a list of paths: the content image (or ""), then'),
        ({"prompt": "", "image_paths": [None, "a.png"]}, '"image_paths" is a list of paths'),
        ({"prompt": "", "image_paths": ["", ""]}, 'Only the first of "image_paths" may be ""'),
        ({"prompt": "", "image_paths": ["nowhere.png"]}, "nowhere.png could not be read (No such file or directory)."),
        ({"prompt": "", "image_paths": ["", "jobs.json"]}, "jobs.json is not a picture this program can read"),
        ({"prompt": "", "image_paths": ["a\0b"]}, "could not be read"),
        ({"prompt": "", "image_paths": ["pole.png"]}, "pole.png is too long and thin: 20 x 300 becomes 4 x 64"),
        ({"prompt": "", "keep_size": True}, "Keep input size needs a content image."),
        ({"prompt": "", "keep_size": "false"}, "Keep input size is 'false'; true or false is allowed."),
        (
            {"prompt": "", "image_paths": ["pole.png"], "keep_size": True, "width": 128},
            '"keep_size" takes the size from the content image: leave out "width" and "height".',
        ),
        ({"prompt": "", "width": 100}, "Width is 100; a whole number from 128 to 384 is allowed."),
        ({"prompt": "", "seed": "7"}, "Seed is '7'; 0 to 4294967295 is allowed"),
        ({"prompt": "", "seed": 10**400}, "0 to 4294967295 is allowed"),
        ({"prompt": "", "images": 0}, "Number of images is 0; a whole number from 1 to 64 is allowed."),
        ({"prompt": "", "save_dir": 7}, '"save_dir" is 7; a folder is needed.'),
        ({"prompt": "", "save_dir": "jobs.json"}, "Pictures cannot be written to jobs/jobs.json (File exists)."),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, dict) else "",
)
def test_a_bad_job_is_named_by_its_number_before_anything_starts(
    run: Callable[..., Ran], draw: Callable[..., str], nothing_loads: None, job: Any, sentence: str
) -> None:
    draw("pole.png", 20, 300)
    lines = refused(run([{"prompt": "good"}, job]))
    assert lines[0] == "jobs/jobs.json: 1 of 2 jobs refused, nothing was started."
    assert lines[1].startswith("Job 2: ") and sentence in lines[1] and len(lines) == 2


def test_all_bad_jobs_are_named_at_once(run: Callable[..., Ran], nothing_loads: None) -> None:
    """One per attempt would cost as many attempts as there are mistakes."""
    jobs = [{"prompt": "", "steps": steps} for steps in (1, 0, 2, 51, 3, 99)]
    lines = refused(run(jobs))
    assert lines[0] == "jobs/jobs.json: 3 of 6 jobs refused, nothing was started."
    assert [line.split(":")[0] for line in lines[1:]] == ["Job 2", "Job 4", "Job 6"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[{]", "The batch file jobs/jobs.json is not JSON: Expecting property name"),
        ("", "The batch file jobs/jobs.json is not JSON: "),
        ("[" * 100_000, "The batch file jobs/jobs.json is not JSON: "),
        ("[]", "The batch file jobs/jobs.json must hold a list of one or more jobs"),
        ('{"prompt": "a"}', "The batch file jobs/jobs.json must hold a list of one or more jobs"),
    ],
    ids=["broken", "empty", "deep", "no jobs", "no list"],
)
def test_files_that_are_no_batch(run: Callable[..., Ran], nothing_loads: None, text: str, sentence: str) -> None:
    (line,) = refused(run(text))
    assert line.startswith(sentence)


def test_a_file_from_windows_is_read(run: Callable[..., Ran]) -> None:
    """Editors there put a byte order mark at the beginning."""
    assert run('\ufeff[{"prompt": "a"}]').status == 0


@pytest.mark.parametrize("flag", ["--prompt", "--content", "--style"])
def test_flags_that_every_job_has_itself_are_refused(run: Callable[..., Ran], nothing_loads: None, flag: str) -> None:
    (line,) = refused(run([{"prompt": "a"}], flag, "x"))
    assert line == f"{flag} cannot go with --batch: every job of the file has its own."


def test_one_output_file_is_refused(run: Callable[..., Ran], nothing_loads: None) -> None:
    (line,) = refused(run([{"prompt": "a"}], "--output", "a.png"))
    assert line.startswith("--output a.png names one file, which cannot hold several pictures.")


# Running and resuming.


def test_every_picture_has_its_own_name_and_the_summary_counts(run: Callable[..., Ran]) -> None:
    ran = run([{"prompt": "a", "images": 2}, {"prompt": "b", "seed": 7}])
    assert ran.status == 0
    assert sorted(ran.out) == [f"outputs/{name}" for name in made()]
    pattern = r"0001_[0-9a-f]{12}_seed\d+\.png 0001_[0-9a-f]{12}_seed\d+\.png 0002_[0-9a-f]{12}_seed7\.png"
    assert re.fullmatch(pattern, " ".join(made()))
    assert ran.err == "Pictures made: 3, there already: 0; jobs failed: 0.\n"


def test_a_second_run_makes_nothing_and_loads_nothing(run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    """Random seeds would make all unseeded pictures again under new names."""
    jobs = [{"prompt": "a", "images": 2}, {"prompt": "b", "seed": 7}, {"prompt": "c", "seed": -1}]
    run(jobs)
    before = made()
    monkeypatch.setattr(batch, "load", lambda *_: pytest.fail("the model was loaded"))
    ran = run(jobs)
    assert (ran.status, ran.out, made()) == (0, [], before)
    assert ran.err == "Pictures made: 0, there already: 4; jobs failed: 0.\n"


def test_only_what_is_missing_is_made_again_and_it_is_the_same(run: Callable[..., Ran]) -> None:
    """A job of several pictures that stopped in the middle goes on with the seeds that are missing."""
    jobs = [{"prompt": "a", "images": 5}, {"prompt": "b"}]
    run(jobs)
    before = made()
    gone = [sorted(before)[number] for number in (0, 2, 3)]
    for name in gone:
        (Path("outputs") / name).unlink()
    ran = run(jobs)
    assert sorted(ran.out) == [f"outputs/{name}" for name in gone]
    assert ran.err == "Pictures made: 3, there already: 3; jobs failed: 0.\n"
    assert made() == before


def test_asking_for_more_pictures_goes_on_with_the_next_seeds(run: Callable[..., Ran]) -> None:
    run([{"prompt": "a", "images": 1}])
    before = made()
    ran = run([{"prompt": "a", "images": 3}])
    assert len(ran.out) == 2 and before.items() < made().items()


def test_several_pictures_of_a_job_are_those_of_single_jobs(run: Callable[..., Ran], draw: Callable[..., str]) -> None:
    paths = [draw("a.png"), draw("b.png", seed=1)]
    run([{"prompt": "fox", "image_paths": paths, "seed": 30, "images": 2, "save_dir": "several"}])
    run([{"prompt": "fox", "image_paths": paths, "seed": seed, "save_dir": "single"} for seed in (30, 31)])
    assert list(made("jobs/several").values()) == list(made("jobs/single").values())


def test_equal_jobs_without_seed_get_different_ones(run: Callable[..., Ran]) -> None:
    """Whoever writes a job three times wants three pictures."""
    run([{"prompt": "a"}] * 3 + [{"prompt": "a", "seed": 1}] * 2)
    assert len({request["seed"] for request in requests()}) == 4
    assert len(made()) == 5


def test_seeds_do_not_depend_on_the_place_in_the_file(run: Callable[..., Ran]) -> None:
    run([{"prompt": "a"}, {"prompt": "b"}], "--output", "one")
    run([{"prompt": "b"}, {"prompt": "a"}], "--output", "two")
    seeds = [{request["prompt"]: request["seed"] for request in requests(folder)} for folder in ("one", "two")]
    assert seeds[0] == seeds[1]


def test_other_images_or_another_model_are_other_pictures(run: Callable[..., Ran], draw: Callable[..., str]) -> None:
    """A name that did not depend on them would let yesterday's pictures pass for today's."""
    jobs = [{"prompt": "a", "image_paths": [draw("a.png", seed=1)], "seed": 1}]
    assert len(run(jobs).out) == 1
    draw("a.png", seed=2)
    assert len(run(jobs).out) == 1
    assert len(run(jobs, "--lora-scale", 0.5).out) == 1
    assert len(run(jobs, "--dtype", "bfloat16").out) == 1
    shutil.copy(ROOT / "configs/models/demo.yaml", "other.yaml")
    assert len(run(jobs, "--model", "other.yaml").out) == 1
    assert len(run(jobs).out) == 0 and len(made()) == 5


def test_an_image_as_content_and_as_style_are_other_pictures(run: Callable[..., Ran], draw: Callable[..., str]) -> None:
    name = draw("a.png")
    run([{"prompt": "a", "image_paths": [name], "seed": 1}, {"prompt": "a", "image_paths": ["", name], "seed": 1}])
    content, style = made()
    assert content[4:] != style[4:]  # behind the number


def test_prompts_that_are_too_long_are_refused_before_any_job_runs(run: Callable[..., Ran]) -> None:
    """Catches a batch of hours in which job 2 fails: how long a prompt is, the model knows at its start."""
    lines = refused(run([{"prompt": "a"}, {"prompt": TOO_LONG}, {"prompt": "c"}, {"prompt": TOO_LONG}]))
    assert lines[0] == "jobs/jobs.json: 2 of 4 jobs refused, nothing was started."
    assert all(
        re.fullmatch(rf"Job {number}: The prompt has \d+ tokens; this model reads 32\. Shorten it\.", line)
        for number, line in zip((2, 4), lines[1:], strict=True)
    )
    assert not made()


def test_an_image_that_changes_while_the_batch_runs_fails_its_job(
    run: Callable[..., Ran], draw: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its picture would carry the name of the old one and count as done for ever."""
    name = draw("a.png", seed=1)
    load = batch.load

    def load_and_change(*arguments: Any) -> Any:
        draw(name, seed=2)
        return load(*arguments)

    monkeypatch.setattr(batch, "load", load_and_change)
    ran = run([{"prompt": "a", "image_paths": [name]}, {"prompt": "b"}])
    assert ran.status == 1 and len(made()) == 1
    first, last = ran.err.splitlines()
    assert first == "Job 1 failed: Its images have changed since the batch was verified. Start the batch again."
    assert last == "Pictures made: 1, there already: 0; jobs failed: 1."


def test_jobs_hold_no_images(
    run: Callable[..., Ran], draw: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand jobs with their images in memory would take what the model needs."""
    jobs: list[batch.Job] = []
    read = batch.read_jobs

    def read_and_keep(*arguments: Any) -> list[batch.Job]:
        jobs.extend(read(*arguments))
        return jobs

    monkeypatch.setattr(batch, "read_jobs", read_and_keep)
    run([{"prompt": "a", "image_paths": [draw("a.png"), draw("b.png")]}])
    assert len(repr(jobs)) < 2000
    assert not any(isinstance(value, bytes | Image.Image) for value in vars(jobs[0]).values())


# Several processes.


def test_processes_split_the_jobs(run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [{"prompt": str(number)} for number in range(5)]
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        ran = run(jobs, "--output", "split")
        assert ran.err.startswith(f"Process {rank} of 2. Pictures made: {3 - rank}, there already: 0;")
        shares.append({Path(line).name[:4] for line in ran.out})
    assert shares == [{"0001", "0003", "0005"}, {"0002", "0004"}]
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    assert run(jobs, "--output", "whole").status == 0
    assert made("whole") == made("split")


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("0", "0"), ("-1", "2"), ("one", "2")])
def test_senseless_ranks_are_refused(
    run: Callable[..., Ran], nothing_loads: None, monkeypatch: pytest.MonkeyPatch, rank: str, world: str
) -> None:
    """Jobs that no process takes would be missing without a word."""
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    (line,) = refused(run([{"prompt": "a"}]))
    assert f"RANK={rank}, WORLD_SIZE={world}, LOCAL_RANK=0 do not say which process this is." in line


def test_a_process_takes_its_own_gpu_only_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    process = batch.Process(rank=5, world=8, local_rank=1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert process.device("auto") == "cuda:1"
    assert process.device("cpu") == "cpu"
    assert batch.Process(rank=0, world=1, local_rank=0).device("auto") == "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert process.device("auto") == "auto"


def start(jobs: Path, folder: str, **environment: str) -> subprocess.Popen[str]:
    import torch

    # The same number of threads as in this process: sums of another order differ in the last bits.
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads()), **environment}
    command = [sys.executable, "-m", "uso", "generate", *SMALL, "--batch", str(jobs), "--output", folder]
    return subprocess.Popen(
        command, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_pictures(run: Callable[..., Ran]) -> None:
    """SIGKILL leaves no time to clean up: no picture may be torn, lost, doubled or different afterwards."""
    jobs = [{"prompt": str(number), "images": 3} for number in range(8)]
    process = start(save(jobs), "killed")
    deadline = time.monotonic() + 120
    while len(made_names("killed")) < 4 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    found = made("killed")  # opens them all: none is torn
    assert 4 <= len(found) < 24
    ran = run(jobs, "--output", "killed")
    assert ran.err == f"Pictures made: {24 - len(found)}, there already: {len(found)}; jobs failed: 0.\n"
    run(jobs, "--output", "uninterrupted")
    assert made("killed") == made("uninterrupted")
    assert len(made("killed")) == 24


def made_names(folder: str) -> list[str]:
    return [path.name for path in Path(folder).glob("*.png")]


@pytest.mark.slow
def test_two_processes_at_once_make_every_picture_once(run: Callable[..., Ran]) -> None:
    jobs = save([{"prompt": str(number), "images": 2} for number in range(5)])
    processes = [start(jobs, "both", RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank)) for rank in range(2)]
    results = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    lines = [set(out.splitlines()) for out, _ in results]
    assert len(lines[0]) == 6 and len(lines[1]) == 4 and not lines[0] & lines[1]
    assert lines[0] | lines[1] == {f"both/{name}" for name in made("both")}
    run(json.loads(jobs.read_text()), "--output", "one")
    assert made("both") == made("one")
