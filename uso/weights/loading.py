"""A model's name and a memory plan -> a `USOPipeline` ready to work: its files found, loaded and placed."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from transformers import CLIPTokenizer, SiglipImageProcessorPil, T5TokenizerFast

from uso.config import (
    Compile,
    ComponentName,
    MemoryPlan,
    ModelConfig,
    Speed,
    architecture_file,
    load_model_config,
    read_component_config,
)
from uso.errors import CheckpointError, ConfigError, MissingWeightsError
from uso.forecast.forecast import RequestForecaster
from uso.forecast.meta_model import MetaModel
from uso.memory.residency import Residency, check_host, check_whole, is_out_of_memory
from uso.pipeline.pipeline import USOPipeline
from uso.transformer.compile import cache_folder, choose_attention, choose_compile, compile_blocks
from uso.transformer.context_embedder import ContextEmbedder
from uso.transformer.fp8 import fp8_blocks, prefers_fp8
from uso.transformer.int8 import can_quantize, quantize_blocks
from uso.weights import checkpoints
from uso.weights.choices import choose_device, choose_dtype, choose_plan
from uso.weights.hub import files as hub
from uso.weights.provenance import provenance

logger = logging.getLogger(__name__)

OnProgress = Callable[[str, float], None]
"""Called with what is being done and the share of all bytes done, 0 to 1."""

_LOADING = threading.Lock()
"""One model at a time: empty modules are built by patching `nn.Module`, and log levels and environment variables are
changed, all of which is the whole process's."""

# One component is loaded in float32 whatever the rest is: the autoencoder loses visible detail in bfloat16.
_VAE_DTYPE = torch.float32


def load_pipeline(
    config: ModelConfig | str,
    *,
    memory: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    lora_scale: float | None = None,
    speed: Speed = "exact",
    compile: Compile = "auto",
    offline: bool = False,
    download: bool = False,
    alone: bool = True,
    on_progress: OnProgress | None = None,
) -> USOPipeline:
    """Find the files, load them strictly, fold the LoRA, place everything.

    One model is loaded at a time: other threads that call this wait, and pipelines that are there already go on
    working. Call it in the thread that will use the pipeline: `cuda:N` becomes that thread's current device.

    Args:
        config: a `ModelConfig` or the name of one.
        memory: a plan's name or `auto`.
        device: `auto`, `cpu`, `mps`, `cuda` or `cuda:N`.
        dtype: of the transformer and the encoders: `auto`, `bfloat16` or `float32`. The autoencoder is float32.
        lora_scale: how much of USO's LoRA is folded in; the model's own value if None.
        speed: `exact`, or a level that trades exactness for time (`uso.config`).
        compile: compile the transformer's blocks; `auto` does on CUDA where it works.
        download: fetch what is missing (in `offline` nothing is).
        alone: no other pipeline will work in this process at the same time (`choose_attention`).

    Raises:
        ConfigError, CheckpointError, MissingWeightsError: with the remedy.
    """
    config = load_model_config(config) if isinstance(config, str) else config
    report = on_progress or (lambda stage, share: None)
    where = choose_device(device)
    weights_dtype = choose_dtype(dtype, where)
    scale = config.lora_scale if lora_scale is None else lora_scale
    if where.type == "cuda" and where.index is not None:
        torch.cuda.set_device(where)
    with alone_in_process(report), _enough_memory(where):
        located = hub.locate(config, offline=offline, download=download, on_progress=on_progress)
        stored = sum(file.stat().st_size for component in located.values() for file in component.files)
        loader = Loader(config, located, weights_dtype, report, stored)
        model = MetaModel.from_config(config, weights_dtype)  # files do not tell: fp8 on the disk takes twice that here
        plan = choose_plan(memory, where, model.weights().total)
        residency, place_of = Residency(plan, where), everything_on(where)
        if plan.visit:
            report("Working out what stays on the device", 0.0)
            residency, place_of = _planned(config, model, plan, where)
        elif where.type != "cuda":
            check_whole(config.title, model.weights(), where)
        pipeline = loader.pipeline(scale, place_of)
        report("Placing the model", 1.0)
        tuned = tune(pipeline, residency, speed, compile, alone)
        pipeline.provenance = provenance(config, located, scale, weights_dtype, _VAE_DTYPE, where, plan) | tuned
        return pipeline


