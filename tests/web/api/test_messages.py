"""What a job is doing, in sentences."""

import time
from typing import Any

import pytest

from uso.web.api.messages import job_message
from uso.web.jobs.job import JobStatus, ServerStatus


def soon(seconds: float) -> float:
    """A moment that is `seconds` away; a little more, for the test takes time as well."""
    return time.monotonic() + seconds + 0.3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"pictures_ahead": 2}, "2 pictures are ahead of yours."),
        ({"pictures_ahead": 2, "starts_at": 45}, "2 pictures are ahead of yours, about 45 s."),
        ({"pictures_ahead": 1, "starts_at": 200}, "One picture is ahead of yours, about 3 min."),
        ({"starts_at": 0}, "Your picture is next."),
        (
            {"elsewhere": True},
            "Another server has it: your picture is waiting there. Ask again, or reload the page, to see it finished.",
        ),
        (
            {"state": "running", "elsewhere": True},
            "Another server has it: your picture is being made there. Ask again, or reload the page, to see it "
            "finished.",
        ),
        ({"state": "running", "stage": "condition"}, "Reading the prompt and the images ..."),
        (
            {"state": "running", "stage": "condition", "ends_at": 9},
            "Reading the prompt and the images, about 9 s left",
        ),
        ({"state": "running", "stage": "denoise", "step": 1, "num_steps": 25}, "Step 1 of 25"),
        (
            {"state": "running", "stage": "denoise", "step": 9, "num_steps": 25, "ends_at": 4},
            "Step 9 of 25, about 4 s left",
        ),
        (
            {"state": "running", "stage": "denoise", "step": 9, "num_steps": 25, "ends_at": 250},
            "Step 9 of 25, about 4 min left",
        ),
        ({"state": "running", "stage": "denoise", "step": 25, "num_steps": 25, "ends_at": -9}, "Step 25 of 25"),
        ({"state": "running", "stage": "decode"}, "Decoding the picture ..."),
        ({"state": "cancelled"}, "Stopped."),
        ({"state": "cancelled", "error": "The server is shutting down."}, "Stopped. The server is shutting down."),
        ({"state": "done"}, "Done."),
        (
            {"state": "running", "stage": "denoise", "step": 9, "num_steps": 25, "num_images": 4, "making": 2},
            "Picture 2 of 4. Step 9 of 25",
        ),
        ({"state": "done", "num_images": 2, "pictures": ("one", "two")}, "Done. 2 pictures."),
        (
            {"state": "cancelled", "num_images": 2, "pictures": ("one",)},
            "Stopped. Finished before: 1 of 2 pictures.",
        ),
        (
            {"state": "failed", "error": "No room.", "num_images": 2, "pictures": ("one",)},
            "No room. Finished before: 1 of 2 pictures.",
        ),
    ],
)
def test_a_job_says_where_it_is(values: dict[str, Any], words: str) -> None:
    """Catches a state without words, a forecast that is kept to itself, and a countdown of "0 s"."""
    moments = {name: soon(values[name]) for name in ("starts_at", "ends_at") if values.get(name)}
    status = JobStatus(**{**values, **moments})
    assert job_message(status, ServerStatus(state="ready")) == words


def test_a_waiting_job_says_that_the_model_loads() -> None:
    """Catches a page that looks stuck while the model loads."""
    loading = ServerStatus(state="loading", stage="Loading transformer", share=0.431)
    assert job_message(JobStatus(), loading) == "Waiting for the model (Loading transformer, 43%)."
