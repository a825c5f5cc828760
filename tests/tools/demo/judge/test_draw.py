"""Batches of tasks give the pictures of single requests."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import draw_picture
from tests.support.drawn import needs_font
from tests.support.judging import BY_NAME, OTHER, SAME, SIZE, differing, small_request
from tools.demo.judge.draw import draw, through_autoencoder
from tools.demo.judge.material import Task, draw_task
from tools.demo.world.triplets import Pixels
from uso.pipeline.pipeline import USOPipeline

pytestmark = needs_font


def single(pipeline: USOPipeline, task: Task) -> Pixels:
    """What a person who sends the task as a request gets."""
    output = pipeline(
        task.prompt,
        content_images=[] if task.content is None else [Image.fromarray(task.content)],
        style_images=[Image.fromarray(style) for style in (task.style, task.style_2) if style is not None],
        width=SIZE,
        height=SIZE,
        content_size=SIZE,
        num_inference_steps=4,
        guidance_scale=3.0,
        seed=task.index,
    )
    return np.asarray(output.images[0])


@pytest.mark.parametrize("name", ["seen", "style+prompt", "text", "two-styles"])
def test_a_batch_gives_the_pictures_of_single_requests(pipeline: USOPipeline, name: str) -> None:
    """Catches another seed, schedule, guidance, size or order inside a batch.

    Each part of one task is exchanged for its neighbour's, which must show: else the comparison would see nothing.
    """
    tasks = [draw_task(BY_NAME[name], number, SIZE) for number in range(3)]
    batch = draw(pipeline, tasks, small_request(pipeline))
    assert batch.shape == (3, SIZE, SIZE, 3) and batch.dtype == np.uint8
    for task, picture in zip(tasks, batch, strict=True):
        assert differing(picture, single(pipeline, task)) < SAME
    task, other = tasks[0], tasks[1]
    for part in ("index", "prompt", "content", "style", "style_2"):
        if getattr(task, part) is not None:
            (wrong,) = draw(pipeline, [replace(task, **{part: getattr(other, part)})], small_request(pipeline))
            assert differing(wrong, batch[0]) > OTHER, part


def test_a_model_is_drawn_with_the_steps_that_were_asked_for(pipeline: USOPipeline) -> None:
    """Catches a report that names steps and guidance which no picture saw."""
    tasks = [draw_task(BY_NAME["seen"], 0, SIZE)]
    told, steps, guidance = (
        draw(pipeline, tasks, small_request(pipeline, **values))
        for values in ({}, {"num_inference_steps": 3}, {"guidance_scale": 1.0})
    )
    assert differing(told, steps) > OTHER and differing(told, guidance) > OTHER


def test_autoencoder_alone(pipeline: USOPipeline) -> None:
    """Catches latents that are scaled one way only: encoded and decoded by hand the picture must be the same."""
    pictures = np.stack([np.asarray(draw_picture(SIZE, SIZE, seed)) for seed in range(2)])
    found = through_autoencoder(pipeline, pictures)
    with torch.inference_mode():
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
        by_hand = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mean).sample
        levels = ((by_hand.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    assert differing(found, levels) < SAME
    assert differing(found[::-1], levels) > OTHER
