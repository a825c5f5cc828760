"""Located files become a `USOPipeline`: loaded one component after another, then checked against each other."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    SiglipImageProcessorPil,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from uso.config import ComponentName, ModelConfig, architecture_file, read_component_config
from uso.errors import CheckpointError, ConfigError, MissingWeightsError
from uso.pipeline.pipeline import USOPipeline
from uso.transformer.context_embedder import ContextEmbedder
from uso.weights import checkpoints
from uso.weights.finder import tokenizer_kind
from uso.weights.formats.headers import SUFFIXES, check_finished, parts_of, read_headers
from uso.weights.formats.kinds import find
from uso.weights.formats.loras import AddedLora, Targets, added_lora
from uso.weights.formats.patches import parameter_shapes
from uso.weights.formats.relatives import TITLES, other_autoencoder
from uso.weights.formats.tensor_files import HOST, TensorFiles
from uso.weights.hub.cache import STANDARD_NAMES
from uso.weights.hub.files import Located
from uso.weights.hub.transfer import OnProgress

VAE_DTYPE = torch.float32
"""The autoencoder is always loaded in it: in bfloat16 it loses visible detail."""

_TOWERS: dict[ComponentName, str] = {"text_encoder": "text_config", "image_encoder": "vision_config"}
"""Key under which the config of a full CLIP or SigLIP holds that of the tower used here."""


TOKENIZER_NAMES: tuple[ComponentName, ...] = ("tokenizer", "tokenizer_2")

PlaceOf = Callable[[str], torch.device]
"""The device that a parameter is loaded to, by `component.parameter` name."""


def everything_on(device: torch.device) -> PlaceOf:
    return lambda _: device


class Loader:
    """Loads one component after another, reporting the share of bytes done."""

    def __init__(
        self,
        config: ModelConfig,
        located: Mapping[ComponentName, Located],
        dtype: torch.dtype,
        report: OnProgress,
        work: torch.device = HOST,
    ) -> None:
        """
        Args:
            work: where weights are dequantised and LoRAs are folded.
        """
        self.config = config
        self.located = located
        self.dtype = dtype
        self.report = report
        self.work = work
        self.total = max(sum(_stored_bytes(component) for component in located.values()), 1)
        self.done = 0

    def pipeline(self, lora_scale: float, device: PlaceOf) -> USOPipeline:
        """Load everything.

        Raises:
            CheckpointError, ConfigError: a file is refused, or files do not belong together.
        """
        self._check_files()
        with ExitStack() as stack:
            return self._pipeline(lora_scale, device, self._added_loras(stack))

    def _check_files(self) -> None:
        """Refuse what is not what its place needs, by the heads of all files, before numbers are read or a LoRA is
        blamed."""
        self._check_tokenizers()
        for name in self.located:
            if name in TOKENIZER_NAMES:
                continue
            content, reason = find(read_headers(paths := self.weights(name)), name)
            if content is None:
                raise CheckpointError(f"{paths[0].parent / reason}")
            if name == "transformer":
                checkpoints.check_guidance(paths[0], content, self.config.guidance)
                checkpoints.check_transformer(self.architecture(name), paths)
            elif name not in ("lora", "projector"):
                self.architecture(name)

    def _added_loras(self, stack: ExitStack) -> list[AddedLora]:
        """The LoRAs that the model names beside USO's, open as long as the stack is."""
        if not self.config.added_loras:
            return []
        with init_empty_weights():
            modules = (
                FluxTransformer2DModel.from_config(self.architecture("transformer")),
                CLIPTextModel(CLIPTextConfig(**self.architecture("text_encoder"))),
                T5EncoderModel(T5Config(**self.architecture("text_encoder_2"))),
            )
        targets = Targets(*(parameter_shapes(module) for module in modules))
        found = []
        for lora in self.config.added_loras:
            header = read_headers([lora.local_path])
            check_finished(header)
            files = stack.enter_context(TensorFiles([lora.local_path], device=self.work))
            found.append(added_lora(files, targets, lora.strength))
        return found

    def _pipeline(self, lora_scale: float, device: PlaceOf, added: list[AddedLora]) -> USOPipeline:
        transformer = checkpoints.load_transformer(
            self.architecture("transformer"),
            self.weights("transformer"),
            lora=self.weights("lora") if "lora" in self.located else None,
            lora_scale=lora_scale,
            added=added,
            **self.placing("transformer", device),
        )
        context = self.context_embedder(device)
        text_encoder_2 = checkpoints.load_text_encoder_2(
            self.architecture("text_encoder_2"),
            self.weights("text_encoder_2"),
            added=added,
            **self.placing("text_encoder_2", device),
        )
        text_encoder = checkpoints.load_text_encoder(
            self.architecture("text_encoder"),
            self.weights("text_encoder"),
            added=added,
            **self.placing("text_encoder", device),
        )
        image_encoder = checkpoints.load_image_encoder(
            self.architecture("image_encoder"), self.weights("image_encoder"), **self.placing("image_encoder", device)
        )
        placing = self.placing("vae", device) | {"dtype": VAE_DTYPE}
        vae = checkpoints.load_autoencoder(self.architecture("vae"), self.weights("vae"), **placing)
        _check_fit(self.config, transformer, context, text_encoder, text_encoder_2, image_encoder, vae)
        tokenizer, tokenizer_2 = (self._tokenizer(name) for name in TOKENIZER_NAMES)
        return USOPipeline(
            transformer=transformer,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            image_encoder=image_encoder,
            image_processor=self.image_processor(),
            context_embedder=context,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
            model=self.config.model_dump(mode="json", exclude={"components", "weights", "added_loras"}),
        )

    def context_embedder(self, place_of: PlaceOf) -> ContextEmbedder:
        """The projector from its file; without a file, a new, untrained one."""
        if "projector" in self.located:
            return checkpoints.load_context_embedder(self.weights("projector"), **self.placing("projector", place_of))
        style_tokens = read_component_config(architecture_file(self.config, "projector"))["style_tokens"]
        embedder = ContextEmbedder.for_networks(
            self.architecture("image_encoder"), self.architecture("transformer"), style_tokens
        )
        for parameter in embedder.parameters():
            parameter.data = parameter.data.to(place_of("projector.levels"), self.dtype)
        return embedder.eval().requires_grad_(False)

    def placing(self, name: ComponentName, place_of: PlaceOf) -> dict[str, Any]:
        label = f"Loading {name.replace('_', ' ')}"
        share_before = self.done
        self.done += _stored_bytes(self.located[name])
        if name == "transformer" and "lora" in self.located:
            self.done += _stored_bytes(self.located["lora"])
        self.report(label, share_before / self.total)
        seen = 0

        def on_tensor(count: int) -> None:
            nonlocal seen
            seen += count
            self.report(label, min(share_before + seen, self.done) / self.total)

        return {
            "dtype": self.dtype,
            "work": self.work,
            "device": lambda parameter: place_of(f"{name}.{parameter}"),
            "on_tensor": on_tensor,
        }

    def weights(self, name: ComponentName) -> list[Path]:
        files = [file for file in self.located[name].files if file.suffix != ".json"]
        if not files:
            raise MissingWeightsError(f"{self.located[name].path} holds no weights for {name}.")
        return files

    def _check_tokenizers(self) -> None:
        """Refuse tokenizers in each other's place, and those that lack their vocabulary."""
        for name in TOKENIZER_NAMES:
            if name not in self.located:
                continue
            path = self.located[name].path
            kind = tokenizer_kind(path)
            if kind is None:
                raise CheckpointError(
                    f"{path} is not {TITLES[name]}: its files are damaged, or another model's. Use the folder of "
                    "FLUX.1-dev."
                )
            if kind is not None and kind != name:
                flag = f"--{kind.replace('_', '-')}"
                raise CheckpointError(f"{path} is {TITLES[kind]}, not {TITLES[name]}. Its flag is {flag}.")
            if name == "tokenizer_2" and not (path / "tokenizer.json").is_file():
                raise CheckpointError(
                    f"{path} holds spiece.model alone, which is not read. Put tokenizer.json beside it: it is in the "
                    "folder tokenizer_2 of FLUX.1-dev."
                )
            self._tokenizer(name)

    def _tokenizer(self, name: ComponentName) -> Any:
        """
        Raises:
            CheckpointError: it cannot be read, or has other tokens than its encoder.
        """
        path = self.located[name].path
        try:
            tokenizer = {"tokenizer": CLIPTokenizer, "tokenizer_2": T5TokenizerFast}[name].from_pretrained(path)
        except Exception as error:  # the package raises whatever it stumbles over
            raise CheckpointError(
                f"{path} cannot be read as {TITLES[name]} ({type(error).__name__}): a file is damaged or missing. Use "
                "the folder of FLUX.1-dev."
            ) from error
        encoder: ComponentName = "text_encoder" if name == "tokenizer" else "text_encoder_2"
        _check_vocabulary(name, len(tokenizer), self.architecture(encoder)["vocab_size"])
        return tokenizer

    def architecture(self, name: ComponentName) -> dict[str, Any]:
        """A component's config: the file beside its weights, or else the one that ships with the program.

        From a config for both towers of CLIP or SigLIP, the part for this component.
        """
        path = self.located[name].path
        beside = (path if path.is_dir() else path.parent) / "config.json"
        values = read_component_config(architecture_file(self.config, name))
        if beside.is_file() and _speaks_for(path):
            own = read_component_config(beside)
            _check_class(beside, name, own, values)
            values = own if path.is_dir() else values
        part = _TOWERS.get(name)
        return values if part is None else dict(values.get(part, values))

    def image_processor(self) -> SiglipImageProcessorPil:
        values = read_component_config(architecture_file(self.config, "image_processor"))
        return SiglipImageProcessorPil.from_dict(values)


