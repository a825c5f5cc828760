"""How fast a request is, stage by stage, against the plain way: the figures behind `python -m uso bench`.

Runs the real pipeline on random weights of full size (reduced on a CPU) or on real ones, and in the same process
the baseline: diffusers' stock transformer with the LoRA unfolded, image encoder and projector in every step, modulation
in every step, eager. Measures; prints nothing (`uso.bench.measure` does).
"""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from torch import nn

from uso.bench.flops import step_flops
from uso.images import fit_reference
from uso.memory.residency import GIB
from uso.memory.streaming import host_buffer
from uso.pipeline.latents import draw_noise, pack, picture_ids, unpack
from uso.pipeline.pipeline import USOPipeline
from uso.pipeline.schedule import schedule_sigmas
from uso.pipeline.stages import Conditioning
from uso.request import GenerationRequest, GenerationResult, ReferenceImage
from uso.transformer.compile import uncompiled
from uso.weights.layouts import flux_part, lora_target

MODES = {
    "text": (0, 0),
    "content": (1, 0),
    "style": (0, 1),
    "styles": (0, 2),
    "content+style": (1, 1),
    "content+styles": (1, 2),
}
"""Mode -> (content images, style images)."""

LORA_RANK = 128
_RATE_SIDE = {"cuda": 8192, "cpu": 1024, "mps": 4096}
"""Side of the square matrix product that the device's rate is measured with."""

_PRODUCTS = 10
"""Between two looks at the clock."""

_LASTING = 0.5
"""Seconds."""

_LINK_BYTES = 2**28
"""Copied at once to measure the link from page-locked host memory."""

_WATCHED_STEPS = 4
"""Of a run in which the device is waited for around every block."""


@dataclass(frozen=True)
class Request:
    """What a benchmark makes: a mode at a size."""

    mode: str
    height: int
    width: int
    content_size: int
    steps: int
    guidance: float | None

    def at_most(self, steps: int) -> "Request":
        """The same in no more than so many steps."""
        return replace(self, steps=min(self.steps, steps))

    @property
    def contents(self) -> int:
        return MODES[self.mode][0]

    @property
    def styles(self) -> int:
        return MODES[self.mode][1]


@dataclass(frozen=True)
class Inputs:
    """Embeddings that stand in for a prompt, and drawn reference images."""

    prompt_embeds: torch.Tensor
    pooled: torch.Tensor
    content: Image.Image
    """Fitted, whether the mode reads it or not."""
    styles: list[Image.Image]
    whole: GenerationRequest
    """The same as a person would ask for it; the prompt's text is empty."""


def draw_inputs(pipeline: USOPipeline, request: Request) -> Inputs:
    """Deterministic inputs of the pipeline's own sizes."""
    random = torch.Generator().manual_seed(0)
    config = pipeline.transformer.config
    length = pipeline.model_config.max_sequence_length
    pixels = np.random.default_rng(0)

    def image(width: int, height: int) -> Image.Image:
        return Image.fromarray(pixels.integers(0, 256, (height, width, 3), dtype=np.uint8), "RGB")

    dtype = pipeline.transformer.dtype
    content, styles = image(request.width, request.height), [image(384, 384) for _ in range(request.styles)]
    return Inputs(
        prompt_embeds=torch.randn(1, length, config.joint_attention_dim, generator=random).to(dtype),
        pooled=torch.randn(1, config.pooled_projection_dim, generator=random).to(dtype),
        content=fit_reference(content, request.content_size),
        styles=styles,
        whole=GenerationRequest(
            prompt="",
            content_images=(ReferenceImage.from_pil(content),) * request.contents,
            style_images=tuple(map(ReferenceImage.from_pil, styles)),
            width=request.width,
            height=request.height,
            keep_input_size=False,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            content_size=request.content_size,
            seed=0,
            num_images=1,
            schedule="uso",
            tiled_decode=False,
        ),
    )


class Clock:
    """Seconds by stage, the device waited for at both ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = self.now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - began


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
    """T5 and CLIP on token ids; random models have no tokenizers, and the encoders do not care which ids they read."""
    residency, device = pipeline.residency, pipeline.work_device
    residency.enter("text")
    with torch.inference_mode():
        with residency.visit(pipeline.text_encoder):
            pipeline.text_encoder(torch.ones(1, 77, dtype=torch.long, device=device))
        with residency.visit(pipeline.text_encoder_2):
            length = pipeline.model_config.max_sequence_length
            pipeline.text_encoder_2(torch.ones(1, length, dtype=torch.long, device=device))


def run_ours(pipeline: USOPipeline, request: Request, inputs: Inputs) -> Timing:
    """The pipeline's own stages, nothing remembered."""
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
class Repeat:
    """A whole request of which all but the seed was asked for before, in seconds."""

    total: float
    denoise: float
    decode: float

    @property
    def share_outside(self) -> float:
        """Of its time, how much is neither denoising nor decoding."""
        return 1 - (self.denoise + self.decode) / self.total


def run_repeat(pipeline: USOPipeline, inputs: Inputs) -> Repeat:
    """The request through `USOPipeline.stream` with a new seed, after a run of `run_ours` with as many steps."""
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


