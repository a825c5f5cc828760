"""What frozen encoders make of prompts and pictures, kept on disk: encoded once, read at every step.

A feature is known by its source's content, by what was done to it, and by the weights that did it; so a changed
picture, size or encoder is a new feature, and an interrupted run goes on with what is there. Targets are the
autoencoder's posterior means, as references are in use.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from uso.config import ROOT, from_home
from uso.errors import CheckpointError, ConfigError, USOError
from uso.images import open_image
from uso.pipeline.pipeline import USOPipeline
from uso.training.data.buckets import Size, crop_and_scale
from uso.training.data.samples import Sample
from uso.training.model.export import write_safetensors
from uso.transformer.context_embedder import STYLE_LAYERS

Kind = Literal["prompt", "latents", "style"]

ENCODERS: dict[Kind, tuple[str, ...]] = {
    "prompt": ("text_encoder", "text_encoder_2"),
    "latents": ("vae",),
    "style": ("image_encoder",),
}
"""The pipeline's components that make each kind of feature."""

KEPT: dict[Kind, tuple[str, ...]] = {
    "prompt": ("prompt_embeds", "pooled"),
    "latents": ("latents",),
    "style": tuple(map(str, STYLE_LAYERS.values())),
}
"""The tensors of each kind, by name; a style's are hidden states by their number."""

_READ_BYTES = 2**22

_LISTED = 5
"""How many damaged pictures a message names before it only counts them."""


@dataclass(frozen=True)
class Feature:
    """Something to encode: a prompt, or a picture's file, cropped and scaled to a size or left as it is."""

    kind: Kind
    prompt: str = ""
    path: Path | None = None
    size: Size | None = None

    @cached_property
    def content(self) -> str:
        """The source's SHA-256."""
        return hashlib.sha256(self.prompt.encode()).hexdigest() if self.path is None else file_sha256(self.path)


def check_pictures(features: Iterable[Feature], workers: int = 2) -> None:
    """Open every picture, before the first of them costs an encoder's time.

    Raises:
        ConfigError: some cannot be read; names the first ones and counts the others.
    """
    paths = list(dict.fromkeys(feature.path for feature in features if feature.path is not None))
    with ThreadPoolExecutor(workers) as pool:
        faults = [fault for fault in pool.map(_fault, paths) if fault]
    if faults:
        more = f" (and {len(faults) - _LISTED} more)" if len(faults) > _LISTED else ""
        raise ConfigError(f"{'; '.join(faults[:_LISTED])}{more}. Look at all rows with: python -m uso train.data check")


def _fault(path: Path) -> str:
    try:
        open_image(path.read_bytes(), path.name)
    except (OSError, USOError) as error:
        return f"{path}: {getattr(error, 'strerror', None) or error}"
    return ""


@cache
def file_sha256(path: Path) -> str:
    """Of a file's bytes; a file is read once per process."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class SampleFeatures:
    """The features of one sample: `Feature`s, or what another source of features calls by the same names."""

    prompt: Any
    target: Any
    content: Any | None
    styles: tuple[Any, ...]
    named: Any | None = None
    """A prompt that names the style too, where the run learns from one (`TrainingConfig.words`)."""

    @classmethod
    def of(cls, sample: Sample) -> "SampleFeatures":
        content = None
        if sample.content is not None:
            content = Feature("latents", path=sample.content, size=sample.shape.content)
        return cls(
            prompt=Feature("prompt", prompt=sample.prompt),
            target=Feature("latents", path=sample.target, size=sample.shape.target),
            content=content,
            styles=tuple(Feature("style", path=path) for path in sample.styles),
        )

    def all(self) -> list[Any]:
        return [self.prompt, self.target, *([self.content] if self.content else []), *self.styles]


class FeatureCache:
    """Features of one pipeline's encoders, in a folder.

    Args:
        folder: relative paths start at the program's root; made if it is not there.
    """

    def __init__(self, folder: Path | str, pipeline: USOPipeline) -> None:
        self.folder = ROOT / from_home(folder)
        self.pipeline = pipeline
        self._weights = {kind: _fingerprint(pipeline, names) for kind, names in ENCODERS.items()}

    def path(self, feature: Feature) -> Path:
        """Where a feature is kept."""
        known_by: list[Any] = [feature.kind, feature.content, feature.size, self._weights[feature.kind]]
        if feature.kind == "prompt":
            known_by.append(self.pipeline.model_config.max_sequence_length)
        key = hashlib.sha256(json.dumps(known_by).encode()).hexdigest()
        return self.folder / feature.kind / key[:2] / f"{key}.safetensors"

    def missing(self, features: Iterable[Feature]) -> list[Feature]:
        """Those that are not on the disk yet, each once, in the order of their kinds."""
        absent = {path: feature for feature in features if not (path := self.path(feature)).is_file()}
        kinds = list(ENCODERS)
        return sorted(absent.values(), key=lambda feature: kinds.index(feature.kind))

    def encode(self, features: Sequence[Feature], on_progress: Callable[[int, int], None] | None = None) -> None:
        """Encode features and keep them; can be stopped at any moment and called again.

        Args:
            features: of `missing`.
            on_progress: told how many are done, of how many.
        """
        for number, feature in enumerate(features, start=1):
            write_safetensors(self.path(feature), self._compute(feature))
            if on_progress is not None:
                on_progress(number, len(features))

    def load(self, feature: Feature) -> dict[str, torch.Tensor]:
        """A feature that is kept, on the CPU, without a batch dimension.

        Raises:
            CheckpointError: its file cannot be read.
        """
        path = self.path(feature)
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"The cached feature {path} cannot be read ({error}). Delete it and start again."
            ) from error

    def _compute(self, feature: Feature) -> dict[str, torch.Tensor]:
        pipeline = self.pipeline
        if feature.path is None:
            prompt_embeds, pooled = pipeline.encode_prompt(feature.prompt)
            return _kept({"prompt_embeds": prompt_embeds, "pooled": pooled})
        image = open_image(feature.path.read_bytes(), feature.path.name)
        if feature.kind == "latents":
            fitted = image if feature.size is None else crop_and_scale(image, feature.size)
            return _kept({"latents": pipeline.encode_reference(fitted)})
        states = pipeline.style_features(image)
        return _kept({str(layer): states[layer] for layer in STYLE_LAYERS.values()})


def _kept(tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: tensor[0].to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _fingerprint(pipeline: USOPipeline, names: Sequence[str]) -> str:
    """What tells encoders apart: where their files come from, or else the numbers themselves; and the dtype."""
    origins = pipeline.provenance.get("components", {})
    parts: list[Any] = []
    for name in names:
        module = getattr(pipeline, name)
        dtype = str(getattr(module, "dtype", None))
        parts.append([name, dtype, origins[name] if name in origins else _numbers(module)])
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _numbers(module: nn.Module | None) -> str:
    digest = hashlib.sha256()
    if module is not None:
        for name, parameter in module.named_parameters():
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
