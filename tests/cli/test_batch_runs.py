"""Batches run: split over processes, resumed where a killed run stopped, nothing made twice."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.commands import SMALL, Ran, made, refused, requests, save
from tests.support.running import LONG, Forked
from tests.support.scripted import until
from uso.cli.pictures import batch
from uso.config import ROOT
from uso.system.launcher import Process

TOO_LONG = " ".join(["word"] * 200)
"""More tokens than the demo reads: known only once the model is loaded, so this job fails while it runs."""


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


@pytest.mark.slow
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
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name)
    assert run(jobs, "--output", "whole").status == 0
    assert made("whole") == made("split")


def test_left_over_launcher_variables_are_refused(
    run: Callable[..., Ran], nothing_loads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the jobs would be missing, with exit status 0."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    (line,) = refused(run([{"prompt": "a"}, {"prompt": "b"}]))
    assert line.startswith("WORLD_SIZE=2 in the environment: RANK and LOCAL_RANK are not set") and "unset" in line


def test_a_process_takes_its_own_gpu_only_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    process = Process(rank=5, world=8, local_rank=1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert batch.device_of(process, "auto") == "cuda:1"
    assert batch.device_of(process, "cpu") == "cpu"
    assert batch.device_of(Process(rank=0, world=1, local_rank=0), "auto") == "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert batch.device_of(process, "auto") == "auto"


def start(jobs: Path, folder: str, **environment: str) -> Forked:
    flags = ["generate", *SMALL, "--steps", "1", "--batch", str(jobs), "--output", folder]
    log = Path(f"log-{environment.get('RANK', '0')}").absolute()
    return Forked(["uso/__main__.py", *flags], os.environ | environment, log, folder=Path.cwd())


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_pictures(run: Callable[..., Ran]) -> None:
    """SIGKILL leaves no time to clean up: no picture may be torn, lost, doubled or different afterwards."""
    jobs = [{"prompt": str(number), "images": 3} for number in range(8)]
    process = start(save(jobs), "killed")
    until(lambda: len(made_names("killed")) >= 4 or process.poll() is not None, LONG)
    process.kill()
    process.end()
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
    ended = [process.wait(LONG) for process in processes]
    said = [Path(f"log-{rank}").read_text(encoding="utf-8").splitlines() for rank in range(2)]
    for process in processes:
        process.end()
    assert ended == [0, 0], said
    lines = [{line for line in one if line.endswith(".png")} for one in said]
    assert len(lines[0]) == 6 and len(lines[1]) == 4 and not lines[0] & lines[1]
    assert lines[0] | lines[1] == {f"both/{name}" for name in made("both")}
    run(json.loads(jobs.read_text()), "--output", "one")
    assert made("both") == made("one")