_CLASSES: dict[str, tuple[str, ...]] = {
    "transformer": ("FluxTransformer2DModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel", "CLIPModel", "CLIPTextModelWithProjection"),
    "text_encoder_2": ("T5EncoderModel", "T5ForConditionalGeneration", "T5Model"),
    "image_encoder": ("SiglipVisionModel", "SiglipModel"),
}


_TYPES: dict[str, tuple[str, ...]] = {
    "text_encoder": ("clip", "clip_text_model"),
    "text_encoder_2": ("t5",),
    "image_encoder": ("siglip", "siglip_vision_model"),
}
_OTHER_TYPES = ("umt5", "mt5", "siglip2", "siglip2_vision_model", "clip_vision_model", "bert", "llama", "qwen2")


def _speaks_for(path: Path) -> bool:
    """Whether the `config.json` beside a file is that file's: it has a library's name, or is the only one there."""
    if path.is_dir() or path.name in STANDARD_NAMES or len(parts_of(path)) > 1:
        return True
    return sum(each.suffix.lower() in SUFFIXES for each in path.parent.iterdir()) == 1


def _check_class(path: Path, name: ComponentName, values: dict[str, Any], shipped: dict[str, Any]) -> None:
    """Refuse a `config.json` of another class, or of an autoencoder with other latents, beside the weights."""
    found = values.get("_class_name") or next(iter(values.get("architectures") or ()), None)
    if found is not None and found not in _CLASSES.get(name, (found,)):
        raise CheckpointError(f"{path} says that these weights are of {found}; {TITLES[name]} is needed here.")
    kind, own = values.get("model_type"), _TYPES.get(name, ())
    if own and kind not in own and kind in (*_OTHER_TYPES, *(each for types in _TYPES.values() for each in types)):
        raise CheckpointError(f"{path} says that these weights are of {kind}; {TITLES[name]} is needed here.")
    words = (values.get("text_config") or {}).get("vocab_size", 0)
    if name == "image_encoder" and words > 200_000:
        raise CheckpointError(f"{path} says that these weights are SigLIP 2's. Use SigLIP so400m patch 14, 384 pixels.")
    keys = ("scaling_factor", "shift_factor")
    if name == "vae" and any(values.get(key, shipped.get(key)) != shipped.get(key) for key in keys):
        raise CheckpointError(f"{path.parent}: {other_autoencoder(values) or 'its latents are scaled otherwise.'}")


