"""One request through the pipeline, timed stage by stage and step by step. Measures; prints nothing."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from statistics import median

import torch

from uso.bench.flops import step_flops
from uso.bench.machine import Clock
from uso.bench.request import Inputs, Request
from uso.pipeline.latents import draw_noise, unpack
from uso.pipeline.pipeline import USOPipeline
from uso.pipeline.schedule import schedule_sigmas
from uso.pipeline.stages import Conditioning
from uso.request.request import GenerationResult

_WATCHED_STEPS = 4
"""Steps of a run that is synchronised around every block."""


@dataclass(frozen=True)
class Timing:
    """One run: seconds by stage, and of each step."""

    stages: dict[str, float]
    steps: list[float]
    latents: torch.Tensor

    @property
    def step_median(self) -> float:
        return median(self.steps)

    @property
    def total(self) -> float:
        return sum(self.stages.values())


def run_text_encoders(pipeline: USOPipeline) -> None:
    """T5 and CLIP on arbitrary token ids, since random models have no tokenizers."""
    residency, device = pipeline.residency, pipeline.work_device
    residency.enter("text")
    with torch.inference_mode():
        with residency.visit(pipeline.text_encoder):
            pipeline.text_encoder(torch.ones(1, 77, dtype=torch.long, device=device))
        with residency.visit(pipeline.text_encoder_2):
            length = pipeline.model_config.max_sequence_length
            pipeline.text_encoder_2(torch.ones(1, length, dtype=torch.long, device=device))


def run_ours(pipeline: USOPipeline, request: Request, inputs: Inputs) -> Timing:
    """Run a request through the pipeline's stages, with an empty cache."""
    pipeline.remembered.clear()
    pipeline.residency.begin(inputs.whole)
    clock, steps = Clock(pipeline.work_device), []
    with clock.stage("text"):
        run_text_encoders(pipeline)
    with clock.stage("style"):
        styles = [pipeline.encode_style(style) for style in inputs.styles]
    with clock.stage("reference"):
        references = [pipeline.encode_reference(inputs.content)] * request.contents
    with clock.stage("condition"), torch.inference_mode():
        conditioning = condition(pipeline, request, inputs, styles, references)
        sigmas = torch.tensor(schedule_sigmas("uso", request.steps, request.height, request.width))
        pipeline.modulation_table(conditioning, sigmas)
    noise = draw_noise(0, request.height, request.width)
    with clock.stage("denoise"):
        run = pipeline.denoise(conditioning, noise, num_inference_steps=request.steps, schedule="uso")
        last = clock.now()
        for step in run:
            latents = step.latents
            steps.append(clock.now() - last)
            last = clock.now()
    with clock.stage("decode"):
        pipeline.decode(unpack(latents, request.height, request.width))
    return Timing(clock.seconds, steps, latents)


@dataclass(frozen=True)
class Turns:
    """Steps with this program's eager blocks and with diffusers' own, by turns: seconds, and seconds of all
    processors."""

    ours: list[float]
    theirs: list[float]
    ours_cpu: list[float]
    theirs_cpu: list[float]
    difference: float
    """Of the last latents, ||ours - theirs|| / ||theirs||."""


