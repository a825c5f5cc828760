"""A process that does nothing but save pictures, enter them into the ledger and delete every other one, to be killed in
the middle of it.

It says which picture can be announced at the moment when the server would: saved, and entered; and which is deleted.
All have the same reference image, so whoever deletes one must leave it to the others.
"""

import itertools
from multiprocessing.connection import Connection
from pathlib import Path

from PIL import Image

from uso.config import load_model_config
from uso.request.references import ReferenceImage
from uso.request.request import GenerationRequest, GenerationResult
from uso.web.access.identity import Asker
from uso.web.jobs.job import Job
from uso.web.jobs.saving import save_picture
from uso.web.store.deletion import delete
from uso.web.store.recovery import open_ledger

READY = "ready"
DELETED = "-"
"""Before the id of a job whose picture was deleted."""

OWNER = "browser:one"

MODEL = {"name": "writer", "device": "none"}


def write(pictures: Path, announce: Connection) -> None:
    """Jobs without end: accepted, saved, kept, announced, ended.

    Args:
        pictures: the output folder.
        announce: is told `READY`, then the id of each job whose picture is there.
    """
    config, ledger = load_model_config("demo"), open_ledger(pictures)
    image = Image.effect_mandelbrot((256, 256), (-2, -1.5, 1, 1.5), 40).convert("RGB")
    announce.send(READY)
    style = ReferenceImage.of(image)
    for number in itertools.count():
        request = GenerationRequest.create(config, prompt="a fox", seed=1, style_images=[style])
        job = Job(request, Asker("at:198.51.100.1", OWNER, None))
        ledger.accepted(job)
        result = GenerationResult(
            image=image, request=request, model=MODEL, timings={"denoise": 0.1}, peak_memory_gib=None
        )
        picture = save_picture(job, result, pictures)
        ledger.keep(job, picture, image)
        announce.send(job.id)
        job.reach(state="done", pictures=(picture,))
        ledger.ended(job)
        if number % 2:
            delete(ledger, OWNER, [picture.id])
            announce.send(f"{DELETED}{job.id}")
