"""The whole program from outside: workers, people with names, a filter, what is logged. Processes of their own."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError, AuthenticationError
from PIL import Image

from tests.support.running import LONG, PERSON, Program, Started, program
from tests.support.scripted import until
from uso import output
from uso.config import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("servers")]

QUICK = {"width": 128, "height": 128, "num_inference_steps": 2}


def client(running: Program, tmp_path: Path, **options: Any) -> Client:
    folder = str(tmp_path / "downloads")
    return Client(
        f"http://127.0.0.1:{running.port}", verbose=False, analytics_enabled=False, download_files=folder, **options
    )


def log_lines(running: Program) -> list[dict[str, Any]]:
    """What the log says of jobs."""
    return [json.loads(line) for line in re.findall(r"uso\.jobs: (\{.*\})", running.log())]


def done(running: Program) -> float:
    """Jobs that are done, as the metrics count them."""
    counted = re.search(rb'uso_jobs_total\{state="done"\} (\S+)', running.ask("/metrics").body)
    return float(counted[1]) if counted else 0.0


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    flags = ("--devices", "cpu,cpu", "--device", "auto", "--rate", "0", "--orphan-grace", "0.3")
    with program(tmp_path_factory.mktemp("workers"), *flags, paced=True) as running:
        running.wait_until("ready")
        until(lambda: b"uso_workers_ready 2.0" in running.ask("/metrics").body)
        yield running


def test_two_workers_make_the_same_pictures_behind_one_line(two_workers: Program, tmp_path: Path) -> None:
    """Catches workers that share state: every picture is the one that a single worker makes, bit for bit."""
    running = two_workers
    before, done_before = len(log_lines(running)), done(running)
    people = [client(running, tmp_path, headers={"X-Forwarded-For": f"198.51.100.{n}"}) for n in range(3)]
    jobs = [
        person.submit(prompt=f"fox {seed}", seed=seed, api_name="/generate", **(QUICK | {"num_inference_steps": 12}))
        for seed in range(2)
        for person in people
    ]
    pictures: dict[int, set[bytes]] = {}
    for job in jobs:
        path, details = job.result(timeout=LONG)
        with Image.open(path) as image:
            pictures.setdefault(details["seed"], set()).add(image.tobytes())
    assert {seed: len(different) for seed, different in pictures.items()} == {0: 1, 1: 1}
    lines = log_lines(running)[before:]
    assert len(lines) == 6 and {line["state"] for line in lines} == {"done"}
    assert done(running) == done_before + 6
    assert "fox" not in running.log().replace("_seed", "")


def test_people_with_names(tmp_path: Path) -> None:
    """Catches a path beside the probes' that needs no login, and a password that is kept in the clear."""
    people = tmp_path / "people"
    subprocess.run(
        [sys.executable, "-m", "uso", "account", str(people), "ann"],
        cwd=ROOT,
        input="correct horse battery\n",
        text=True,
        check=True,
        capture_output=True,
    )
    assert "correct horse" not in people.read_text()
    with program(tmp_path, "--auth", str(people)) as running:
        running.wait_until("ready")
        for path in ("/healthz", "/readyz", "/metrics"):
            assert running.ask(path).status == 200
        for path in ("/config", "/examples/cat.jpg", "/gradio_api/info", "/openapi.json", "/theme.css"):
            assert running.ask(path).status == 401, path
        page = running.ask("/", PERSON)
        assert page.status in (200, 401) and b'type="password"' in page.body
        with pytest.raises(AuthenticationError):
            client(running, tmp_path, auth=("ann", "wrong horse"))
        with pytest.raises((AuthenticationError, ValueError)):
            client(running, tmp_path)
        path, details = client(running, tmp_path, auth=("ann", "correct horse battery")).predict(
            prompt="a fox", api_name="/generate", **QUICK
        )
        assert output.read(path).values()["seed"] == details["seed"]


