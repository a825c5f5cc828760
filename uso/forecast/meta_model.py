"""A model's pipeline on the meta device, where tensors have shapes but no values: the memory of a request, by tracing.

Weights are counted. Everything else that is alive at each stage is found by running the pipeline's own code under
`uso.forecast.live_memory`. No weights are read, no network is used, nothing is computed. `uso.memory.plan` says how a
plan divides the device.

Scratch memory inside kernels is not counted. For the autoencoder, in float32 without TF32, this assumes that cuDNN's
workspace fits between a convolution's own memory and the peak: 0.25 GiB at the largest convolution of a 1024 x 1024
decode, 0.5 GiB at the others of that size. cuBLAS's share is in `uso.memory.plan.RESERVE`.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from PIL import Image
from torch import nn

from uso.config import ModelConfig, load_memory_plan
from uso.forecast.empty_model import empty_pipeline
from uso.forecast.live_memory import GPU_KERNELS, LiveMemory
from uso.images.pixels import TOKEN_SIZE, fitted_size
from uso.memory.plan import Activations, Weights
from uso.memory.residency import Residency
from uso.memory.sizes import weights_of
from uso.pipeline.cache import TensorCache, Tensors
from uso.pipeline.encoders import CLIP_LENGTH
from uso.pipeline.latents import CELL, LATENT_CHANNELS, pack, unpack
from uso.pipeline.pipeline import USOPipeline
from uso.pipeline.stages import Conditioning
from uso.request.checks import MAX_STYLE_STRENGTH
from uso.request.request import GenerationRequest, ReferenceImage
from uso.transformer.context_embedder import STYLE_LAYERS

META = torch.device("meta")

TRACED_BLOCKS = 2
"""How many of the repeated parts (blocks, modulation layers) are run. The peak is inside one, and all after the second
start from the same state."""

REMEMBERED_SHAPES = 256


@dataclass(frozen=True, kw_only=True)
class RequestShape:
    """Everything that a request's memory depends on; sizes are (H, W) in pixels."""

    height: int
    width: int
    content_sizes: tuple[tuple[int, int], ...] = ()
    """Fitted sizes of the content references."""
    num_styles: int = 0
    """Images of all styles, without those of strength 0."""
    weighted: bool = False
    """Whether a style has another strength than 1, so that attention reads a bias."""
    num_inference_steps: int
    tiled: bool = False

    @classmethod
    def of(cls, request: GenerationRequest) -> "RequestShape":
        return cls(
            height=request.height,
            width=request.width,
            content_sizes=tuple(_fitted(content, request.content_size) for content in request.content_images),
            num_styles=len(request.strengths),
            weighted=any(strength != 1 for strength in request.strengths),
            num_inference_steps=request.num_inference_steps,
            tiled=request.tiled_decode,
        )

    @classmethod
    def worst(cls, config: ModelConfig) -> "RequestShape":
        """The largest request within a model's limits: largest squares, one content, two styles, most steps."""
        side, content_side = config.limits.max_size, config.limits.max_content_size // TOKEN_SIZE * TOKEN_SIZE
        return cls(
            height=side,
            width=side,
            content_sizes=((content_side, content_side),),
            num_styles=2,
            weighted=True,
            num_inference_steps=config.limits.max_steps,
        )


def _fitted(content: ReferenceImage, long_side: int) -> tuple[int, int]:
    """(H, W) of the result of `fit_reference`, without computing it."""
    size = content.image.size
    width, height = size if size == (TOKEN_SIZE, TOKEN_SIZE) else fitted_size(*size, long_side)[1]
    return height, width


class _Forgetful(TensorCache):
    """A cache that keeps nothing, so that everything runs each time."""

    def __init__(self) -> None:
        super().__init__(limit=0)

    def get(self, key: Hashable, device: torch.device, compute: Callable[[], Tensors]) -> Tensors:
        return compute()


