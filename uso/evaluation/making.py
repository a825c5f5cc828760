"""Makes a benchmark's pictures with a loaded pipeline; those that are there already are not made again."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from uso.config import ModelConfig
from uso.errors import RequestError, USOError
from uso.evaluation.bench.entries import Bench, Entry
from uso.evaluation.pictures import Result, results
from uso.request.request import GenerationRequest, ReferenceImage
from uso.system.launcher import Process

_OPENED = 256
"""References kept in memory: more than any benchmark here has."""


class Maker:
    """A benchmark's requests for a model.

    Args:
        values: of every request beside prompt, references and seed: steps, size and so on; one strength for all style
            images.
    """

    def __init__(self, bench: Bench, config: ModelConfig, values: dict[str, Any], folder: Path) -> None:
        self.bench, self.config, self.values, self.folder = bench, config, values, folder
        self._opened = lru_cache(_OPENED)(ReferenceImage.from_path)

    def check(self) -> None:
        """Refuse what the model cannot be asked for.

        Raises:
            RequestError: names the first entry.
        """
        for entry in self.bench.entries:
            try:
                self._whole(entry)
            except USOError as error:
                raise RequestError(f"{entry.id}: {error}") from error

    def check_prompts(self, pipe: Any) -> None:
        """Refuse prompts that the model cannot read, by its tokenizer.

        Raises:
            RequestError: names the first one.
        """
        for prompt in {entry.prompt: None for entry in self.bench.entries}:
            try:
                pipe.check_prompt(prompt)
            except RequestError as error:
                raise RequestError(f"'{prompt}': {error}") from error

    def own(self, process: Process) -> dict[Entry, list[Result]]:
        """The pictures that a process makes, there or not, entry by entry."""
        found = itertools.groupby(results(self.bench, self.folder), key=lambda result: result.entry)
        return {
            entry: list(each) for number, (entry, each) in enumerate(found) if number % process.world == process.rank
        }

    def requests(self, entry: Entry, wanted: list[Result]) -> Iterator[tuple[GenerationRequest, dict[int, Path]]]:
        """One request for each unbroken run of missing pictures, and the picture of each seed."""
        absent = [result for result in wanted if not result.path.exists()]
        for _, run in itertools.groupby(enumerate(absent), key=lambda pair: pair[1].index - pair[0]):
            part = [result for _, result in run]
            request = replace(self._whole(entry), seed=part[0].seed, num_images=len(part))
            yield request, {result.seed: result.path for result in part}

    def _whole(self, entry: Entry) -> GenerationRequest:
        base = self.bench.path.parent
        strength = self.values.get("style_strengths")
        images = [self._opened(base / path) if path else None for path in entry.paths]
        return GenerationRequest.create(
            self.config,
            prompt=entry.prompt,
            content_images=[each for each in images[:1] if each],
            style_images=[each for each in images[1:] if each],
            seed=entry.seed,
            num_images=entry.images,
            **self.values | ({"style_strengths": (strength,) * len(entry.styles)} if strength is not None else {}),
        )
