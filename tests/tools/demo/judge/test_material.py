"""The tasks of every condition, and the examples that the judge knows styles and subjects by."""

import numpy as np
import pytest

from tests.support.drawn import needs_font
from tests.support.judging import BY_NAME, SIZE
from tools.demo.judge.material import FIRST, draw_task, style_examples
from tools.demo.world.styles import BY_NAME as STYLES_BY_NAME
from tools.demo.world.styles.grammar import GRAMMAR_NAME, HELD_OUT
from tools.demo.world.subjects import BY_NAME as SUBJECTS_BY_NAME

pytestmark = needs_font


@pytest.mark.parametrize("name", list(BY_NAME))
def test_tasks_bring_what_their_condition_says(name: str) -> None:
    """Catches a condition out of another split, words where the layout is kept, or a truth of something else."""
    condition = BY_NAME[name]
    tasks = [draw_task(condition, number, SIZE) for number in range(4)]
    for number, task in enumerate(tasks):
        assert task.index == FIRST + number
        assert (task.content is not None, task.style is not None) == (condition.content, condition.style)
        assert task.kept == (condition.content and number % 2 == 0)
        assert (task.prompt == "") == task.kept
        assert task.kept or task.subject in task.prompt
        assert SUBJECTS_BY_NAME[task.subject].held_out == (name in ("new-subjects", "new-both"))
        assert (task.style_name is not None) == condition.style
        assert (task.style_2 is not None) == (task.style_name_2 is not None) == condition.two_styles
        assert (task.style_name == GRAMMAR_NAME) == condition.grammar
        if condition.grammar:
            assert (task.params["regions"], task.params["marks"]) in HELD_OUT
        elif task.style_name is not None:
            assert STYLES_BY_NAME[task.style_name].held_out == (name in ("new-styles", "new-both"))
            assert STYLES_BY_NAME[task.style_name].phrase not in task.prompt
    again = draw_task(condition, 3, SIZE)
    assert np.array_equal(again.truth, tasks[3].truth) and again.prompt == tasks[3].prompt
    assert len({task.truth.tobytes() for task in tasks}) == 4


def test_two_styles_are_those_of_the_seen_tasks_and_one_more() -> None:
    """Catches figures that other subjects and layouts make differ, and a truth in one style."""
    for number in range(4):
        one, two = (draw_task(BY_NAME[name], number, SIZE) for name in ("seen", "two-styles"))
        assert (one.subject, one.style_name, one.prompt) == (two.subject, two.style_name, two.prompt)
        assert np.array_equal(one.content, two.content) and np.array_equal(one.style, two.style)  # type: ignore[arg-type]
        assert two.style_name_2 not in (None, two.style_name) and not np.array_equal(one.truth, two.truth)


def test_truth_of_words_alone_is_plain() -> None:
    """A model that was told no style must not be measured at a styled picture."""
    words, styled = (draw_task(BY_NAME[name], 0, SIZE) for name in ("text", "style+prompt"))
    assert words.prompt == styled.prompt
    assert not np.array_equal(words.truth, styled.truth)


def test_examples_are_the_same_each_time_and_differ() -> None:
    """Catches prototypes that move from run to run, or are sixteen times one picture."""
    style = STYLES_BY_NAME["woodcut"]
    first, second = style_examples(style, 3, SIZE), style_examples(style, 3, SIZE)
    assert first.shape == (3, SIZE, SIZE, 3) and np.array_equal(first, second)
    assert len({picture.tobytes() for picture in first}) == 3