class MetaModel:
    """A model's pipeline on the meta device; make it with `from_config`."""

    def __init__(self, pipeline: USOPipeline) -> None:
        self.pipeline = pipeline
        pipeline.residency = Residency(load_memory_plan("full"), META)
        pipeline.remembered = _Forgetful()
        self._weights = weights_of(pipeline)
        self.parameters = list(_parameters(pipeline))
        self._traced = lru_cache(REMEMBERED_SHAPES)(self._trace)
        self._stages: dict[Hashable, tuple[list[tuple[torch.Size, torch.dtype]], int]] = {}

    @classmethod
    def from_config(
        cls, config: ModelConfig, dtype: torch.dtype, changes: dict[str, dict[str, Any]] | None = None
    ) -> "MetaModel":
        """The modules that `load_pipeline` would load, from their shipped configs.

        Args:
            dtype: of the transformer and the encoders; the autoencoder is float32.
            changes: see `empty_pipeline`.

        Raises:
            ConfigError: a component's config cannot be read.
        """

        pipeline = empty_pipeline(config, dtype, changes)
        with pipeline.exchanged.stock():
            for module in pipeline.components.values():
                if isinstance(module, nn.Module):
                    module.to(META)  # buffers too
        return cls(pipeline)

    def weights(self) -> Weights:
        return self._weights

    def activations(self, shape: RequestShape) -> Activations:
        """Peak bytes of everything but weights, by stage; cached by shape.

        Stages that do not depend on the picture's size are run for the first picture only.
        """
        return self._traced(shape)

    @torch.inference_mode()
    def _trace(self, shape: RequestShape) -> Activations:
        """Run a request as `USOPipeline.stream` does, without tokenizers, repeated blocks and repeated steps."""
        with self._shortened(), LiveMemory(META, weights=self.parameters, kernels=GPU_KERNELS) as live:
            peaks: dict[str, int] = {}
            conditioning = self._condition(shape, live, peaks)
            latents = self._denoise(shape, conditioning, live, peaks)
            self.pipeline.decode(unpack(latents, shape.height, shape.width), tiled=shape.tiled)
            peaks["decode"] = live.take_peak()
        return Activations(**peaks)

    @contextmanager
    def _shortened(self) -> Iterator[None]:
        """While inside, repeated parts run only `TRACED_BLOCKS` times; the modulation table keeps its width."""
        pipeline = self.pipeline
        repeated: list[tuple[Any, str]] = [
            (pipeline.transformer, "transformer_blocks"),
            (pipeline.transformer, "single_transformer_blocks"),
            (pipeline.exchanged.modulation, "layers"),
            (pipeline.text_encoder.encoder, "layers"),
            (pipeline.text_encoder_2.encoder, "block"),
        ]
        whole = [getattr(owner, name) for owner, name in repeated]
        embedding = pipeline.exchanged.modulation.embedding
        try:
            for (owner, name), blocks in zip(repeated, whole, strict=True):
                setattr(owner, name, blocks[:TRACED_BLOCKS])
            pipeline.exchanged.modulation.embedding = _Repeated(embedding)
            yield
        finally:
            pipeline.exchanged.modulation.embedding = embedding
            for (owner, name), blocks in zip(repeated, whole, strict=True):
                setattr(owner, name, blocks)

    def _condition(self, shape: RequestShape, live: LiveMemory, peaks: dict[str, int]) -> Conditioning:
        pipeline = self.pipeline

        def ids(length: int) -> torch.Tensor:
            return torch.zeros(1, length, dtype=torch.long, device=META)

        def encoded_text() -> list[torch.Tensor]:
            pooled = pipeline.text_encoder(ids(CLIP_LENGTH)).pooler_output
            return [pooled, pipeline.text_encoder_2(ids(pipeline.model_config.max_sequence_length)).last_hidden_state]

        def encoded_references() -> list[torch.Tensor]:
            latents = [
                pipeline.encode_reference(Image.new("RGB", (width, height))) for height, width in shape.content_sizes
            ]
            return [*latents, *(pipeline.embed_reference(reference) for reference in latents)]

        (pooled, features), peaks["text"] = self._once("text", encoded_text, live)
        styles, peaks["style"] = self._once(shape.num_styles, lambda: self._styles(shape.num_styles), live)
        encoded, peaks["reference"] = self._once(shape.content_sizes, encoded_references, live)
        latents, references = encoded[: len(shape.content_sizes)], encoded[len(shape.content_sizes) :]
        conditioning = pipeline.make_conditioning(
            features,
            pooled,
            style_tokens=styles,
            style_strengths=[MAX_STYLE_STRENGTH] * len(styles) if shape.weighted else (),
            reference_latents=latents,
            references=references,
            height=shape.height,
            width=shape.width,
            guidance_scale=pipeline.model_config.defaults.guidance_scale,
        )
        # Conditioning is assembled after whichever of these stages runs last.
        assembled = live.take_peak()
        peaks.update({stage: max(peak, assembled) for stage, peak in peaks.items()})
        return conditioning

    def _once(
        self, what: Hashable, compute: Callable[[], list[torch.Tensor]], live: LiveMemory
    ) -> tuple[list[torch.Tensor], int]:
        """What a stage makes, and the peak while it does. A stage takes as much for every picture, beside what is alive
        before it, so it runs for the first.

        Args:
            what: all that the stage depends on.
        """
        before = live.now
        live.take_peak()
        if what not in self._stages:
            made = compute()
            self._stages[what] = [(tensor.shape, tensor.dtype) for tensor in made], live.take_peak() - before
            return made, before + self._stages[what][1]
        kinds, more = self._stages[what]
        made = [torch.empty(shape, dtype=dtype, device=META) for shape, dtype in kinds]
        live.take_peak()
        return made, before + more

    def _styles(self, count: int) -> list[torch.Tensor]:
        """The tokens of `count` styles. Only the last is encoded, while the tokens of the others are alive."""
        if not count:
            return []
        sizes = self.pipeline.context_embedder.config
        shape = (1, len(STYLE_LAYERS) * sizes.style_tokens, sizes.hidden_size)
        others = [torch.empty(shape, dtype=self.pipeline.transformer.dtype, device=META) for _ in range(count - 1)]
        picture = Image.new("RGB", (TOKEN_SIZE, TOKEN_SIZE))  # resized to the encoder's own size
        return [*others, self.pipeline.encode_style(picture)]

    def _denoise(
        self, shape: RequestShape, conditioning: Conditioning, live: LiveMemory, peaks: dict[str, int]
    ) -> torch.Tensor:
        """Trace a denoising step after another one; returns the packed latents after it."""
        pipeline = self.pipeline
        steps, guidance, pooled = shape.num_inference_steps, conditioning.guidance, conditioning.pooled_prompt_embeds

        def rows() -> list[torch.Tensor]:
            return [pipeline.exchanged.modulation.table(torch.empty(steps, device=META), guidance, pooled)]

        (table,), peaks["modulation"] = self._once(("table", steps), rows, live)
        latents = pack(torch.empty(1, LATENT_CHANNELS, shape.height // CELL, shape.width // CELL, device=META))
        # Left by the step before: what `denoise` has alive when the next one begins.
        velocity, denoised, latents = torch.empty_like(latents), torch.empty_like(latents), torch.empty_like(latents)
        velocity = pipeline.velocity(conditioning, latents, table[0])
        denoised = latents - velocity
        latents = latents + velocity
        del denoised
        peaks["denoise"] = live.take_peak()
        return latents


class _Repeated(nn.Module):
    """A module that is run `TRACED_BLOCKS` times; later calls only allocate what it returns, alike each time."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.calls = 0

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls <= TRACED_BLOCKS:
            made: torch.Tensor = self.module(*values)
            self.kind = made.shape, made.dtype
            return made
        return torch.empty(self.kind[0], dtype=self.kind[1], device=META)


def _parameters(pipeline: USOPipeline) -> Iterator[torch.Tensor]:
    """All parameters and buffers, including those moved out of the transformer."""
    modulation = pipeline.exchanged.modulation
    for module in [*pipeline.components.values(), *modulation.layers, modulation.embedding]:
        if isinstance(module, nn.Module):
            yield from module.parameters()
            yield from module.buffers()
