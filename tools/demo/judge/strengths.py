"""Style strength against the judge: the same tasks drawn at each strength, and a plot of what the judge finds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from tools.demo.judge.draw import draw
from tools.demo.judge.judge import CHANCE, Judge, nearest, rivals
from tools.demo.judge.material import CONDITIONS, draw_task
from uso.evaluation.report import Figure, mean, share
from uso.pipeline.pipeline import USOPipeline
from uso.request.request import GenerationRequest

CONDITION = CONDITIONS[0]
"""Content and style, seen ones in new pictures."""

STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class Point:
    """What the judge finds in the pictures of one strength."""

    strength: float
    style: Figure
    """Share of pictures whose style is nearer to its own than to 9 others."""
    likeness: Figure
    """Cosine with the style's prototype."""
    subject: Figure
    """Share of pictures whose subject is nearer to its own than to 9 others."""


def measure(
    pipeline: USOPipeline, judge: Judge, request: GenerationRequest, *, count: int, batch: int
) -> Iterator[Point]:
    """Draw `count` tasks at each strength, from the same noise, and judge them."""
    tasks = [draw_task(CONDITION, number, request.width) for number in range(count)]
    for strength in STRENGTHS:
        styles: list[bool] = []
        subjects: list[bool] = []
        likeness: list[float] = []
        for start in range(0, count, batch):
            some = tasks[start : start + batch]
            vectors = judge.vectors(draw(pipeline, some, request, strength))
            for task, style, subject in zip(some, vectors.style, vectors.subject, strict=True):
                assert task.style_name is not None
                likeness.append(float(judge.styles[task.style_name] @ style))
                styles.append(_right(style, judge.styles, task.style_name, "style", task.index))
                subjects.append(_right(subject, judge.subjects, task.subject, "subject", task.index))
        yield Point(strength, share(styles), mean(likeness), share(subjects))


def _right(vector: torch.Tensor, prototypes: dict[str, torch.Tensor], own: str, measure: str, task: int) -> bool:
    """Whether it is nearest to its own among the rivals that `evaluate` gives the same task."""
    return nearest(vector, prototypes, own, rivals(prototypes, (own,), f"{CONDITION.name}/{measure}", task))


# The plot.

_WIDTH, _HEIGHT, _LEFT, _TOP = 420, 250, 46, 24
_SPAN, _RISE = 340, 180
_COLOURS = {"style": "#1f5fbf", "subject": "#b3541e"}


def plot(points: Sequence[Point], title: str) -> str:
    """Shares over strengths with 95 % intervals, as SVG."""

    def place(strength: float, value: float) -> tuple[float, float]:
        return round(_LEFT + _SPAN * strength / STRENGTHS[-1], 1), round(_TOP + _RISE * (1 - value), 1)

    parts = [f'<text x="{_LEFT}" y="14" font-weight="bold">{title}</text>']
    for value in (0, 0.25, 0.5, 0.75, 1):
        x, y = place(0, value)
        parts.append(f'<path d="M{x} {y}h{_SPAN}" stroke="#bbb" stroke-width="0.5"/>')
        parts.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{value:.0%}</text>')
    x, y = place(0, CHANCE)
    parts.append(f'<path d="M{x} {y}h{_SPAN}" stroke="#777" stroke-dasharray="3 3"/>')
    parts.append(f'<text x="{x + _SPAN}" y="{y - 4}" text-anchor="end" fill="#555">chance</text>')
    for name, colour in _COLOURS.items():
        figures: list[tuple[float, Figure]] = [(point.strength, getattr(point, name)) for point in points]
        line = " ".join("{},{}".format(*place(strength, figure.value)) for strength, figure in figures)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for strength, figure in figures:
            (x, low), (_, high), (_, y) = (place(strength, each) for each in (figure.low, figure.high, figure.value))
            parts.append(
                f'<path d="M{x} {low}V{high}" stroke="{colour}"/><circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>'
            )
    for strength in STRENGTHS:
        x, y = place(strength, 0)
        parts.append(f'<text x="{x}" y="{y + 16}" text-anchor="middle">{strength:g}</text>')
    middle = _LEFT + _SPAN / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">style strength</text>')
    for number, (name, colour) in enumerate(_COLOURS.items()):
        parts.append(f'<text x="{_LEFT + 230 + 60 * number}" y="14" fill="{colour}">{name}</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )
