"""A batch of tasks through the pipeline's own stages: every picture is the one that a request of its own would give.

What a task brings is encoded picture by picture, as in use; denoising and decoding are batched.
"""

from collections import defaultdict

import numpy as np
import torch
from PIL import Image

from tools.demo.judge.material import Task
from tools.demo.shards.arrays import to_bytes
from tools.demo.world.triplets import Pixels
from uso.images.pixels import fit_reference
from uso.pipeline.latents import draw_noise, unpack
from uso.pipeline.pipeline import USOPipeline
from uso.request.request import GenerationRequest


def draw(pipeline: USOPipeline, tasks: list[Task], request: GenerationRequest, strength: float = 1.0) -> Pixels:
    """The pictures of tasks of one condition: [B, H, W, 3]; those with content images of one size are drawn at once.

    Args:
        request: sizes, steps, guidance and schedule of all of them.
        strength: of their styles; 0 leaves them out.

    Raises:
        RequestError: a prompt is longer than the model reads.
    """
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, task in enumerate(tasks):
        alike[() if task.content is None else task.content.shape].append(place)
    pictures = np.zeros((len(tasks), request.height, request.width, 3), np.uint8)
    for places in alike.values():
        pictures[places] = _draw(pipeline, [tasks[place] for place in places], request, strength)
    return pictures


@torch.inference_mode()
def _draw(pipeline: USOPipeline, tasks: list[Task], request: GenerationRequest, strength: float) -> Pixels:
    pipeline.residency.begin(request)
    encoded = {prompt: pipeline.encode_prompt(prompt) for prompt in dict.fromkeys(task.prompt for task in tasks)}
    styles = [
        torch.cat([pipeline.encode_style(Image.fromarray(picture)) for picture in pictures])
        for pictures in (
            [task.style for task in tasks if task.style is not None],
            [task.style_2 for task in tasks if task.style_2 is not None],
        )
        if pictures and strength
    ]
    contents = [
        pipeline.encode_reference(fit_reference(Image.fromarray(task.content), request.content_size))
        for task in tasks
        if task.content is not None
    ]
    conditioning = pipeline.make_conditioning(
        torch.cat([encoded[task.prompt][0] for task in tasks]),
        torch.cat([encoded[task.prompt][1] for task in tasks]),
        style_tokens=styles,
        style_strengths=[strength] * len(styles),
        reference_latents=[torch.cat(contents)] if contents else [],
        height=request.height,
        width=request.width,
        guidance_scale=request.guidance_scale,
    )
    steps = pipeline.denoise(
        conditioning,
        torch.cat([draw_noise(task.index, request.height, request.width) for task in tasks]),
        num_inference_steps=request.num_inference_steps,
        schedule=request.schedule,
    )
    for step in steps:
        latents = step.latents
    pipeline.remembered.clear()  # modulation tables of these prompts, large and of no use to the next
    return to_bytes(pipeline.decode(unpack(latents, request.height, request.width)))


@torch.inference_mode()
def through_autoencoder(pipeline: USOPipeline, pictures: Pixels) -> Pixels:
    """Pictures [B, H, W, 3], encoded and decoded: the best that the model could make of them."""
    latents = torch.cat([pipeline.encode_reference(Image.fromarray(picture)) for picture in pictures])
    return to_bytes(pipeline.decode(latents))
