"""Located files become a `USOPipeline`: loaded one component after another, then checked against each other."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from transformers import CLIPTokenizer, SiglipImageProcessorPil, T5TokenizerFast

from uso.config import ComponentName, ModelConfig, architecture_file, read_component_config
from uso.errors import CheckpointError, ConfigError, MissingWeightsError
from uso.pipeline.pipeline import USOPipeline
from uso.transformer.context_embedder import ContextEmbedder
from uso.weights import checkpoints
from uso.weights.hub.files import Located
from uso.weights.hub.transfer import OnProgress

VAE_DTYPE = torch.float32
"""The autoencoder is always loaded in it: in bfloat16 it loses visible detail."""

_TOWERS: dict[ComponentName, str] = {"text_encoder": "text_config", "image_encoder": "vision_config"}
"""Key under which the config of a full CLIP or SigLIP holds that of the tower used here."""


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
    ) -> None:
        self.config = config
        self.located = located
        self.dtype = dtype
        self.report = report
        self.total = max(sum(_stored_bytes(component) for component in located.values()), 1)
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
        placing = self.placing("vae", device) | {"dtype": VAE_DTYPE}
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
        """The projector from its file; without a file, a new, untrained one."""
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
            "device": lambda parameter: place_of(f"{name}.{parameter}"),
            "on_tensor": on_tensor,
        }

    def weights(self, name: ComponentName) -> list[Path]:
        files = [file for file in self.located[name].files if file.suffix == ".safetensors"]
        if not files:
            raise MissingWeightsError(f"{self.located[name].path} holds no .safetensors file for {name}.")
        return files

    def architecture(self, name: ComponentName) -> dict[str, Any]:
        """A component's config: the file beside its weights, or else the one that ships with the program.

        From a config for both towers of CLIP or SigLIP, the part for this component.
        """
        beside = self.located[name].path / "config.json"
        values = read_component_config(beside if beside.is_file() else architecture_file(self.config, name))
        part = _TOWERS.get(name)
        return values if part is None else dict(values.get(part, values))

    def image_processor(self) -> SiglipImageProcessorPil:
        values = read_component_config(architecture_file(self.config, "image_processor"))
        return SiglipImageProcessorPil.from_dict(values)


def _stored_bytes(component: Located) -> int:
    return sum(file.stat().st_size for file in component.files)


def _check_fit(
    config: ModelConfig, transformer: Any, context: ContextEmbedder, text: Any, text_2: Any, image: Any
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
    ):
        if found != expected:
            raise CheckpointError(
                f"The files of {config.title} do not belong together: {what} is {found}, not {expected}."
            )
    if transformer.config.guidance_embeds != config.guidance:
        raise ConfigError(
            f"{config.name}: guidance is {config.guidance} in the model's config, but not in its weights."
        )
