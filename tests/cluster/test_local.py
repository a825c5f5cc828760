"""A real Ray cluster of this machine: the page and a batch on its workers, and what they survive."""

import os
import re
from collections.abc import Iterator
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.support.running import LONG, Program, program
from tests.support.scripted import until
from tools.stress.sender import Sent
from uso import output
from uso.cluster import loading
from uso.cluster.address import Workers
from uso.config import ModelConfig, load_model_config
from uso.errors import ConfigError, MissingWeightsError, RequestError, WorkerLost
from uso.request.request import GenerationRequest, GenerationResult, Progress

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (requirements-ray.txt)"),
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from uso.cluster.cluster import Cluster

    made = Cluster(Workers("", 0, 1), "cpu")
    try:
        made.connect()
        yield made
    finally:
        made.end()


def spec(config: ModelConfig, **options: Any) -> dict[str, Any]:
    return {
        "config": config.model_dump(mode="json"),
        "files": None,
        "options": {"memory": "full"} | options,
        "previews": True,
    }


@pytest.fixture(scope="module")
def remote(cluster: Any) -> Any:
    """A pipeline in a process of its own."""
    return loading.load_remote(cluster, spec(load_model_config("demo")), lambda stage, share: None)


def results(pipeline: Any, request: GenerationRequest) -> list[GenerationResult]:
    with closing(pipeline.stream(request)) as events:
        return [event for event in events if isinstance(event, GenerationResult)]


def test_its_pictures_are_the_local_ones(remote: Any, demo_config: ModelConfig, demo_pipeline: Any, image: Any) -> None:
    """Catches a reference, a seed or a style that changes on its way."""
    request = GenerationRequest.create(
        demo_config,
        "a fox",
        content_images=image,
        style_images=image,
        width=128,
        height=128,
        num_inference_steps=2,
        seed=5,
        num_images=2,
    )
    here, there = results(demo_pipeline, request), results(remote, request)
    assert [result.request for result in here] == [result.request for result in there]
    assert all(np.array_equal(np.asarray(a.image), np.asarray(b.image)) for a, b in zip(here, there, strict=True))
    assert there[0].model["node"] and there[0].model["device"] == here[0].model["device"]


def test_what_a_page_needs_besides_pictures(
    remote: Any, demo_config: ModelConfig, demo_pipeline: Any, image: Any
) -> None:
    """Catches a preview, a saved style or a count of tokens that is another one than the pipeline's own."""
    from uso.request.references import ReferenceImage

    request = GenerationRequest.create(demo_config, "a fox", width=128, height=128, num_inference_steps=3, seed=5)
    with closing(remote.stream(request)) as events:
        step = next(event for event in events if isinstance(event, Progress) and event.stage == "denoise")
        shown = remote.preview(step)
    assert shown is not None and max(shown.size) == 256
    given = [ReferenceImage.from_pil(image)]
    here, there = (one.save_style(given, "ink", strength=0.5, weights=None).data for one in (demo_pipeline, remote))
    assert here == there and remote.projector == demo_pipeline.projector
    count = remote.prompt_counter()
    assert count is not None and count("a fox") == demo_pipeline.prompt_counter()("a fox")
    with pytest.raises(RequestError, match="this model reads 32"):
        remote.check_prompt(" ".join(["word"] * 200))


def test_a_node_without_the_weights_says_so(cluster: Any, remote: Any) -> None:
    """Catches an error that names no machine, where there are many. It has no room beside the other worker: that one is
    lost before, and says so."""
    from uso.cluster.cluster import kill

    kill(remote._door)
    request = GenerationRequest.create(load_model_config("demo"), "a fox", width=128, height=128)
    with pytest.raises(WorkerLost, match="its process or its machine has ended"):
        results(remote, request)
    with pytest.raises(MissingWeightsError, match=f"On {re.escape(os.uname().nodename)}: "):
        loading.load_remote(cluster, spec(load_model_config("flux-dev"), offline=True), lambda stage, share: None)