def run_turns(pipeline: USOPipeline, request: Request, inputs: Inputs) -> Turns:
    """Denoise with both kinds of blocks, one step of each after another, from the same noise. The first step of each,
    which may compute the modulation table, does not count unless it is the only one."""
    pipeline.residency.begin(inputs.whole)
    styles = [pipeline.encode_style(style) for style in inputs.styles]
    references = [pipeline.encode_reference(inputs.content)] * request.contents
    with torch.inference_mode():
        conditioning = condition(pipeline, request, inputs, styles, references)
    noise, clock = draw_noise(0, request.height, request.width), Clock(pipeline.work_device)
    ways = (nullcontext, pipeline.exchanged.own_blocks)
    runs = [pipeline.denoise(conditioning, noise, num_inference_steps=request.steps, schedule="uso") for _ in ways]
    seconds: tuple[list[float], list[float]] = ([], [])
    cpu: tuple[list[float], list[float]] = ([], [])
    latents = [noise, noise]
    for index in range(request.steps):
        for way in (0, 1) if index % 2 else (1, 0):
            with ways[way]():
                began, cpu_began = clock.now(), time.process_time()
                latents[way] = next(runs[way]).latents
                seconds[way].append(clock.now() - began)
                cpu[way].append(time.process_time() - cpu_began)
    if request.steps > 1:
        for values in (*seconds, *cpu):
            del values[0]
    difference = float((latents[0] - latents[1]).norm() / latents[1].norm())
    return Turns(*seconds, *cpu, difference)


@dataclass(frozen=True)
class Repeat:
    """Seconds of a whole request that repeats an earlier one with another seed."""

    total: float
    denoise: float
    decode: float

    @property
    def share_outside(self) -> float:
        """The share of its time that is neither denoising nor decoding."""
        return 1 - (self.denoise + self.decode) / self.total


def run_repeat(pipeline: USOPipeline, inputs: Inputs) -> Repeat:
    """Run the request through `USOPipeline.stream` with a new seed, after `run_ours` with the same steps."""
    pipeline.remember_prompt("", inputs.prompt_embeds, inputs.pooled)
    pipeline.condition(inputs.whole)
    clock = Clock(pipeline.work_device)
    began = clock.now()
    *_, result = pipeline.stream(replace(inputs.whole, seed=1))
    total = clock.now() - began
    assert isinstance(result, GenerationResult)
    return Repeat(total, result.timings["denoise"], result.timings["decode"])


def condition(
    pipeline: USOPipeline,
    request: Request,
    inputs: Inputs,
    styles: list[torch.Tensor],
    references: list[torch.Tensor],
) -> Conditioning:
    return pipeline.make_conditioning(
        inputs.prompt_embeds,
        inputs.pooled,
        style_tokens=styles,
        reference_latents=references,
        height=request.height,
        width=request.width,
        guidance_scale=request.guidance,
    )


def outside_blocks(pipeline: USOPipeline, request: Request, run: Callable[[Request], Timing]) -> float:
    """Seconds of a step spent outside the transformer's blocks: the median over a few steps.

    The device is synchronised around every block, so this is a separate run and not the timed one.
    """
    clock = Clock(pipeline.work_device)
    inside: list[float] = []
    began: list[float] = []
    hooks = []
    transformer = pipeline.transformer
    for block in [*transformer.transformer_blocks, *transformer.single_transformer_blocks]:
        hooks.append(block.register_forward_pre_hook(lambda *_: began.append(clock.now())))
        hooks.append(block.register_forward_hook(lambda *_: inside.append(clock.now() - began.pop())))
    try:
        timing = run(request.at_most(_WATCHED_STEPS))
    finally:
        for hook in hooks:
            hook.remove()
    per_step = len(inside) // len(timing.steps)
    sums = [sum(inside[per_step * step : per_step * (step + 1)]) for step in range(len(timing.steps))]
    return median(total - blocks for total, blocks in zip(timing.steps, sums, strict=True))


def step_tflop(pipeline: USOPipeline, request: Request, inputs: Inputs) -> float:
    """Operations of a step, from shapes, in units of 10^12."""
    embedder = pipeline.context_embedder.config
    reference_tokens = request.contents * inputs.content.width * inputs.content.height // 256
    config = dict(pipeline.transformer.config)
    return (
        step_flops(
            {key: value for key, value in config.items() if not key.startswith("_")},
            picture_tokens=request.height * request.width // 256,
            reference_tokens=reference_tokens,
            context_tokens=pipeline.model_config.max_sequence_length + request.styles * 3 * embedder.style_tokens,
        )
        / 1e12
    )
