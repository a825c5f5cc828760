"""Validation pictures of fixed seeds: every mode, made by `USOPipeline` as in inference, from held-out rows.

The style score of modes that read a style is logged. In a run with a reward it shows whether the reward still means
style.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from uso.evaluation.sheet import ROWS, SheetRow, contact_sheet
from uso.images.pixels import open_image
from uso.pipeline.latents import image_to_tensor
from uso.pipeline.pipeline import USOPipeline
from uso.request.request import GenerationRequest, GenerationResult
from uso.training.config import TrainingConfig
from uso.training.data.buckets import crop_and_scale
from uso.training.data.features import FeatureCache
from uso.training.data.samples import Feature, Sample
from uso.training.losses.reward import StyleScore

MODES: dict[str, tuple[bool, bool, int]] = {
    "text": (True, False, 0),
    "content": (True, True, 0),
    "style": (True, False, 1),
    "styles": (True, False, 2),
    "content_style": (True, True, 1),
    "layout_style": (False, True, 1),
}
"""Mode -> (with words for what the target shows, with the content picture, how many style pictures)."""


@dataclass(frozen=True)
class Drawn:
    """One validation picture."""

    mode: str
    number: int
    """Of its row."""
    image: Image.Image
    styles: tuple[Path, ...]


class Validation:
    """The rows and modes that are drawn.

    Args:
        samples: rows that are not learned from, read with content and style whatever the run reads.
        cache: holds their prompts.
    """

    def __init__(
        self, pipeline: USOPipeline, config: TrainingConfig, samples: list[Sample], cache: FeatureCache
    ) -> None:
        self.pipeline = pipeline
        self.config = config
        self.samples = samples[: config.validation.count]
        self.cache = cache
        model = pipeline.model_config
        self.side = min(max(config.data.resolution, model.limits.min_size), model.limits.max_size)
        self.content_size = min(
            max(config.data.content_size, model.limits.min_content_size), model.limits.max_content_size
        )

    def features(self) -> list[Feature]:
        """What has to be in the cache: prompts, so that training can let the text encoders go."""
        return [Feature("prompt"), *(Feature("prompt", prompt=sample.sentence) for sample in self.samples)]

    def requests(self) -> Iterator[tuple[str, int, GenerationRequest, tuple[Path, ...]]]:
        """(mode, row, request, style files) of every picture, in the modes of what the run reads."""
        reads = self.config.reads
        every_style = [style for sample in self.samples for style in sample.styles]
        for number, sample in enumerate(self.samples):
            styles = [*sample.styles, *(style for style in every_style if style not in sample.styles)]
            for mode, (with_text, with_content, count) in MODES.items():
                if (with_content and ("content" not in reads or sample.content is None)) or count > len(styles):
                    continue
                if count and "style" not in reads:
                    continue
                yield (
                    mode,
                    number,
                    self._request(sample, with_text, with_content, styles[:count]),
                    tuple(styles[:count]),
                )

    def _request(self, sample: Sample, with_text: bool, with_content: bool, styles: list[Path]) -> GenerationRequest:
        return GenerationRequest.create(
            self.pipeline.model_config,
            prompt=sample.sentence if with_text else "",
            content_images=sample.content if with_content else None,
            style_images=styles,
            width=self.side,
            height=self.side,
            content_size=self.content_size,
            num_inference_steps=self.config.validation.steps,
            seed=self.config.validation.seed,
        )

    def draw(self, autocast: Any) -> Iterator[Drawn]:
        """Make every picture. The pipeline's cache is cleared first: the weights have changed.

        Args:
            autocast: makes the context that the network runs in.
        """
        pipeline = self.pipeline
        pipeline.remembered.clear()
        for mode, number, request, styles in self.requests():
            kept = self.cache.load(Feature("prompt", prompt=request.prompt))
            pipeline.remember_prompt(request.prompt, kept["prompt_embeds"][None], kept["pooled"][None])
            with autocast():  # what is remembered is bounded: earlier pictures may have pushed the prompt out
                results = [event for event in pipeline.stream(request) if isinstance(event, GenerationResult)]
            yield Drawn(mode, number, results[0].image, styles)
        pipeline.remembered.clear()  # tensors of inference mode are of no use to training

    def sheet(self, drawn: Sequence[Drawn]) -> Image.Image:
        """The references and all pictures of a step: a row for each of the first rows, a column for each mode."""

        def square(path: Path | None) -> NDArray[np.uint8] | None:
            if path is None:
                return None
            return np.asarray(crop_and_scale(open_image(path.read_bytes(), path.name), (self.side, self.side)))

        rows = []
        modes = list(dict.fromkeys(picture.mode for picture in drawn))
        for number, sample in enumerate(self.samples[:ROWS]):
            made = {picture.mode: np.asarray(picture.image) for picture in drawn if picture.number == number}
            pictures = {
                "content image": square(sample.content),
                "style image": square(next(iter(sample.styles), None)),
                **{mode: made.get(mode) for mode in modes},
            }
            rows.append(SheetRow(pictures, sample.sentence))
        return contact_sheet(rows)


def style_scores(drawn: list[Drawn], scores: dict[str, StyleScore], device: torch.device) -> dict[str, float]:
    """The mean style score of every mode that reads one style, by each descriptor: `validation/NAME/MODE`."""
    values: dict[str, float] = {}
    for name, score in scores.items():
        for mode in {picture.mode for picture in drawn if len(picture.styles) == 1}:
            pictures = [picture for picture in drawn if picture.mode == mode]
            with torch.no_grad():
                found = [
                    float(score.score(image_to_tensor(picture.image).to(device), (picture.styles,)))
                    for picture in pictures
                ]
            values[f"validation/{name}/{mode}"] = sum(found) / len(found)
    return values