def test_a_proxy_names_people(tmp_path: Path) -> None:
    """Catches a name that anybody can give themselves, and a server that lets people in without one."""
    named = ("--auth-header", "X-Forwarded-User", "--allowed-hosts", "uso.example.org")
    with program(tmp_path, *named, "--trusted-proxies", "127.0.0.1") as running:
        running.wait_until_built()
        assert running.ask("/config").status == 401
        assert running.ask("/config", {"X-Forwarded-User": "ann"}).status == 200
        assert running.ask("/config", {"X-Forwarded-User": "ann", "Host": "rebound.example"}).status == 403
    with program(tmp_path, *named, "--trusted-proxies", "203.0.113.1") as running:
        running.wait_until_built()
        assert running.ask("/config", {"X-Forwarded-User": "ann"}).status == 401


FILTER = """
def check(prompt, image):
    if image is None:
        return "no foxes here" if "fox" in prompt else None
    return "it came out too small" if "hare" in prompt and image.width < 144 else None
"""


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A server with a filter and limits."""
    folder = tmp_path_factory.mktemp("strict")
    (folder / "house_rules.py").write_text(FILTER)
    flags = ("--safety", "house_rules:check", "--log-prompts", "--rate", "3", "--max-megapixels", "0.1")
    with program(folder, *flags, PYTHONPATH=str(folder)) as running:
        running.wait_until("ready")
        yield running


def test_a_filter_of_ones_own(strict: Program, tmp_path: Path) -> None:
    """Catches a filter that is asked too late, and a blocked picture that is on the disk."""
    running = strict
    pictures, logged = running.pictures(), len(log_lines(running))
    caller = client(running, tmp_path, headers={"X-Forwarded-For": "198.51.100.1"})
    with pytest.raises(AppError, match="Blocked by this server's filter: no foxes here"):
        caller.predict(prompt="a fox", api_name="/generate", **QUICK)
    with pytest.raises(AppError, match="Blocked by this server's filter: it came out too small"):
        caller.predict(prompt="a hare", api_name="/generate", **QUICK)
    assert running.pictures() == pictures
    caller.predict(prompt="a hare", api_name="/generate", **(QUICK | {"width": 144}))
    assert len(running.pictures()) == len(pictures) + 1
    prompts = [line["prompt"] for line in log_lines(running)[logged:]]
    assert prompts == ["a hare", "a hare"]  # asked for by --log-prompts
    assert b'uso_refused_total{reason="Blocked"} 1.0' in running.ask("/metrics").body


def test_limits_are_told_and_held(strict: Program, tmp_path: Path, picture_file: Callable[..., Path]) -> None:
    """Catches flags that do not reach the door, and a request whose images are read before anybody counts it."""
    from gradio_client import handle_file

    caller = client(strict, tmp_path, headers={"X-Forwarded-For": "198.51.100.2"})
    large = handle_file(picture_file("large.png", 400, 300))
    with pytest.raises(AppError, match=r"400 x 300 pixels; at most 0.1 megapixels are accepted"):
        caller.predict(prompt="", style_image=large, api_name="/generate", **QUICK)
    for _ in range(2):
        caller.predict(prompt="", api_name="/generate", **QUICK)
    with pytest.raises(AppError, match="One person may request at most 3 pictures a minute. Try again in"):
        caller.predict(prompt="", api_name="/generate", **QUICK)


def test_a_program_that_has_gone_has_its_job_stopped(two_workers: Program, tmp_path: Path) -> None:
    """Catches a job that is made for nobody, and Gradio not telling when a stream is cut off."""
    running = two_workers
    code = (
        "import sys, time; from gradio_client import Client\n"
        f"client = Client('http://127.0.0.1:{running.port}', verbose=False, analytics_enabled=False)\n"
        "job = client.submit(prompt='a fox', num_inference_steps=20, api_name='/generate')\n"
        "while not job.outputs(): time.sleep(0.05)\n"
        "print(job.outputs()[0][1]['job'], flush=True); time.sleep(600)\n"
    )
    others = [client(running, tmp_path, headers={"X-Forwarded-For": f"198.51.100.{n}"}) for n in range(2)]
    before = [other.submit(prompt="a fox", num_inference_steps=20, api_name="/generate") for other in others]
    until(lambda: all(job.outputs() for job in before))
    gone = Started([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert gone.stdout is not None
    job_id = gone.stdout.readline().decode().strip()
    gone.kill()
    gone.end()
    gone.stdout.close()
    until(lambda: client(running, tmp_path).predict(job=job_id, api_name="/status")[1]["state"] == "cancelled")
    assert {job.result(timeout=LONG)[1]["state"] for job in before} == {"done"}
