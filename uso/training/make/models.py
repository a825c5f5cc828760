"""The experts themselves: an image-editing pipeline of diffusers, CSD, and DINOv2. Loaded when called, not before."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled
from numpy.typing import NDArray
from PIL import Image
from transformers import Dinov2Model

from uso.errors import ConfigError
from uso.evaluation.metrics.csd import load_csd
from uso.evaluation.metrics.pixels import prepare_picture
from uso.training.make.config import EditorConfig, ExpertsConfig
from uso.training.make.experts import Editor, Experts
from uso.weights.hub.cache import Hub
from uso.weights.hub.errors import beneath, explained

COMMAND = "python -m uso train.data make"
"""What to run again, without its folders."""

DINO_MEAN, DINO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINO_SHORT, DINO_SIDE = 256, 224
"""As DINOv2's own preprocessing: short side to 256, centre crop of 224."""


class PipelineEditor:
    """An editing pipeline whose call takes `image`, `prompt` and `generator` (FLUX.1 Kontext, Qwen-Image-Edit ...)."""

    def __init__(self, pipeline: Any, arguments: dict[str, Any]) -> None:
        self.pipeline, self.arguments = pipeline, arguments

    def edit(self, picture: Image.Image, instruction: str, seed: int) -> Image.Image:
        """One edited picture, at the pipeline's size."""
        draw = torch.Generator("cpu").manual_seed(seed)
        size = {"width": picture.width, "height": picture.height}
        made = self.pipeline(image=picture, prompt=instruction, generator=draw, **(size | self.arguments))
        image: Image.Image = made.images[0]
        return image


class DinoScorer:
    """What a picture shows: DINOv2's class token."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()

    @torch.inference_mode()
    def vectors(self, pictures: list[Image.Image]) -> NDArray[np.float32]:
        """Unit vectors [N, hidden]."""
        side = min(DINO_SIDE, self.model.config.image_size)
        short = side * DINO_SHORT // DINO_SIDE
        planes = [prepare_picture(picture, side, short, DINO_MEAN, DINO_STD) for picture in pictures]
        batch = torch.stack(planes).to(self.model.device, self.model.dtype)
        token = self.model(batch).last_hidden_state[:, 0]
        return np.asarray(torch.nn.functional.normalize(token.float(), dim=1).cpu().numpy())


def experts_from(config: ExpertsConfig, csd: Path, device: str) -> Experts:
    """The experts that a configuration names, to be loaded on `device` when they are needed."""
    return Experts(
        stylization=lambda: load_editor(config.stylization, device),
        destylization=lambda: load_editor(config.destylization, device),
        style=lambda: load_csd(csd).to(device),
        subject=lambda: DinoScorer(_pretrained(Dinov2Model, config.filters.dino).to(device)),
    )


def load_editor(config: EditorConfig, device: str) -> Editor:
    """An editing pipeline on a device.

    Raises:
        ConfigError: diffusers has no such class, or it cannot be loaded.
    """
    kind = getattr(diffusers, config.pipeline, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)):
        raise ConfigError(
            f"diffusers has no pipeline '{config.pipeline}'. FluxKontextPipeline is one that edits pictures."
        )
    dtype = getattr(torch, config.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise ConfigError(f"torch has no dtype '{config.dtype}'. bfloat16 is the usual one.")
    pipeline = _pretrained(kind, config.repo, revision=config.revision, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    if config.offload:
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.to(device)
    return PipelineEditor(pipeline, dict(config.arguments))


def _pretrained(kind: Any, name: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        cause = beneath(error)
        if isinstance(cause, GatedRepoError | OfflineModeIsEnabled):
            reason = explained(cause, name, options.get("revision") or "main", Hub(), COMMAND)
        else:
            lines = str(cause or error).strip().splitlines()
            reason = lines[0] if lines else type(error).__name__
        raise ConfigError(f"{name} could not be loaded as {kind.__name__}: {reason}") from error
