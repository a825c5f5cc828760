"""From models and a judge to scores: condition after condition, batch after batch, as a generator.

Progress, pictures on disk and stopping are the caller's loop. Every model draws the same tasks from the same noise.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from tools.demo.judge.draw import draw, through_autoencoder
from tools.demo.judge.intervals import shared
from tools.demo.judge.judge import (
    BLEND_CHANCE,
    BOTH_CHANCE,
    CHANCE,
    EITHER_CHANCE,
    Judge,
    nearest,
    nearest_looks,
    ranked,
    rivals,
)
from tools.demo.judge.material import CONDITIONS, Condition, Task, draw_task
from tools.demo.judge.parameters import CHANCE as CHOICE_CHANCE
from tools.demo.judge.parameters import Choice
from tools.demo.judge.report import Measure, Score
from tools.demo.judge.structure import agreement, edge_map
from tools.demo.world.brush import Array
from tools.demo.world.triplets import Pixels
from uso.evaluation.report import Figure, mean, share
from uso.pipeline.pipeline import USOPipeline
from uso.request.request import GenerationRequest

TRUTH, DECODED, REFERENCE = "truth", "decoded", "reference"

_SHARES: dict[Measure, float] = {
    "style": CHANCE,
    "either style": EITHER_CHANCE,
    "both styles": BOTH_CHANCE,
    "blend": BLEND_CHANCE,
    "parameters": CHOICE_CHANCE,
    "subject": CHANCE,
    "subject, kept": CHANCE,
    "subject, moved": CHANCE,
}
"""Measures that are shares, in the report's order, and what would be had for nothing."""


@dataclass(frozen=True)
class Batch:
    """Tasks that were drawn, and each model's pictures of them, [B, H, W, 3]."""

    condition: Condition
    tasks: list[Task]
    results: dict[str, Pixels]
    decoded: Pixels
    """The truth after the last model's autoencoder."""
    done: int
    """Tasks of the condition that are drawn, these included."""


def evaluate(
    models: Mapping[str, USOPipeline],
    judge: Judge,
    request: GenerationRequest,
    *,
    count: int,
    batch: int,
    conditions: Sequence[Condition] = CONDITIONS,
) -> Iterator[Batch | Score]:
    """Draw and judge; yields every batch, and after a condition's last one its scores.

    Args:
        models: by their names in the report; the last one's autoencoder shows what truth loses in it.
        request: sizes, steps, guidance and schedule.
        count: tasks per condition.
        batch: tasks that are drawn at once.
    """
    short, ratio = min(request.width, request.height), request.width / request.height
    for condition in conditions:
        tally = Tally(condition, judge)
        for start in range(0, count, batch):
            numbers = range(start, min(start + batch, count))
            tasks = [draw_task(condition, number, short, ratio) for number in numbers]
            results = {name: draw(pipeline, tasks, request) for name, pipeline in models.items()}
            truth = np.stack([task.truth for task in tasks])
            decoded = through_autoencoder(list(models.values())[-1], truth)
            tally.add(tasks, {**results, TRUTH: truth, DECODED: decoded})
            yield Batch(condition, tasks, results, decoded, done=numbers.stop)
        yield from tally.scores(list(models))


@dataclass(frozen=True)
class Found:
    """What was found of one picture: whether it is right, and what it shares with others."""

    name: str
    """Of the style (or two) or of the subject that it is counted for."""
    style: str
    subject: str
    right: bool


def _found(task: Task, name: str, right: bool) -> Found:
    style = " + ".join(each for each in (task.style_name, task.style_name_2) if each)
    return Found(name, style, task.subject, right)


