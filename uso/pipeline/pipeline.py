"""`USOPipeline`: a verified request becomes a picture, `condition -> denoise (a generator) -> decode`.

It runs FluxTransformer2DModel, AutoencoderKL and FlowMatchEulerDiscreteScheduler of diffusers, and CLIP, T5 and SigLIP
of transformers. Released files are loaded by `uso.weights`, pictures saved by `uso.output`.
"""

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, overload

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from PIL import Image
from transformers import CLIPTextModel, SiglipImageProcessorPil, SiglipVisionModel, T5EncoderModel

from uso.config import ModelConfig, load_memory_plan, load_model_config
from uso.errors import ConfigError, DeviceError, USOError
from uso.language import Text
from uso.memory.device import answers, dtype_name, is_out_of_memory, placement_record
from uso.memory.residency import Residency
from uso.pipeline.cache import TensorCache
from uso.pipeline.denoising import Denoising
from uso.pipeline.latents import draw_noise, tensor_to_image, unpack
from uso.pipeline.pacing import Pacer, marks_of
from uso.pipeline.preview import SIDE, PreviewMap, map_of
from uso.pipeline.signature import takes_values, with_values
from uso.pipeline.stages import USOPipelineOutput
from uso.request.request import GenerationRequest, GenerationResult, Progress
from uso.transformer.context_embedder import ContextEmbedder
from uso.transformer.exchange import ExchangedTransformer

Events = Generator[Progress | GenerationResult, None, None]

REMEMBERED_BYTES = 2**30
"""Host memory for cached encodings: some hundred prompts and pictures."""


class USOPipeline(Denoising, DiffusionPipeline):
    """Style- and subject-driven image generation.

    Args:
        context_embedder: the style projector. The transformer's text projection moves into it, and back for
            `save_pretrained`, so that on disk the transformer is complete and stock.
        model: a `ModelConfig` as JSON values (limits and defaults of requests); FLUX.1-dev's if omitted.
        dtypes: dtypes that a folder was saved in, by component and as `default`; read by `from_pretrained`.
    """

    def __init__(
        self,
        transformer: FluxTransformer2DModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: Any,
        text_encoder_2: T5EncoderModel,
        tokenizer_2: Any,
        image_encoder: SiglipVisionModel,
        image_processor: SiglipImageProcessorPil,
        context_embedder: ContextEmbedder,
        scheduler: FlowMatchEulerDiscreteScheduler,
        model: dict[str, Any] | None = None,
        dtypes: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            transformer=transformer,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            image_encoder=image_encoder,
            image_processor=image_processor,
            context_embedder=context_embedder,
            scheduler=scheduler,
        )
        self.register_to_config(model=model, dtypes=dtypes)
        self.model_config = ModelConfig.model_validate(model) if model else load_model_config("flux-dev")
        self.provenance: dict[str, Any] = {"name": self.model_config.name}
        self.residency = Residency(load_memory_plan("full"), "cpu")
        self.exchanged = ExchangedTransformer(transformer, context_embedder)
        self.remembered = TensorCache(REMEMBERED_BYTES)
        self.preview_map: PreviewMap | None = None

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Save a stock diffusers folder that `USOPipeline.from_pretrained` loads back to the same numbers.

        Raises:
            ConfigError: the weights were rounded for speed.
        """
        if self.provenance.get("speed", "exact") != "exact":
            raise ConfigError("A pipeline whose weights were rounded for speed cannot be saved; load it with exact.")
        self.register_to_config(
            dtypes={"default": dtype_name(self.transformer.dtype), "vae": dtype_name(self.vae.dtype)}
        )
        with self.exchanged.stock():
            super().save_pretrained(save_directory, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> "USOPipeline":
        """As in diffusers, except that a folder saved here loads in its saved dtypes unless others are given."""
        if not kwargs.keys() & {"dtype", "torch_dtype"} and Path(pretrained_model_name_or_path).is_dir():
            named = cls.load_config(pretrained_model_name_or_path).get("dtypes") or {}
            if named:
                kwargs["dtype"] = {component: getattr(torch, name) for component, name in named.items()}
        pipeline: USOPipeline = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        return pipeline

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """As in diffusers; folders saved when `ContextEmbedder` was in `uso.context` still load."""
        loaded = super().load_config(*args, **kwargs)
        config = loaded[0] if isinstance(loaded, tuple) else loaded
        if config.get("context_embedder") == ["uso.context", ContextEmbedder.__name__]:
            config["context_embedder"] = [ContextEmbedder.__module__, ContextEmbedder.__name__]
        return loaded

    # Placement.

    def place(self, residency: Residency) -> "USOPipeline":
        """Place the modules as a memory plan says. A plan that streams is final: load again to use another."""
        self.residency = residency
        residency.place(self)
        return self

    def to(self, *args: Any, **kwargs: Any) -> "USOPipeline":
        """As in diffusers; afterwards everything is resident on that device, and the cache is empty.

        Raises:
            ConfigError: the memory plan moves weights by itself.
        """
        if self.residency.blocks is not None:
            raise ConfigError(
                f"Memory plan '{self.residency.plan.name}' moves the weights by itself. Load the pipeline again with "
                "the device, dtype and memory plan that you want."
            )
        with self.exchanged.stock():
            super().to(*args, **kwargs)
        self.remembered.clear()
        placed = self.place(Residency(load_memory_plan("full"), self.vae.device))
        if "device" in self.provenance:
            dtypes = self.transformer.dtype, self.vae.dtype
            self.provenance = self.provenance | placement_record(*dtypes, self.work_device, self.residency.plan)
        return placed

    # Previews.

    def fit_preview(self) -> bool:
        """Make `preview` work, with a map from disk or by fitting one. Call it once, while no request runs.

        Returns:
            whether previews work; if not, a warning in the log says why.
        """
        self.preview_map = map_of(self)
        return self.preview_map is not None

    def preview(self, progress: Progress, side: int = SIDE) -> Image.Image | None:
        """A small, blurred picture of what a step predicts: 8-bit RGB, long side `side` pixels.

        None outside the `denoise` stage and before `fit_preview`. On a GPU it is of the step before, so that the
        device has work meanwhile, and None at the first one.
        """
        if self.preview_map is None or progress.denoised is None:
            return None
        return self.preview_map.picture(progress.denoised, progress.height, progress.width, side)

    # Whole requests.

    @overload
    def stream(self, prompt: GenerationRequest) -> Events: ...

    @overload
    @takes_values
    def stream(self, prompt: str = "", **values: Any) -> Events: ...

    @with_values
    def stream(self, prompt: str | GenerationRequest = "", **values: Any) -> Events:
        """Run a request: `Progress` after every step, one `GenerationResult` per picture.

        Takes a `GenerationRequest`, or the values of one. It is encoded once; picture i equals that of a single request
        with seed + i. Close the generator to cancel. On a GPU a step's `Progress` comes when the step before it is
        done: the host is at most one step ahead.

        Raises:
            RequestError: a value is refused, and says why; the prompt is longer than the model reads, or in letters
                that it does not know; the request does not fit the memory plan.
            USOError: the device ran out of memory, or values are not finite; the next request can still work.
            DeviceError: the device has failed; no request works until the process is restarted.
        """
        if not isinstance(prompt, GenerationRequest):
            return self._run(GenerationRequest.create(self.model_config, prompt, **values))
        if values:
            raise TypeError(f"A GenerationRequest has all values; change them in it: {', '.join(values)}.")
        return self._run(prompt)

    def _run(self, request: GenerationRequest) -> Events:
        try:
            yield from self._stream(request)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                if answers(self.work_device):
                    raise
                raise DeviceError(
                    Text(
                        "The device {} has failed and computes nothing any more ({}). Start the program again.",
                        self.work_device,
                        _first_line(error),
                    )
                ) from error
            self.residency.release()
            on_card = isinstance(error, torch.OutOfMemoryError)
            other = (
                Text("start with a memory plan for a smaller card (--memory)")
                if on_card
                else Text("close other programs")
            )
            raise USOError(
                Text(
                    "The device ran out of memory at {} x {}. Choose a smaller picture or "
                    "content reference size, or {}.",
                    request.width,
                    request.height,
                    other,
                )
            ) from error

    def _stream(self, request: GenerationRequest) -> Events:
        began = time.perf_counter()
        self.residency.reset_peak()

        def progress(stage: str, step: int, num_steps: int, picture: int, **tensors: Any) -> Progress:
            return Progress(
                stage=stage,
                step=step,
                num_steps=num_steps,
                image_index=picture,
                num_images=request.num_images,
                seconds=time.perf_counter() - began,
                height=request.height,
                width=request.width,
                **tensors,
            )

        yield progress("condition", 0, 1, 0)
        notes = self.reading_notes(request.prompt)
        conditioning = self.condition(request)
        timings = {"condition": time.perf_counter() - began}
        for picture in range(request.num_images):
            single = request.single(picture)
            yield progress("condition", 1, 1, picture)
            started = time.perf_counter()
            noise = draw_noise(single.seed, single.height, single.width)
            steps = self.denoise(
                conditioning, noise, num_inference_steps=single.num_inference_steps, schedule=single.schedule
            )
            pacer = Pacer(marks_of(self.work_device))
            before: torch.Tensor | None = None
            for step in steps:
                pacer.step()
                finished = before if pacer.ahead else step.denoised
                yield progress(
                    "denoise", step.index + 1, step.num_steps, picture, latents=step.latents, denoised=finished
                )
                before = step.denoised
            pacer.finish()
            timings["denoise"] = time.perf_counter() - started
            started = time.perf_counter()
            yield progress("decode", 0, 1, picture)
            pixels = self.decode(unpack(step.latents, single.height, single.width), tiled=single.tiled_decode)
            image = tensor_to_image(pixels)
            timings["decode"] = time.perf_counter() - started
            yield GenerationResult(
                image=image,
                request=single,
                model=self.provenance | self.exchanged.mode,
                timings=dict(timings),
                peak_memory_gib=self.residency.peak_memory_gib(),
                notes=notes,
            )
            timings = {"condition": 0.0}

    @takes_values
    def __call__(self, prompt: str = "", **values: Any) -> USOPipelineOutput:
        """Make pictures, with a progress bar (see `set_progress_bar_config`).

        Raises:
            RequestError: a value is refused; says why.
        """
        request = GenerationRequest.create(self.model_config, prompt, **values)
        results: list[GenerationResult] = []
        with self.progress_bar(total=request.num_images * request.num_inference_steps) as bar:
            for event in self.stream(request):
                if isinstance(event, GenerationResult):
                    results.append(event)
                elif event.stage == "denoise":
                    bar.update()
        return USOPipelineOutput(images=[result.image for result in results], results=results)

    def __repr__(self) -> str:
        dtype = dtype_name(self.transformer.dtype)
        return f"USOPipeline({self.model_config.name}, {self.work_device}, {dtype}, plan {self.residency.plan.name})"


def _first_line(error: Exception) -> str:
    """Without the debugging advice that CUDA appends to its errors."""
    return str(error).split("\n", 1)[0]
