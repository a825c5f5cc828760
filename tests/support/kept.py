"""Jobs and pictures as a server leaves them in its ledger, made without a model."""

from pathlib import Path
from typing import Any

from PIL import Image

from tests.support.scripted import ANN
from uso.config import load_model_config
from uso.request.request import GenerationRequest, GenerationResult
from uso.web.access.identity import Asker
from uso.web.jobs.job import Job, Picture
from uso.web.jobs.saving import save_picture
from uso.web.store.ledger import Ledger


def new_job(asker: Asker = ANN, **values: Any) -> Job:
    return Job(GenerationRequest.create(load_model_config("demo"), seed=5, width=128, height=160, **values), asker)


def made(job: Job, folder: Path) -> tuple[Picture, Image.Image]:
    """A finished picture of a job, its file on the disk."""
    image = Image.new("RGB", (job.request.width, job.request.height), "red")
    result = GenerationResult(
        image=image, request=job.request, model={"name": "script"}, timings={"denoise": 1.5}, peak_memory_gib=None
    )
    return save_picture(job, result, folder), image


def kept(ledger: Ledger, job: Job, folder: Path) -> Picture:
    """Accept a job, make its picture, end it."""
    ledger.accepted(job)
    picture, image = made(job, folder)
    ledger.keep(job, picture, image)
    job.reach(state="done", pictures=(picture,))
    ledger.ended(job)
    return picture