def _stored_bytes(component: Located) -> int:
    return sum(file.stat().st_size for file in component.files)


_T5_ROUNDING = 128
"""T5's vocabulary is filled up to a multiple of it."""


def _check_vocabulary(name: ComponentName, tokens: int, known: int) -> None:
    """Refuse a tokenizer of another size than the encoder."""
    spare = known - tokens
    if spare < 0 or spare >= (1 if name == "tokenizer" else _T5_ROUNDING):
        raise CheckpointError(
            f"The tokenizers do not belong to these encoders: {TITLES[name]} has {tokens} tokens, and its encoder "
            f"knows {known}. Use the tokenizers of FLUX.1-dev."
        )


def _check_fit(
    config: ModelConfig, transformer: Any, context: ContextEmbedder, text: Any, text_2: Any, image: Any, vae: Any
) -> None:
    """Refuse files that load one by one but belong to different models."""
    vision = image.config
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    for what, found, expected in (
        ("the projector's width", context.config.hidden_size, width),
        ("the projector's image width", context.config.image_dim, vision.hidden_size),
        ("the projector's image tokens", context.config.image_tokens, (vision.image_size // vision.patch_size) ** 2),
        ("T5's width", text_2.config.d_model, transformer.config.joint_attention_dim),
        ("CLIP's width", text.config.hidden_size, transformer.config.pooled_projection_dim),
        ("the transformer's input channels", transformer.config.in_channels, 4 * vae.config.latent_channels),
    ):
        if found != expected:
            raise CheckpointError(
                f"The files of {config.title} do not belong together: {what} is {found}, not {expected}."
            )
    if transformer.config.guidance_embeds != config.guidance:
        raise ConfigError(
            f"{config.name}: guidance is {config.guidance} in the model's config, but not in its weights."
        )
