"""The report on a model: a table for people, JSON values for programs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from uso.evaluation.report import Figure, table

Measure = Literal[
    "style",
    "either style",
    "both styles",
    "blend",
    "parameters",
    "subject",
    "subject, kept",
    "subject, moved",
    "layout",
]

LEGEND = (
    "style, subject: share of pictures that the judge finds nearer to their own than to 9 others;\n"
    "either style, both styles: of two asked for and 8 others one is the nearest, the two are the two nearest;\n"
    "blend: of these ten, and of every two of them at once, the two at once are the nearest;\n"
    "parameters: share of pictures that are nearer to their style's parameters than to others of the same style;\n"
    "kept, moved: of those with the content image's layout, and of those with a new one.\n"
    "layout: how far edges agree with the content image's, at most 1; chance: with another content image's.\n"
    "95 %: interval of the figure before it; of shares, one that knows which pictures share a style or a subject.\n"
    "reference: the style images' own style (of two, what the first image alone would get), the content images' own "
    "subject.\n"
    "truth: the drawn pictures that a perfect model would make; decoded: those after the model's autoencoder."
)

_WORDS = 2
"""Columns on the left of the table that hold words, not numbers."""


@dataclass(frozen=True)
class Score:
    """One measure of one condition. Shares in [0, 1], or mean agreement in [-1, 1] (`layout`)."""

    condition: str
    measure: Measure
    models: dict[str, Figure]
    """By the model's name in the report: `result`, or `before` and `after`."""
    chance: float | None
    """What would be had for nothing; None where too few pictures tell."""
    truth: Figure
    decoded: Figure
    """Of the truth after the model's autoencoder."""
    reference: Figure | None = None
    """Of the image that the model was given: of the style images their style (of two, of the first image alone), of the
    content images their subject."""
    each: dict[str, Figure] = field(default_factory=dict)
    """Of shares, those of the last model's pictures of every style or subject, the lowest first; for programs."""


def as_json(scores: Sequence[Score], settings: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured, and with which settings."""
    return {"settings": settings, "scores": [asdict(score) for score in scores]}


def as_text(scores: Sequence[Score]) -> str:
    """An aligned table, one line per score, and what its columns mean; at least one score."""
    models = list(scores[0].models)
    head = ["condition", "measure", "n"]
    for name in models:
        head += [name, "95 %"]
    rows = [[*head, "chance", "reference", "truth", "decoded"]]
    for score in scores:
        figures = [cell for name in models for cell in _with_interval(score.models[name], score.measure)]
        known = "-" if score.chance is None else _shown(score.chance, score.measure)
        own = "-" if score.reference is None else _shown(score.reference.value, score.measure)
        best = [_shown(figure.value, score.measure) for figure in (score.truth, score.decoded)]
        rows.append([score.condition, score.measure, str(score.truth.n), *figures, known, own, *best])
    return "\n".join([table(rows, _WORDS), "", LEGEND])


def _with_interval(figure: Figure, measure: Measure) -> list[str]:
    low, high = (_shown(value, measure) for value in (figure.low, figure.high))
    return [_shown(figure.value, measure), f"{low} to {high}"]


def _shown(value: float, measure: Measure) -> str:
    return f"{value:.2f}" if measure == "layout" else f"{100 * value:.1f} %"
