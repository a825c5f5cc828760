"""The choice between a style's parameters."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support.drawn import needs_font
from tools.demo.judge.material import CONDITIONS, draw_task
from tools.demo.judge.parameters import Choice, look

pytestmark = [needs_font, pytest.mark.slow]


@pytest.mark.parametrize("name", ["new-grammar", "new-styles"])
def test_the_truth_is_chosen_and_a_picture_of_the_others_is_not(name: str) -> None:
    """Catches measurements that do not tell parameters apart, and a choice that takes the others for its own."""
    (condition,) = (each for each in CONDITIONS if each.name == name)
    tasks = [draw_task(condition, number) for number in range(8)]
    choices = [Choice(task) for task in tasks]
    right = [choice.nearer_to_own(task.truth) for choice, task in zip(choices, tasks, strict=True)]
    assert sum(right) >= 7
    swapped = []
    for choice, task in zip(choices, tasks, strict=True):
        choice.means = choice.means[::-1]
        swapped.append(choice.nearer_to_own(task.truth))
    assert sum(swapped) <= 1


def test_measurements_do_not_depend_on_what_is_where() -> None:
    """Catches a look that is a picture's layout: the mirror image of a picture has its colours and its contrast."""
    (condition,) = (each for each in CONDITIONS if each.name == "new-grammar")
    task = draw_task(condition, 0)
    own = look(task.truth)
    mirrored, dark = look(np.ascontiguousarray(task.truth[:, ::-1])), look(task.truth // 2)
    assert np.abs(own - mirrored)[:22].max() < 0.02 < np.abs(own - dark).max()
    assert Choice(replace(task)).weights.shape == own.shape