class Tally:
    """What was found of one condition's pictures."""

    def __init__(self, condition: Condition, judge: Judge) -> None:
        self.condition = condition
        self.judge = judge
        self._right: dict[tuple[Measure, str], list[Found]] = defaultdict(list)
        self._edges: dict[str, list[Array]] = defaultdict(list)
        self._content_edges: list[Array] = []

    def add(self, tasks: list[Task], pictures: Mapping[str, Pixels]) -> None:
        """Judge each maker's pictures [B, H, W, 3] of some tasks."""
        choices = {task.index: Choice(task) for task in tasks if task.params and task.style_2 is None}
        for name, made in pictures.items():
            vectors = self.judge.vectors(made)
            self._add_subjects(name, tasks, vectors.subject)
            self._add_styles(name, tasks, vectors.style)
            self._add_parameters(name, tasks, made, choices)
            self._edges[name] += [edge_map(picture) for task, picture in zip(tasks, made, strict=True) if task.kept]
        self._content_edges += [edge_map(task.content) for task in tasks if task.kept and task.content is not None]
        contents = [task.content for task in tasks if task.content is not None]
        if contents:
            self._add_subjects(REFERENCE, tasks, self.judge.vectors(contents).subject)
        styles = [task.style for task in tasks if task.style is not None]
        if styles:
            self._add_styles(REFERENCE, tasks, self.judge.vectors(np.stack(styles)).style)
            self._add_parameters(REFERENCE, tasks, np.stack(styles), choices)

    def _add_subjects(self, name: str, tasks: list[Task], vectors: torch.Tensor) -> None:
        for task, vector in zip(tasks, vectors, strict=True):
            others = rivals(self.judge.subjects, (task.subject,), self._question("subject"), task.index)
            right = nearest(vector, self.judge.subjects, task.subject, others)
            found = _found(task, task.subject, right)
            self._right["subject", name].append(found)
            if self.condition.content:
                self._right["subject, kept" if task.kept else "subject, moved", name].append(found)

    def _add_styles(self, name: str, tasks: list[Task], vectors: torch.Tensor) -> None:
        for task, vector in zip(tasks, vectors, strict=True):
            own = tuple(style for style in (task.style_name, task.style_name_2) if style is not None)
            if any(style not in self.judge.styles for style in own):
                continue  # styles of the grammar have no prototype
            others = rivals(self.judge.styles, own, self._question("style"), task.index)
            if len(own) == 1:
                right = nearest(vector, self.judge.styles, own[0], others)
                self._right["style", name].append(_found(task, own[0], right))
            elif own:
                pair, names = " + ".join(own), [*own, *others]
                found = ranked(vector, self.judge.styles, names)[:2]
                looks = nearest_looks(vector, self.judge.styles, self.judge.blends, names)
                self._right["either style", name].append(_found(task, pair, found[0] in own))
                self._right["both styles", name].append(_found(task, pair, set(found) == set(own)))
                self._right["blend", name].append(_found(task, pair, looks == set(own)))

    def _add_parameters(self, name: str, tasks: list[Task], pictures: Pixels, choices: Mapping[int, Choice]) -> None:
        for task, picture in zip(tasks, pictures, strict=True):
            if task.index in choices:
                right = choices[task.index].nearer_to_own(picture)
                self._right["parameters", name].append(_found(task, str(task.style_name), right))

    def _question(self, measure: Literal["style", "subject"]) -> str:
        return f"{self.condition.name}/{measure}"

    def scores(self, models: Sequence[str]) -> list[Score]:
        """The condition's scores; `models` are the makers that are judged, the last one gives the chance level."""
        found: list[Score] = []
        for measure, chance in _SHARES.items():
            if (measure, TRUTH) not in self._right:
                continue
            figures = {
                name: _share(self._right[measure, name])
                for name in (*models, TRUTH, DECODED, REFERENCE)
                if (measure, name) in self._right
            }
            found.append(
                Score(
                    condition=self.condition.name,
                    measure=measure,
                    models={name: figures[name] for name in models},
                    chance=chance,
                    truth=figures[TRUTH],
                    decoded=figures[DECODED],
                    reference=figures.get(REFERENCE),
                    each=_by_name(self._right[measure, models[-1]]),
                )
            )
        return [*found, self._layout(models)] if self._content_edges else found

    def _layout(self, models: Sequence[str]) -> Score:
        contents = self._content_edges
        figures = {
            name: mean([agreement(*pair) for pair in zip(self._edges[name], contents, strict=True)])
            for name in (*models, TRUTH, DECODED)
        }
        others = [*contents[1:], contents[0]]
        unrelated = [agreement(*pair) for pair in zip(self._edges[models[-1]], others, strict=True)]
        return Score(
            condition=self.condition.name,
            measure="layout",
            models={name: figures[name] for name in models},
            chance=mean(unrelated).value if len(contents) > 1 else None,
            truth=figures[TRUTH],
            decoded=figures[DECODED],
        )


def _share(found: Sequence[Found]) -> Figure:
    return shared([(each.style, each.subject) for each in found], [each.right for each in found])


def _by_name(found: Sequence[Found]) -> dict[str, Figure]:
    """The share of each style or subject, the lowest first."""
    by_name: dict[str, list[bool]] = defaultdict(list)
    for each in found:
        by_name[each.name].append(each.right)
    shares = {name: share(right) for name, right in by_name.items()}
    return dict(sorted(shares.items(), key=lambda item: item[1].value))
