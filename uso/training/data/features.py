"""Features of prompts and pictures from the frozen encoders, kept on disk: encoded once, read at every step.

Kinds that a run does not keep (`data.cached`) are encoded whenever they are read. A feature's key is its source's
content, the crop, and the encoder's weights: a changed picture, size or encoder makes a new feature, and an interrupted
run continues with the files that exist. Targets are the autoencoder's posterior means, as references are in inference.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from uso.config import ROOT, from_home
from uso.errors import CheckpointError, ConfigError, RequestError
from uso.images.pixels import open_image
from uso.pipeline.cache import TensorCache
from uso.pipeline.pipeline import USOPipeline
from uso.training.config import FeatureKind
from uso.training.data.buckets import crop_and_scale
from uso.training.data.check import picture_fault
from uso.training.data.files import Hashes
from uso.training.data.samples import Feature
from uso.training.model.export import write_safetensors
from uso.transformer.context_embedder import STYLE_LAYERS

ENCODERS: dict[FeatureKind, tuple[str, ...]] = {
    "prompt": ("text_encoder", "text_encoder_2"),
    "latents": ("vae",),
    "style": ("image_encoder",),
}
"""The pipeline's components that make each kind of feature."""

KEPT: dict[FeatureKind, tuple[str, ...]] = {
    "prompt": ("prompt_embeds", "pooled"),
    "latents": ("latents",),
    "style": tuple(map(str, STYLE_LAYERS.values())),
}
"""The tensors of each kind, by name; a style's are hidden states by their number."""

_CPU = torch.device("cpu")

_LISTED = 5
"""How many damaged pictures a message names before it only counts them."""


def check_sources(features: Sequence[Feature], pipeline: USOPipeline, workers: int = 2) -> None:
    """Open every picture and count every prompt's tokens, before the first of them costs an encoder's time.

    Raises:
        ConfigError: some cannot be read; names the first ones and counts the others.
    """
    paths = list(dict.fromkeys(feature.path for feature in features if feature.path is not None))
    with ThreadPoolExecutor(workers) as pool:
        faults = [f"{path} {fault}" for path, fault in zip(paths, pool.map(picture_fault, paths), strict=True) if fault]
    for feature in features:
        if feature.path is None:
            try:
                pipeline.check_prompt(feature.prompt)
            except RequestError as error:
                faults.append(f"'{feature.prompt[:40]} ...': {error}")
    if faults:
        more = f" (and {len(faults) - _LISTED} more)" if len(faults) > _LISTED else ""
        raise ConfigError(f"{' '.join(faults[:_LISTED])}{more} Look at all rows with: python -m uso train.data check")


class FeatureCache:
    """Features of one pipeline's encoders, in a folder.

    Args:
        folder: relative paths start at the program's root; made if it does not exist.
        memory_gib: host memory for features that `stacked` has read.
        kinds: what is kept; features of other kinds are encoded when they are read.
    """

    empty_prompt = Feature("prompt")

    def __init__(
        self,
        folder: Path | str,
        pipeline: USOPipeline,
        memory_gib: float = 0.0,
        kinds: Sequence[FeatureKind] = tuple(ENCODERS),
    ) -> None:
        self.folder = ROOT / from_home(folder)
        self.pipeline = pipeline
        self.kinds = kinds
        self.hashes = Hashes(self.folder)
        self._remembered = TensorCache(int(memory_gib * 2**30))
        self._weights = {kind: _fingerprint(pipeline, names) for kind, names in ENCODERS.items()}

    def path(self, feature: Feature) -> Path:
        """Where a feature is kept."""
        content = hashlib.sha256(feature.prompt.encode()).hexdigest()
        if feature.path is not None:
            content = self.hashes.of(feature.path)
        known_by: list[Any] = [feature.kind, content, feature.size, self._weights[feature.kind]]
        if feature.kind == "prompt":
            known_by.append(self.pipeline.model_config.max_sequence_length)
        key = hashlib.sha256(json.dumps(known_by).encode()).hexdigest()
        return self.folder / feature.kind / key[:2] / f"{key}.safetensors"

    def missing(self, features: Iterable[Feature]) -> list[Feature]:
        """Those that are to be kept and are not on the disk yet, each once, in the order of their kinds."""
        kept = dict.fromkeys(feature for feature in features if feature.kind in self.kinds)
        absent = {path: feature for feature in kept if not (path := self.path(feature)).is_file()}
        kinds = list(ENCODERS)
        return sorted(absent.values(), key=lambda feature: kinds.index(feature.kind))

    def encode(self, features: Sequence[Feature], on_progress: Callable[[int, int], None] | None = None) -> None:
        """Encode features and write them; may be interrupted and called again.

        Args:
            features: of `missing`.
            on_progress: called with how many are done, of how many.
        """
        for number, feature in enumerate(features, start=1):
            write_safetensors(self.path(feature), self._compute(feature))
            if on_progress is not None:
                on_progress(number, len(features))

    def load(self, feature: Feature) -> dict[str, torch.Tensor]:
        """A feature, on the CPU, without a batch dimension: from its file, or encoded now.

        Raises:
            CheckpointError: its file cannot be read.
        """
        if feature.kind not in self.kinds:
            return self._compute(feature)
        path = self.path(feature)
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"The cached feature {path} cannot be read ({error}). Delete it and start again."
            ) from error

    def stacked(self, features: Sequence[Feature]) -> dict[str, torch.Tensor]:
        """Features of one kind by the names of their tensors, [B, ...] each, on the CPU."""
        keys = KEPT[features[0].kind]

        def read(feature: Feature) -> tuple[torch.Tensor, ...]:
            tensors = self.load(feature)
            return tuple(tensors[key] for key in keys)

        found = [self._remembered.get(feature, _CPU, partial(read, feature)) for feature in features]
        return {key: torch.stack(tensors) for key, tensors in zip(keys, zip(*found, strict=True), strict=True)}

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
