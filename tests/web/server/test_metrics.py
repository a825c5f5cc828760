"""Numbers and log lines: what they say, and what they must not."""

import json
import logging
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from uso.config import ModelConfig
from uso.request.request import GenerationRequest
from uso.web.access.identity import Asker
from uso.web.jobs.job import Job, ServerStatus
from uso.web.server.metrics import Metrics


def over(config: ModelConfig, state: str, prompt: str = "a secret fox") -> Job:
    request = GenerationRequest.create(config, prompt=prompt, seed=1)
    job = Job(request, Asker("at:203.0.113.7", "browser:ann", None), accepted_at=10.0)
    job.started_at, job.ended_at, job.worker = 11.5, 14.0, 1
    job.timings, job.step_seconds = {"condition": 0.5, "denoise": 1.5}, [0.2, 0.2]
    job.reach(state=state, error="It failed." if state == "failed" else "")
    return job


def samples(telemetry: Metrics) -> dict[tuple[str, str], float]:
    """(name, first label's value) to value, as Prometheus reads the page."""
    found = {}
    for family in text_string_to_metric_families(telemetry.page().decode()):
        for sample in family.samples:
            found[sample.name, next(iter(sample.labels.values()), "")] = sample.value
    return found


def test_numbers_are_counted(demo_config: ModelConfig) -> None:
    """Catches a number that is counted under another name, twice, or not at all."""
    telemetry = Metrics()
    status = ServerStatus(state="ready", share=1.0, workers=2, workers_ready=1, waiting=4, running=1)
    telemetry.watch(lambda: status)
    telemetry.job_over(over(demo_config, "done"))
    telemetry.job_over(over(demo_config, "failed"))
    telemetry.refused("rate")
    found = samples(telemetry)
    assert [found["uso_jobs_total", state] for state in ("done", "failed", "cancelled")] == [1, 1, 0]
    assert found["uso_refused_total", "rate"] == 1
    assert (found["uso_jobs_waiting", ""], found["uso_jobs_running", ""], found["uso_workers_ready", ""]) == (4, 1, 1)
    assert found["uso_job_waited_seconds_sum", ""] == 3.0 and found["uso_job_waited_seconds_count", ""] == 2
    assert found["uso_job_stage_seconds_sum", "denoise"] == 1.5 and found["uso_step_seconds_count", ""] == 4


@pytest.mark.parametrize("prompts", [False, True])
def test_one_line_a_job(demo_config: ModelConfig, caplog: pytest.LogCaptureFixture, prompts: bool) -> None:
    """Catches a log that reveals prompts, addresses, or ids under which pictures can be had."""
    caplog.set_level(logging.INFO, "uso.jobs")
    job = over(demo_config, "failed")
    Metrics(log_prompts=prompts).job_over(job)
    (record,) = caplog.records
    line: dict[str, Any] = json.loads(record.getMessage())
    assert line.pop("prompt", None) == ("a secret fox" if prompts else None)
    accepted, person = line.pop("accepted"), line.pop("person")
    assert abs(accepted - job.accepted_at - (time.time() - time.monotonic())) < 60 and len(person) == 12
    assert (round(line.pop("started") - accepted, 3), round(line.pop("ended") - accepted, 3)) == (1.5, 4.0)
    assert line == {
        "job": job.id[:12],
        "state": "failed",
        "worker": 1,
        "width": 128,
        "height": 128,
        "steps": 8,
        "waited": 1.5,
        "worked": 2.5,
        "condition": 0.5,
        "denoise": 1.5,
        "pictures": 0,
        "error": "It failed.",
    }
    assert "203.0.113.7" not in record.getMessage() and "ann" not in record.getMessage()


def test_a_person_is_told_from_others_within_one_run(demo_config: ModelConfig) -> None:
    """Catches a name in the log by which an address can be looked up, or people be followed from run to run."""
    one, other = over(demo_config, "done"), over(demo_config, "done")
    other.asker = Asker("at:203.0.113.8", None, None)
    first, second = Metrics(), Metrics()
    assert first.line(one)["person"] == first.line(over(demo_config, "failed"))["person"]
    assert len({str(line["person"]) for line in (first.line(one), first.line(other), second.line(one))}) == 3


def test_a_job_without_a_turn_has_no_worker(demo_config: ModelConfig) -> None:
    """Catches a job that left the line and yet seems to have been made."""
    job = over(demo_config, "cancelled")
    job.started_at = job.worker = None
    line = Metrics().line(job)
    assert "worker" not in line and "started" not in line and line["worked"] == 0.0 and line["waited"] == 4.0
