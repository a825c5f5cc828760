"""What operators can watch: metrics for Prometheus, and one structured log line for each job.

Prompts are left out, unless the server was started with `--log-prompts`.
"""

import hmac
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from uso.web.jobs.job import Job, ServerStatus

logger = logging.getLogger("uso.jobs")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
STEP_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10)


class Metrics(Collector):
    """One per server, with a registry of its own."""

    def __init__(self, log_prompts: bool = False) -> None:
        self._log_prompts = log_prompts
        self._key = secrets.token_bytes(32)
        self._epoch = time.time() - time.monotonic()
        self._status: Callable[[], ServerStatus] = ServerStatus
        self.registry = CollectorRegistry()
        self._jobs = Counter("uso_jobs", "Jobs that are over, by how they ended", ["state"], registry=self.registry)
        self._refused = Counter("uso_refused", "Requests not taken, by reason", ["reason"], registry=self.registry)
        self._waited = Histogram(
            "uso_job_waited_seconds", "From accepted to begun", buckets=SECONDS, registry=self.registry
        )
        self._stages = Histogram(
            "uso_job_stage_seconds", "Of finished jobs, by stage", ["stage"], buckets=SECONDS, registry=self.registry
        )
        self._steps = Histogram("uso_step_seconds", "Of a denoising step", buckets=STEP_SECONDS, registry=self.registry)
        for state in ("done", "cancelled", "failed"):
            self._jobs.labels(state)
        self.registry.register(self)

    def watch(self, status: Callable[[], ServerStatus]) -> None:
        """Take the server's status from here at each scrape."""
        self._status = status

    def refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def job_over(self, job: Job) -> None:
        """Count a job that is over, and log its line."""
        self._jobs.labels(job.status.state).inc()
        if job.started_at is not None:
            self._waited.observe(job.started_at - job.accepted_at)
        if job.status.state == "done":
            for stage, seconds in job.timings.items():
                self._stages.labels(stage).observe(seconds)
        for seconds in job.step_seconds:
            self._steps.observe(seconds)
        logger.info("%s", json.dumps(self.line(job), ensure_ascii=False))

    def line(self, job: Job) -> dict[str, object]:
        """The job's line in the log: no addresses, and no prompt unless prompts are logged.

        Timings are in seconds, moments in seconds since 1970, sizes in pixels. `person` distinguishes people as long
        as the process lives, and tells nothing else of them. `worker` and `started` are there if the job was started,
        and `lost` if workers were lost that had it before.
        """
        request, status = job.request, job.status
        ended = job.ended_at or job.accepted_at
        started = None if job.started_at is None else {"worker": job.worker, "started": self._moment(job.started_at)}
        lost = [
            {"worker": turn.worker, "started": self._moment(turn.started), "ended": self._moment(turn.ended)}
            for turn in job.lost
        ]
        line: dict[str, object] = {
            "job": job.name,
            "state": status.state,
            "person": hmac.digest(self._key, job.person.encode(), "sha256").hex()[:12],
            "accepted": self._moment(job.accepted_at),
            **(started or {}),
            **({"lost": lost} if lost else {}),
            "ended": self._moment(ended),
            "width": request.width,
            "height": request.height,
            "steps": request.num_inference_steps,
            "waited": round((job.started_at or ended) - job.accepted_at, 3),
            "worked": round(ended - job.started_at, 3) if job.started_at else 0.0,
            **{stage: round(seconds, 3) for stage, seconds in job.timings.items()},
            "pictures": len(status.pictures),
        }
        if status.error:
            line["error"] = status.error
        if self._log_prompts:
            line["prompt"] = request.prompt
        return line

    def _moment(self, monotonic: float) -> float:
        return round(self._epoch + monotonic, 6)

    def collect(self) -> Iterator[Metric]:
        """The server's status at this moment; Prometheus' client calls this."""
        status = self._status()
        for name, text, value in (
            ("uso_ready", "1 if the model is loaded", float(status.state == "ready")),
            ("uso_loaded_share", "Of the model's loading, 0 to 1", status.share),
            ("uso_workers_ready", "Workers with a loaded model", status.workers_ready),
            ("uso_jobs_waiting", "Jobs in line", status.waiting),
            ("uso_jobs_running", "Jobs in the making", status.running),
        ):
            yield GaugeMetricFamily(name, text, value=value)

    def page(self) -> bytes:
        """What `/metrics` answers."""
        return generate_latest(self.registry)