_TOWERS: dict[ComponentName, str] = {"text_encoder": "text_config", "image_encoder": "vision_config"}
"""Where the config of a whole model holds that of the tower that is used."""


@contextmanager
def _enough_memory(device: torch.device) -> Iterator[None]:
    """Say in a sentence that memory ran out.

    Raises:
        ConfigError: in the place of what PyTorch raised.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        on_card = device.type == "cuda" and isinstance(error, torch.OutOfMemoryError)
        other = ", or choose a memory plan for a smaller card (--memory)" if on_card else ""
        raise ConfigError(
            f"Memory ran out while the model was loaded. Close other programs that use it{other}."
        ) from error


@contextmanager
def alone_in_process(report: OnProgress) -> Iterator[None]:
    """While inside, no other thread loads a model; says so where it has to wait for one."""
    if not _LOADING.acquire(blocking=False):
        report("Waiting for another model to load", 0.0)
        _LOADING.acquire()
    try:
        yield
    finally:
        _LOADING.release()


def tune(
    pipeline: USOPipeline, residency: Residency, speed: Speed, compile: Compile, alone: bool = True
) -> dict[str, Any]:
    """Place a pipeline and set how its blocks run; returns what a picture records of it.

    Raises:
        ConfigError: a level or a compilation that this device cannot do.
    """
    device, transformer = residency.device, pipeline.transformer
    record: dict[str, Any] = {"speed": speed}
    if speed != "exact":
        reason = can_quantize(device)
        if reason:
            raise ConfigError(f"--speed {speed}: {reason} Use --speed exact.")
        fp8 = prefers_fp8(device)
        (fp8_blocks if fp8 else quantize_blocks)(transformer)
        record["products"] = "fp8" if fp8 else "int8"
    pipeline.place(residency)
    compiled = choose_compile(compile, device, cache_folder())
    if compiled:
        compile_blocks(transformer, cache_folder())
    return record | {"compiled": compiled, "attention": choose_attention(transformer, device, alone)}


PlaceOf = Callable[[str], torch.device]
"""By a parameter's name, behind its component's and a dot: the device it is loaded to."""


def everything_on(device: torch.device) -> PlaceOf:
    return lambda _: device


def _planned(
    config: ModelConfig, model: MetaModel, plan: MemoryPlan, device: torch.device
) -> tuple[Residency, PlaceOf]:
    """A residency that knows what requests need, and blocks that never leave the device loaded straight to it.

    Raises:
        ConfigError: the host has too little memory for what the plan keeps there.
    """
    residency = Residency(plan, device, forecaster=RequestForecaster(model, config))
    weights = model.weights()
    permanent = residency.permanent_blocks(weights)
    check_host(plan, weights, permanent)
    doubles = len(model.pipeline.transformer.transformer_blocks)
    stay = [
        f"transformer.transformer_blocks.{index}."
        if index < doubles
        else f"transformer.single_transformer_blocks.{index - doubles}."
        for index in range(permanent)
    ]
    return residency, lambda name: device if name.startswith(tuple(stay)) and not _modulates(name) else _HOST


def _modulates(name: str) -> bool:
    return any(f".{layer}.linear." in name for layer in ("norm1", "norm1_context", "norm"))


_HOST = torch.device("cpu")


class Loader:
    """Loads component after component, reporting the share of bytes done."""

    def __init__(
        self,
        config: ModelConfig,
        located: Mapping[ComponentName, hub.Located],
        dtype: torch.dtype,
        report: OnProgress,
        stored_bytes: int,
    ) -> None:
        self.config = config
        self.located = located
        self.dtype = dtype
        self.report = report
        self.total = max(stored_bytes, 1)
        self.done = 0

    def pipeline(self, lora_scale: float, device: PlaceOf) -> USOPipeline:
        transformer = checkpoints.load_transformer(
            self.architecture("transformer"),
            self.weights("transformer"),
            lora=self.weights("lora") if "lora" in self.located else None,
            lora_scale=lora_scale,
            **self.placing("transformer", device),
        )
        context = self.context_embedder(device)
        text_encoder_2 = checkpoints.load_text_encoder_2(
            self.architecture("text_encoder_2"),
            self.weights("text_encoder_2"),
            **self.placing("text_encoder_2", device),
        )
        text_encoder = checkpoints.load_text_encoder(
            self.architecture("text_encoder"), self.weights("text_encoder"), **self.placing("text_encoder", device)
        )
        image_encoder = checkpoints.load_image_encoder(
            self.architecture("image_encoder"), self.weights("image_encoder"), **self.placing("image_encoder", device)
        )
        placing = self.placing("vae", device) | {"dtype": _VAE_DTYPE}
        vae = checkpoints.load_autoencoder(self.architecture("vae"), self.weights("vae"), **placing)
        _check_fit(self.config, transformer, context, text_encoder, text_encoder_2, image_encoder)
        return USOPipeline(
            transformer=transformer,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=CLIPTokenizer.from_pretrained(self.located["tokenizer"].path),
            text_encoder_2=text_encoder_2,
            tokenizer_2=T5TokenizerFast.from_pretrained(self.located["tokenizer_2"].path),
            image_encoder=image_encoder,
            image_processor=self.image_processor(),
            context_embedder=context,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
            model=self.config.model_dump(mode="json", exclude={"components"}),
        )

    def context_embedder(self, place_of: PlaceOf) -> ContextEmbedder:
        """The projector's file; without one a new projector, which has everything to learn."""
        if "projector" in self.located:
            return checkpoints.load_context_embedder(self.weights("projector"), **self.placing("projector", place_of))
        vision, flux = self.architecture("image_encoder"), self.architecture("transformer")
        style_tokens = read_component_config(architecture_file(self.config, "projector"))["style_tokens"]
        embedder = ContextEmbedder(
            image_tokens=(vision["image_size"] // vision["patch_size"]) ** 2,
            image_dim=vision["hidden_size"],
            style_tokens=style_tokens,
            hidden_size=flux["num_attention_heads"] * flux["attention_head_dim"],
        )
        for parameter in embedder.parameters():
            parameter.data = parameter.data.to(place_of("projector.levels"), self.dtype)
        return embedder.eval().requires_grad_(False)

    def placing(self, name: ComponentName, place_of: PlaceOf) -> dict[str, Any]:
        label = f"Loading {name.replace('_', ' ')}"
        share_before = self.done
        size = sum(file.stat().st_size for file in self.located[name].files)
        if name == "transformer":
            size += sum(file.stat().st_size for file in self.located["lora"].files) if "lora" in self.located else 0
        self.done += size
        self.report(label, share_before / self.total)
        seen = 0

        def on_tensor(count: int) -> None:
            nonlocal seen
            seen += count
            self.report(label, min(share_before + seen, self.done) / self.total)

        return {
            "dtype": self.dtype,
            "device": lambda parameter: place_of(f"{name}.{parameter}"),
            "on_tensor": on_tensor,
        }

    def weights(self, name: ComponentName) -> list[Path]:
        files = [file for file in self.located[name].files if file.suffix == ".safetensors"]
        if not files:
            raise MissingWeightsError(f"{self.located[name].path} holds no .safetensors file for {name}.")
        return files

    def architecture(self, name: ComponentName) -> dict[str, Any]:
        """A component's config: beside its weights where it has one, else the one that ships with the program.

        Of a config for both towers of CLIP or SigLIP, the part that is this component's.
        """
        beside = self.located[name].path / "config.json"
        values = read_component_config(beside if beside.is_file() else architecture_file(self.config, name))
        part = _TOWERS.get(name)
        return values if part is None else dict(values.get(part, values))

    def image_processor(self) -> SiglipImageProcessorPil:
        values = read_component_config(architecture_file(self.config, "image_processor"))
        return SiglipImageProcessorPil.from_dict(values)


def _check_fit(
    config: ModelConfig, transformer: Any, context: ContextEmbedder, text: Any, text_2: Any, image: Any
) -> None:
    """Files that load one by one can still belong to different models."""
    vision = image.config
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    for what, found, expected in (
        ("the projector's width", context.config.hidden_size, width),
        ("the projector's image width", context.config.image_dim, vision.hidden_size),
        ("the projector's image tokens", context.config.image_tokens, (vision.image_size // vision.patch_size) ** 2),
        ("T5's width", text_2.config.d_model, transformer.config.joint_attention_dim),
        ("CLIP's width", text.config.hidden_size, transformer.config.pooled_projection_dim),
    ):
        if found != expected:
            raise CheckpointError(
                f"The files of {config.title} do not belong together: {what} is {found}, not {expected}."
            )
    if transformer.config.guidance_embeds != config.guidance:
        raise ConfigError(
            f"{config.name}: guidance is {config.guidance} in the model's config, but not in its weights."
        )