class UnfoldedLora(nn.Module):
    """A linear with a LoRA beside it, computed at run time: what the baseline pays for."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear
        self.down = nn.Parameter(linear.weight.new_zeros(rank, linear.in_features), requires_grad=False)
        self.up = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank), requires_grad=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.linear(hidden)
        return output + nn.functional.linear(nn.functional.linear(hidden, self.down), self.up)


@contextmanager
def unfolded(transformer: Any, rank: int) -> Iterator[None]:
    """While inside, every layer that USO's LoRA changes carries one of zeros."""
    changed = [
        (transformer.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], module)
        for name, module in list(transformer.named_modules())
        if isinstance(module, nn.Linear) and _has_lora(f"{name}.weight")
    ]
    for owner, leaf, linear in changed:
        owner._modules[leaf] = UnfoldedLora(linear, rank)
    try:
        yield
    finally:
        for owner, leaf, linear in changed:
            owner._modules[leaf] = linear


def _has_lora(name: str) -> bool:
    if not name.startswith(("transformer_blocks.", "single_transformer_blocks.")):
        return False
    part = flux_part(name)
    kind, index, rest = part.source.split(".", 2)
    if rest == "linear1.weight":
        return part.index < 3  # query, key, value
    modules = ("qkv_lora1", "proj_lora1", "qkv_lora2", "proj_lora2") if kind == "double_blocks" else ("proj_lora",)
    return part.source in {lora_target(f"{kind}.{index}.processor.{module}") for module in modules}


def run_baseline(pipeline: USOPipeline, request: Request, inputs: Inputs, rank: int = LORA_RANK) -> Timing:
    """The plain way, on the same weights; all of them must be on the device."""
    device, dtype = pipeline.work_device, pipeline.transformer.dtype
    clock, steps = Clock(device), []
    with clock.stage("text"):
        run_text_encoders(pipeline)
    with clock.stage("reference"):
        latents = [pipeline.encode_reference(inputs.content)] * request.contents
    references = [pack(latent).to(device, dtype) for latent in latents]
    sizes = [(8 * latent.shape[-2], 8 * latent.shape[-1]) for latent in latents]
    ids, reference_ids = picture_ids(request.height, request.width, sizes)
    image_ids = torch.cat([ids, *reference_ids]).to(device)
    tokens = pack(draw_noise(0, request.height, request.width)).to(device)
    sigmas = [*schedule_sigmas("uso", request.steps, request.height, request.width), 0.0]
    guidance = None if request.guidance is None else torch.tensor([request.guidance], device=device)
    embedder = pipeline.context_embedder
    with clock.stage("denoise"), torch.inference_mode(), pipeline.exchanged.stock() as transformer:
        embedder.text_projection, transformer.context_embedder = transformer.context_embedder, nn.Identity()
        with uncompiled(transformer), unfolded(transformer, rank):
            for index in range(request.steps):
                began = clock.now()
                styles = [pipeline.encode_style(style) for style in inputs.styles]
                context = embedder(inputs.prompt_embeds.to(device), styles)
                velocity = transformer(
                    hidden_states=torch.cat([tokens.to(dtype), *references], dim=1),
                    encoder_hidden_states=context,
                    pooled_projections=inputs.pooled.to(device),
                    timestep=torch.tensor([sigmas[index]], device=device),
                    guidance=guidance,
                    img_ids=image_ids,
                    txt_ids=torch.zeros(context.shape[1], 3, device=device),
                    return_dict=False,
                )[0][:, : tokens.shape[1]].float()
                tokens = tokens + (sigmas[index + 1] - sigmas[index]) * velocity
                steps.append(clock.now() - began)
    with clock.stage("decode"):
        pipeline.decode(unpack(tokens, request.height, request.width))
    return Timing(clock.seconds, steps, tokens)


def outside_blocks(pipeline: USOPipeline, request: Request, run: Callable[[Request], Timing]) -> float:
    """Seconds of a step that are not spent in the transformer's blocks, the median over a few steps.

    The device is waited for around every block, so this is a run of its own and not the one that is timed.
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
    """10^12 operations of a step, from shapes."""
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


@dataclass(frozen=True)
class MatmulRate:
    """A device's rate on one large matrix product of random numbers, in TFLOP/s."""

    best: float
    """Of five products, on a device that did nothing before: what its clocks reach for a moment."""
    sustained: float
    """Over half a second, after another half: what power and cooling leave for work that lasts, as denoising does."""

    @classmethod
    def measure(cls, device: torch.device, dtype: torch.dtype) -> "MatmulRate":
        side = _RATE_SIDE.get(device.type, 1024)
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

        def some() -> None:
            for _ in range(_PRODUCTS):
                left @ right

        tflop = 2 * side**3 / 1e12
        best = tflop / _best(device, lambda: left @ right)
        _lasting(device, some)
        return cls(best=best, sustained=_PRODUCTS * tflop / _lasting(device, some))


def link_rate(device: torch.device) -> float:
    """From page-locked host memory to a CUDA device, in 10^9 bytes per second: the best of five copies."""
    source = host_buffer(_LINK_BYTES, device)
    target = torch.empty_like(source, device=device)
    return _LINK_BYTES / _best(device, lambda: target.copy_(source, non_blocking=True)) / 1e9


def _best(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds of a piece of work, the best of five after one to warm up."""
    clock, seconds = Clock(device), []
    for _ in range(6):
        began = clock.now()
        work()
        seconds.append(clock.now() - began)
    return min(seconds)


def _lasting(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds of a piece of work, done over and over for half a second: the mean."""
    clock, times = Clock(device), 0
    began = now = clock.now()
    while now - began < _LASTING:
        work()
        times, now = times + 1, clock.now()
    return (now - began) / times


def device_name(device: torch.device) -> str:
    """What a line of figures calls a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or device.type


def host_peak_gib() -> float:
    """Peak memory of this process, in GiB; what it holds now where the system keeps no peak."""
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024 / GIB
    memory = psutil.Process().memory_info()
    return float(getattr(memory, "peak_wset", memory.rss)) / GIB
