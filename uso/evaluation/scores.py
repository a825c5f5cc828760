"""Scores of every picture, from vectors alone: cosines with the pictures of its references and with its prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from uso.evaluation.bench.entries import Bench, Entry
from uso.evaluation.metrics import Vectors
from uso.evaluation.pictures import Result

METRICS = {
    "subject": ("clip_i", "dino", "clip_t"),
    "style": ("csd", "clip_t", "leak"),
    "joint-kept": ("csd", "clip_i", "dino", "leak"),
    "joint-moved": ("csd", "clip_t", "dino", "leak", "copying"),
    "text": ("clip_t",),
}
"""What each task is measured by. An empty prompt has no CLIP-T, whatever the task."""

NAMES = {
    "clip_i": "CLIP-I",
    "clip_t": "CLIP-T",
    "dino": "DINO",
    "csd": "CSD",
    "leak": "leak",
    "copying": "copying",
}
LOWER_IS_BETTER = ("leak", "copying")
ABOUT_STYLE = ("csd", "leak")
"""Means are taken per style first for these, and per content for the others."""


@dataclass(frozen=True)
class Score:
    """One picture's scores; those that its task has not are left out."""

    id: str
    index: int
    task: str
    prompt: str
    content: str | None
    style: str | None
    seed: int
    file: str
    sha256: str
    values: dict[str, float]

    def plain(self) -> dict[str, object]:
        return asdict(self)


def score(
    bench: Bench,
    found: Sequence[tuple[Result, str]],
    clip: Mapping[str, Vectors],
    dino: Mapping[str, Vectors],
    csd: Mapping[str, Vectors],
    texts: Mapping[str, Vectors],
) -> list[Score]:
    """Scores of pictures.

    Args:
        found: pictures that are there, with their SHA-256.
        clip, dino, csd: unit vectors of these pictures and of all references', by SHA-256.
        texts: unit vectors of the prompts, in CLIP's space.
    """

    def against(vectors: Mapping[str, Vectors], own: str, reference: str) -> Vectors:
        """Cosines of a picture with all pictures of a reference."""
        return np.stack([vectors[each] for each in bench.references[reference].hashes]) @ vectors[own]

    def value(metric: str, entry: Entry, own: str) -> float | None:
        if metric == "clip_t":
            return max(0.0, float(texts[entry.prompt] @ clip[own])) if entry.prompt.strip() else None
        if metric in ("clip_i", "copying"):
            return float(np.maximum(against(clip, own, entry.content), 0).mean()) if entry.content else None
        if metric == "dino":
            return float(against(dino, own, entry.content).mean()) if entry.content else None
        if not entry.styles:
            return None
        vectors = csd if metric == "csd" else dino
        return float(np.mean([against(vectors, own, style).mean() for style in entry.styles]))

    scores = []
    for result, digest in found:
        entry = result.entry
        values = {metric: value(metric, entry, digest) for metric in METRICS[entry.task]}
        scores.append(
            Score(
                id=entry.id,
                index=result.index,
                task=entry.task,
                prompt=entry.prompt,
                content=entry.content,
                style=entry.style,
                seed=result.seed,
                file=str(result.path.absolute()),
                sha256=digest,
                values={metric: each for metric, each in values.items() if each is not None},
            )
        )
    return scores
