"""From pictures to scores of every condition."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.drawn import needs_font
from tests.support.judging import BY_NAME, SAME, SIZE, differing, small_request
from tools.demo.judge.judge import (
    Judge,
    Vectors,
    rivals,
)
from tools.demo.judge.material import CONDITIONS, Task, draw_task
from tools.demo.judge.report import Score
from tools.demo.judge.scores import DECODED, TRUTH, Batch, Tally, evaluate
from tools.demo.world.styles import BY_NAME as STYLES_BY_NAME
from tools.demo.world.triplets import Pixels
from uso.evaluation.metrics.csd import load_csd
from uso.pipeline.pipeline import USOPipeline

pytestmark = needs_font


def scored(judge: Judge, tasks: list[Task], pictures: Pixels) -> dict[str, Score]:
    """Scores by measure of a maker of these pictures; truth and what is left of it are the same."""
    tally = Tally(BY_NAME["seen"], judge)
    tally.add(tasks, {"result": pictures, TRUTH: pictures, DECODED: pictures})
    return {score.measure: score for score in tally.scores(["result"])}


def test_a_copy_of_the_content_keeps_its_layout(judge: Judge) -> None:
    """Catches edges that are compared with another row's: a copy must agree wholly, and with others hardly.

    Planted: pictures in another order.
    """
    tasks = [draw_task(BY_NAME["seen"], number, SIZE) for number in range(8)]
    contents = np.stack([task.content for task in tasks if task.content is not None])
    layout = scored(judge, tasks, contents)["layout"]
    assert layout.truth.n == 4  # every second one
    assert layout.models["result"].value == pytest.approx(1)
    assert layout.chance is not None and layout.chance < 0.6
    assert scored(judge, tasks, contents[::-1])["layout"].models["result"].value < 0.6
    assert scored(judge, tasks[:1], contents[:1])["layout"].chance is None  # there is no other


@pytest.mark.slow
def test_pictures_are_held_against_their_own_names(judge_file: Path) -> None:
    """Catches style vectors held against subjects, and rows against their neighbours' names.

    The prototypes are the vectors of the very pictures that are judged. Planted: pictures in another order.
    """
    drawn = [draw_task(BY_NAME["seen"], number, SIZE) for number in range(20)]
    tasks = list({task.style_name: task for task in {task.subject: task for task in drawn}.values()}.values())
    assert len(tasks) >= 8  # each name once
    truth = np.stack([task.truth for task in tasks])
    judge = Judge(load_csd(judge_file), SIZE, examples=1)
    vectors = judge.vectors(truth)
    judge.styles |= {str(task.style_name): vector for task, vector in zip(tasks, vectors.style, strict=True)}
    judge.subjects |= {task.subject: vector for task, vector in zip(tasks, vectors.subject, strict=True)}
    right, wrong = scored(judge, tasks, truth), scored(judge, tasks, np.roll(truth, 1, axis=0))
    for measure in ("style", "subject", "subject, kept", "subject, moved"):
        assert right[measure].models["result"].value == 1
        assert wrong[measure].models["result"].value < 0.7
    contents = np.stack([task.content for task in tasks if task.content is not None])
    styles = np.stack([task.style for task in tasks if task.style is not None])
    judge.subjects |= {t.subject: v for t, v in zip(tasks, judge.vectors(contents).subject, strict=True)}
    judge.styles |= {str(t.style_name): v for t, v in zip(tasks, judge.vectors(styles).style, strict=True)}
    given = scored(judge, tasks, truth)
    others = [
        replace(task, content=other.content, style=other.style)
        for task, other in zip(tasks, [*tasks[1:], tasks[0]], strict=True)
    ]
    exchanged = scored(judge, others, truth)
    for measure in ("style", "subject", "subject, kept", "subject, moved"):
        reference, other_reference = given[measure].reference, exchanged[measure].reference
        assert reference is not None and reference.value == 1
        assert other_reference is not None and other_reference.value < 0.7
    each = wrong["style"].each
    assert set(each) == {task.style_name for task in tasks}
    assert [figure.value for figure in each.values()] == sorted(figure.value for figure in each.values())
    assert sum(figure.value for figure in each.values()) / len(tasks) == pytest.approx(
        wrong["style"].models["result"].value
    )


@pytest.mark.parametrize(
    ("shares", "found"),
    [
        ((0.6, 0.5), (1, 1, 1)),
        ((0.5, 0.6), (1, 1, 1)),
        ((1.0, 0.31), (1, 1, 0)),
        ((1, 0), (1, 0, 0)),
        ((0, 0), (0, 0, 0)),
    ],
)
def test_a_picture_in_two_styles_must_be_nearest_to_both(
    judge: Judge, shares: tuple[float, float], found: tuple[int, int, int]
) -> None:
    """Catches a picture in one style that passes for one in two. Vectors are planted: each style has an axis, two at
    once lie between theirs, and a picture has so much of its two, and 0.3 of a rival."""

    class Planted(Judge):
        def __init__(self) -> None:
            self.styles = dict(zip(STYLES_BY_NAME, torch.eye(len(STYLES_BY_NAME)), strict=True))
            self.subjects = judge.subjects
            self.blends = {
                frozenset(pair): torch.nn.functional.normalize(self.styles[pair[0]] + self.styles[pair[1]], dim=0)
                for pair in combinations(self.styles, 2)
            }

        def vectors(self, pictures: Iterable[Pixels]) -> Vectors:
            return Vectors(torch.stack([self.of(task) for task in tasks]), judge.vectors(pictures).subject)

        def of(self, task: Task) -> torch.Tensor:
            own = (str(task.style_name), str(task.style_name_2))
            names = [*own, rivals(self.styles, own, "two-styles/style", task.index)[0]]
            return sum((share * self.styles[name] for share, name in zip((*shares, 0.3), names, strict=True)), zero)

    zero = torch.zeros(len(STYLES_BY_NAME))
    tasks = [draw_task(BY_NAME["two-styles"], number, SIZE) for number in range(3)]
    tally = Tally(BY_NAME["two-styles"], Planted())
    truth = np.stack([task.truth for task in tasks])
    tally.add(tasks, {"result": truth, TRUTH: truth, DECODED: truth})
    values = {score.measure: score.models["result"].value for score in tally.scores(["result"])}
    assert tuple(values.pop(measure) for measure in ("either style", "both styles", "blend")) == found
    assert "style" not in values


@pytest.mark.slow
def test_every_condition_is_scored(pipeline: USOPipeline, judge: Judge) -> None:
    """Two models that are one must score alike, and each condition has its measures and its numbers of pictures."""
    models = {"before": pipeline, "after": pipeline}
    events = list(evaluate(models, judge, small_request(pipeline, num_inference_steps=1), count=3, batch=2))
    batches = [event for event in events if isinstance(event, Batch)]
    scores = [event for event in events if isinstance(event, Score)]
    assert [(batch.condition.name, batch.done) for batch in batches] == [
        (name, done) for name in BY_NAME for done in (2, 3)
    ]
    measures = [(score.condition, score.measure, score.truth.n) for score in scores]
    assert measures[:3] == [("seen", "style", 3), ("seen", "parameters", 3), ("seen", "subject", 3)]
    assert measures[3:6] == [("seen", "subject, kept", 2), ("seen", "subject, moved", 1), ("seen", "layout", 2)]
    by_words = [(measure, n) for condition, measure, n in measures if condition in ("style+prompt", "text")]
    assert by_words == [("style", 3), ("parameters", 3), ("subject", 3), ("subject", 3)]
    unnamed = [measure for condition, measure, _ in measures if condition == "new-grammar"]
    assert unnamed == ["parameters", "subject", "subject, kept", "subject, moved", "layout"]  # no judge knows a name
    assert [measure for condition, measure, _ in measures if condition == "two-styles"] == [
        "either style",
        "both styles",
        "blend",
        *(
            measure
            for condition, measure, _ in measures
            if condition == "seen" and measure not in ("style", "parameters")
        ),
    ]
    assert len(measures) == 4 * 6 + 5 + 4 + 7
    for score in scores:
        before, after = score.models["before"], score.models["after"]
        assert (before.value, before.low) == pytest.approx((after.value, after.low), abs=1e-6)
        chance = {"either style": 0.2, "both styles": 1 / 45, "blend": 1 / 55, "parameters": 1 / 2}.get(
            score.measure, 0.1
        )
        assert score.measure == "layout" or score.chance == pytest.approx(chance)
        given = dict.fromkeys(("style", "parameters"), BY_NAME[score.condition].style) | {"layout": False}
        assert (score.reference is not None) == given.get(score.measure, BY_NAME[score.condition].content)
        assert score.reference is None or score.reference.n == score.truth.n
        assert sum(figure.n for figure in score.each.values()) == (0 if score.measure == "layout" else score.truth.n)


@pytest.mark.parametrize("width", [SIZE, 3 * SIZE // 2])
def test_batch_size_changes_nothing(pipeline: USOPipeline, judge: Judge, width: int) -> None:
    """Catches tasks, noise or rivals that are numbered from the batch's start, and pictures under each other's tasks
    where contents have two shapes."""
    request = small_request(pipeline, num_inference_steps=1, width=width)
    runs = [
        list(evaluate({"result": pipeline}, judge, request, count=4, batch=batch, conditions=CONDITIONS[:1]))
        for batch in (1, 4)
    ]
    single_batches, whole = ([event for event in run if isinstance(event, Batch)] for run in runs)
    pictures = np.concatenate([batch.results["result"] for batch in single_batches])
    assert differing(pictures, whole[0].results["result"]) < SAME
    assert pictures.shape[1:] == whole[0].tasks[0].truth.shape == (SIZE, width, 3)
    ones, all_at_once = ([event for event in run if isinstance(event, Score)] for run in runs)
    for one, other in zip(ones, all_at_once, strict=True):
        assert one.truth.value == pytest.approx(other.truth.value, abs=1e-6)
        assert one.models["result"].value == pytest.approx(other.models["result"].value, abs=1e-3)