def test_another_version_on_a_node_is_refused(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches two versions that work together by chance."""
    monkeypatch.setattr(loading, "__version__", "9.9")
    with pytest.raises(ConfigError, match=r"has version 0\.1\.0 of the program, this machine 9\.9\. Install the same"):
        loading.load_remote(cluster, spec(load_model_config("demo")), lambda stage, share: None)
    with pytest.raises(ConfigError, match="The program is not on far"):
        loading._check_version({"missing": "No module named 'uso'", "version": ""}, "far")


# The page


def children(running: Program, name: str) -> list[psutil.Process]:
    """Processes below the page whose command line has this."""
    below = psutil.Process(running.process.pid).children(recursive=True)
    return [one for one in below if one.is_running() and name in " ".join(_command(one))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_page_outlives_its_workers_and_its_head(tmp_path: Path, demo_pipeline: Any) -> None:
    """Catches a page that ends with the head, forgets the job that ran there, or makes another picture the second time;
    and processes that outlive the page."""
    with program(tmp_path, "--workers", "local-ray:1", "--rate", "0", "--orphan-grace", "100") as running:
        running.wait_until("ready")
        sent = Sent(running.port, steps=30, seed=11, prompt="a fox", num_images=2)
        until(lambda: b"uso_jobs_running 1.0" in running.ask("/metrics").body, LONG)
        (head,) = children(running, "uso.cluster.head")
        family = [head, *head.children(recursive=True)]
        for one in reversed(family):
            with suppress(psutil.NoSuchProcess):
                one.kill()
        until(lambda: running.state() == "loading", LONG)
        told = running.ask("/readyz")
        assert (told.status, told.json()["workers"], told.json()["workers_ready"]) == (503, 1, 0)
        running.wait_until("ready")
        assert sent.note()["end"] == "done", running.log()
        until(lambda: running.log().count('"lost": [') == 1, LONG)  # told a moment after its caller
        assert "Traceback" not in running.log()
        again = children(running, "uso.cluster.head")
        family = [*again, *(child for one in again for child in one.children(recursive=True))]
        running.signal()
        until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family), LONG)
    paths = running.pictures()
    saved = [output.read(path) for path in paths]
    assert sorted(one.values()["seed"] for one in saved) == [11, 12] and all(one.model["node"] for one in saved)
    for path, record in zip(paths, saved, strict=True):
        request = GenerationRequest.create(load_model_config("demo"), **record.values())
        with Image.open(path) as picture:
            assert np.array_equal(np.asarray(picture), np.asarray(results(demo_pipeline, request)[0].image))


# Batches


def test_a_batch_on_workers_makes_the_same_pictures(tmp_path: Path) -> None:
    """Catches a picture that is missing, doubled or different, and a second run that makes something again."""
    import json
    import subprocess
    import sys

    from tests.support.commands import SMALL, made
    from uso.cli.main import main
    from uso.config import ROOT

    jobs = tmp_path / "jobs.json"
    jobs.write_text(json.dumps([{"prompt": str(number), "images": 2} for number in range(4)]), encoding="utf-8")

    def flags(folder: str) -> list[str]:
        return ["generate", *SMALL, "--batch", str(jobs), "--output", str(tmp_path / folder), "--device", "cpu"]

    def run(folder: str, *more: str) -> Any:
        command = [sys.executable, "-m", "uso", *flags(folder), *more]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    done = run("cluster", "--workers", "local-ray:2")
    assert done.returncode == 0 and "pictures a minute on 2 workers" in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1] == "Pictures made: 8, there already: 0; jobs failed: 0."
    assert sorted(done.stdout.splitlines()) == [str(tmp_path / "cluster" / name) for name in made(tmp_path / "cluster")]
    next((tmp_path / "cluster").glob("0002*.png")).unlink()
    again = run("cluster", "--workers", "local-ray:1")
    assert again.stderr.splitlines()[-1] == "Pictures made: 1, there already: 7; jobs failed: 0."
    assert main(flags("here")) == 0 and made(tmp_path / "cluster") == made(tmp_path / "here")
