"""`train.evaluate`: batches are single requests, what is judged is held out, figures and their intervals are right.

Without the emoji font the tests are skipped; where CI is set they must run.
"""

import json
import os
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import draw_picture
from tests.support.tiny_training import training_pipeline
from tools.demo.__main__ import main
from tools.demo.judge.album import Album
from tools.demo.judge.draw import draw, through_autoencoder
from tools.demo.judge.judge import (
    BLEND_CHANCE,
    BOTH_CHANCE,
    EITHER_CHANCE,
    RIVALS,
    Judge,
    Vectors,
    nearest,
    ranked,
    rivals,
)
from tools.demo.judge.material import CONDITIONS, FIRST, Task, blend_examples, draw_task, style_examples
from tools.demo.judge.report import LEGEND, Score, as_json, as_text
from tools.demo.judge.scores import DECODED, TRUTH, Batch, Tally, evaluate
from tools.demo.judge.structure import agreement, edge_map, psnr
from tools.demo.parts.descriptor import new_descriptor
from tools.demo.world import subjects as subjects_module
from tools.demo.world.styles import BY_NAME as STYLES_BY_NAME
from tools.demo.world.subjects import BY_NAME as SUBJECTS_BY_NAME
from tools.demo.world.triplets import Pixels
from uso.errors import ConfigError
from uso.evaluation.metrics.csd import load_csd, published_tensors
from uso.evaluation.report import Figure, mean, share
from uso.evaluation.sheet import ROWS, SheetRow, contact_sheet
from uso.pipeline.pipeline import USOPipeline
from uso.request import GenerationRequest
from uso.training.model.export import write_safetensors

HAS_FONT = any(path.is_file() for path in subjects_module.FONT_PLACES)
needs_font = pytest.mark.skipif(not HAS_FONT and not os.environ.get("CI"), reason="Noto Color Emoji is not installed")
pytestmark = needs_font

SIZE = 32
BY_NAME = {condition.name: condition for condition in CONDITIONS}


@pytest.fixture(scope="module")
def pipeline() -> USOPipeline:
    """The golden network with text encoders that read whole sentences. Nothing here changes it."""
    found = training_pipeline()
    found.model_config = found.model_config.model_copy(update={"max_sequence_length": 64})
    return found


@pytest.fixture(scope="module")
def judge_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A descriptor that has learned nothing."""
    sizes = {"width": 64, "layers": 1, "image_size": 32, "patch_size": 16, "vector": 16}
    path = tmp_path_factory.mktemp("judge") / "descriptor.safetensors"
    write_safetensors(path, published_tensors(new_descriptor(sizes, seed=0)))
    return path


@pytest.fixture(scope="module")
def judge(judge_file: Path) -> Judge:
    return Judge(load_csd(judge_file), SIZE, examples=2)


def small_request(pipeline: USOPipeline, **values: Any) -> GenerationRequest:
    sizes = {"width": SIZE, "height": SIZE, "content_size": SIZE, "num_inference_steps": 4, "guidance_scale": 3.0}
    return GenerationRequest.create(pipeline.model_config, **(sizes | {"seed": FIRST} | values))


# Material.


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
        if task.style_name is not None:
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


# Pictures.


def single(pipeline: USOPipeline, task: Task) -> Pixels:
    """What a person who sends the task as a request gets."""
    output = pipeline(
        task.prompt,
        content_images=[] if task.content is None else [Image.fromarray(task.content)],
        style_images=[Image.fromarray(style) for style in (task.style, task.style_2) if style is not None],
        width=SIZE,
        height=SIZE,
        content_size=SIZE,
        num_inference_steps=4,
        guidance_scale=3.0,
        seed=task.index,
    )
    return np.asarray(output.images[0])


def differing(first: Pixels, second: Pixels) -> float:
    """The share of values that are not the same in two pictures."""
    return float((first != second).mean())


SAME, OTHER = 0.01, 0.05
"""At most so many values differ by float32's rounding, at the edge between two levels; at least so many otherwise."""


@pytest.mark.parametrize("name", ["seen", "style+prompt", "text", "two-styles"])
def test_a_batch_gives_the_pictures_of_single_requests(pipeline: USOPipeline, name: str) -> None:
    """Catches another seed, schedule, guidance, size or order inside a batch.

    Each part of one task is exchanged for its neighbour's, which must show: else the comparison would see nothing.
    """
    tasks = [draw_task(BY_NAME[name], number, SIZE) for number in range(3)]
    batch = draw(pipeline, tasks, small_request(pipeline))
    assert batch.shape == (3, SIZE, SIZE, 3) and batch.dtype == np.uint8
    for task, picture in zip(tasks, batch, strict=True):
        assert differing(picture, single(pipeline, task)) < SAME
    task, other = tasks[0], tasks[1]
    for part in ("index", "prompt", "content", "style", "style_2"):
        if getattr(task, part) is not None:
            (wrong,) = draw(pipeline, [replace(task, **{part: getattr(other, part)})], small_request(pipeline))
            assert differing(wrong, batch[0]) > OTHER, part


def test_a_model_is_drawn_with_the_steps_that_were_asked_for(pipeline: USOPipeline) -> None:
    """Catches a report that names steps and guidance which no picture saw."""
    tasks = [draw_task(BY_NAME["seen"], 0, SIZE)]
    told, steps, guidance = (
        draw(pipeline, tasks, small_request(pipeline, **values))
        for values in ({}, {"num_inference_steps": 3}, {"guidance_scale": 1.0})
    )
    assert differing(told, steps) > OTHER and differing(told, guidance) > OTHER


def test_autoencoder_alone(pipeline: USOPipeline) -> None:
    """Catches latents that are scaled one way only: encoded and decoded by hand the picture must be the same."""
    pictures = np.stack([np.asarray(draw_picture(SIZE, SIZE, seed)) for seed in range(2)])
    found = through_autoencoder(pipeline, pictures)
    with torch.inference_mode():
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
        by_hand = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mean).sample
        levels = ((by_hand.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    assert differing(found, levels) < SAME
    assert differing(found[::-1], levels) > OTHER


# The judge.


def test_rivals_are_nine_others(judge: Judge) -> None:
    """Catches a style that is held against itself, or rivals that change with the model that is judged."""
    for number in range(20):
        found = rivals(judge.styles, ("woodcut",), "seen/style", number)
        assert len(set(found)) == RIVALS and "woodcut" not in found
        assert found == rivals(judge.styles, ("woodcut",), "seen/style", number)
    sets = {tuple(rivals(judge.styles, ("woodcut",), "seen/style", number)) for number in range(20)}
    assert len(sets) == 20
    every = {name for number in range(200) for name in rivals(judge.styles, ("woodcut",), "seen/style", number)}
    assert every == set(judge.styles) - {"woodcut"}  # held-out ones too
    of_two = rivals(judge.styles, ("woodcut", "neon"), "two-styles/style", 3)
    assert len(set(of_two)) == RIVALS - 1 and not {"woodcut", "neon"} & set(of_two)


def test_nearest_is_the_largest_cosine() -> None:
    """Catches a distance taken for a cosine, and a tie that counts as right."""
    prototypes = {name: torch.eye(3)[number] for number, name in enumerate("abc")}
    vector = torch.tensor([0.9, 0.1, 0.0])
    assert nearest(vector, prototypes, "a", ["b", "c"])
    assert not nearest(vector, prototypes, "b", ["a", "c"])
    assert not nearest(torch.tensor([0.5, 0.5, 0.0]), prototypes, "a", ["b", "c"])
    assert ranked(torch.tensor([0.1, -0.9, 0.4]), prototypes, ["a", "b", "c"]) == ["c", "a", "b"]


def test_blends_are_of_every_two_styles(judge: Judge) -> None:
    """Catches a pair that is missing, and blends that are one style's pictures."""
    assert set(judge.blends) == {frozenset(pair) for pair in combinations(STYLES_BY_NAME, 2)}
    assert all(float(vector.norm()) == pytest.approx(1, abs=1e-5) for vector in judge.blends.values())
    found = dict(blend_examples(2, SIZE))
    one, other = (found[frozenset(("woodcut", name))] for name in ("neon", "oil"))
    assert one.shape == (2, SIZE, SIZE, 3) and not np.array_equal(one, other)
    assert np.array_equal(one, dict(blend_examples(2, SIZE))[frozenset(("neon", "woodcut"))])


def test_prototypes_are_of_every_name_and_unit_long(judge: Judge) -> None:
    """Catches held-out styles or subjects that are no rivals, and style vectors under the subjects' names."""
    assert set(judge.styles) == set(STYLES_BY_NAME) and set(judge.subjects) == set(SUBJECTS_BY_NAME)
    for vector in (*judge.styles.values(), *judge.subjects.values()):
        assert float(vector.norm()) == pytest.approx(1, abs=1e-5)
    vectors = judge.vectors(style_examples(STYLES_BY_NAME["woodcut"], 2, SIZE))
    own = float(judge.styles["woodcut"] @ torch.nn.functional.normalize(vectors.style.mean(0), dim=0))
    mistaken = float(judge.styles["woodcut"] @ torch.nn.functional.normalize(vectors.subject.mean(0), dim=0))
    assert own == pytest.approx(1, abs=1e-5) and mistaken < 0.99


# Layout.


def test_layout_agrees_whatever_the_colours() -> None:
    """Catches a measure of colours instead of edges, and one that a moved picture passes."""
    picture = np.asarray(draw_picture(128, 128, 3))
    edges = edge_map(picture)
    assert agreement(edges, edges) == pytest.approx(1)
    assert agreement(edges, edge_map(255 - picture)) == pytest.approx(1, abs=1e-3)
    padded = [np.pad(picture, ((0, 0), (by, 0), (0, 0)), mode="edge")[:, :128] for by in (1, 40)]
    nudged, moved = (agreement(edges, edge_map(other)) for other in padded)
    assert nudged > 0.8 and moved < 0.5
    assert agreement(edges, edge_map(np.asarray(draw_picture(128, 128, 4)))) < 0.5
    assert agreement(edges, edge_map(np.full_like(picture, 90))) == 0


# Figures.


@pytest.mark.parametrize(
    ("right", "n", "low", "high"), [(8, 10, 0.4902, 0.9433), (0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0)]
)
def test_wilson_interval(right: int, n: int, low: float, high: float) -> None:
    """Published values; the plain normal interval would give 0.552 for the first, and no width for the others."""
    figure = share([True] * right + [False] * (n - right))
    assert (figure.value, figure.n) == (right / n, n)
    assert (figure.low, figure.high) == pytest.approx((low, high), abs=1e-4)


def test_mean_and_its_interval() -> None:
    """Standard error from the sample's own variance (n - 1): 1.96 * sqrt(1 / 3)."""
    figure = mean([1.0, 2.0, 3.0])
    assert (figure.value, figure.n) == (2, 3)
    assert figure.high - figure.value == pytest.approx(1.1316, abs=1e-4)
    assert mean([0.5]) == Figure(0.5, 0.5, 0.5, 1)


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

        def vectors(self, pictures: Pixels) -> Vectors:
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


def test_chance_of_two_styles_is_that_of_drawing_them() -> None:
    """By counting: of all pairs of ten, how many hold one of two, and how many are the two."""
    names = range(1 + RIVALS)
    orders = [(first, second) for first in names for second in names if first != second]
    assert pytest.approx(EITHER_CHANCE) == sum(first in (0, 1) for first, _ in orders) / len(orders)
    assert pytest.approx(BLEND_CHANCE) == 1 / (len(names) + len(orders) / 2)
    assert pytest.approx(BOTH_CHANCE) == sum({first, second} == {0, 1} for first, second in orders) / len(orders)


# Everything together.


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
    assert measures[:3] == [("seen", "style", 3), ("seen", "subject", 3), ("seen", "subject, kept", 2)]
    assert measures[3:5] == [("seen", "subject, moved", 1), ("seen", "layout", 2)]
    assert measures[20:23] == [("style+prompt", "style", 3), ("style+prompt", "subject", 3), ("text", "subject", 3)]
    assert [measure for condition, measure, _ in measures if condition == "two-styles"] == [
        "either style",
        "both styles",
        "blend",
        *(measure for condition, measure, _ in measures if condition == "seen" and measure != "style"),
    ]
    assert len(measures) == 23 + 7
    for score in scores:
        before, after = score.models["before"], score.models["after"]
        assert (before.value, before.low) == pytest.approx((after.value, after.low), abs=1e-6)
        chance = {"either style": 0.2, "both styles": 1 / 45, "blend": 1 / 55}.get(score.measure, 0.1)
        assert score.measure == "layout" or score.chance == pytest.approx(chance)
        given = {"style": BY_NAME[score.condition].style, "layout": False}
        assert (score.reference is not None) == given.get(score.measure, BY_NAME[score.condition].content)
        assert score.reference is None or score.reference.n == score.truth.n
        assert sum(figure.n for figure in score.each.values()) == (0 if score.measure == "layout" else score.truth.n)


def test_batch_size_changes_nothing(pipeline: USOPipeline, judge: Judge) -> None:
    """Catches tasks, noise or rivals that are numbered from the batch's start."""
    request = small_request(pipeline, num_inference_steps=1)
    runs = [
        list(evaluate({"result": pipeline}, judge, request, count=4, batch=batch, conditions=CONDITIONS[:1]))
        for batch in (1, 4)
    ]
    single_batches, whole = ([event for event in run if isinstance(event, Batch)] for run in runs)
    pictures = np.concatenate([batch.results["result"] for batch in single_batches])
    assert differing(pictures, whole[0].results["result"]) < SAME
    ones, all_at_once = ([event for event in run if isinstance(event, Score)] for run in runs)
    for one, other in zip(ones, all_at_once, strict=True):
        assert one.truth.value == pytest.approx(other.truth.value, abs=1e-6)
        assert one.models["result"].value == pytest.approx(other.models["result"].value, abs=1e-3)


# What is written.


def a_score(condition: str, measure: Any, value: float, chance: float | None = 0.1) -> Score:
    figure = Figure(value, value - 0.05, value + 0.05, 40)
    return Score(condition, measure, {"before": figure, "after": figure}, chance, figure, figure)


def test_table_and_json_say_the_same() -> None:
    """Catches a column under another's head, and a share printed as a correlation."""
    scores = [a_score("seen", "style", 0.825), a_score("new-subjects", "layout", 0.5, chance=None)]
    head, first, second = as_text(scores).removesuffix(LEGEND).splitlines()[:3]
    assert " ".join(head.split()) == "condition measure n before 95 % after 95 % chance reference truth decoded"
    assert first.split("  ")[0] == "seen" and "82.5 %" in first and "77.5 % to 87.5 %" in first and "10.0 %" in first
    assert "0.50" in second and "0.45 to 0.55" in second and "%" not in second
    assert second.split()[-4:] == ["-", "-", "0.50", "0.50"]
    seen = replace(scores[0], reference=Figure(0.975, 0.9, 1.0, 40))
    assert as_text([seen]).splitlines()[1].split()[-6:] == ["97.5", "%", "82.5", "%", "82.5", "%"]
    assert len(head) == len(first) == len(second)
    values = json.loads(json.dumps(as_json(scores, {"count": 40})))
    assert values["settings"] == {"count": 40}
    assert values["scores"][0]["models"]["before"] == vars(scores[0].models["before"])


def colour(value: int, side: int = 20) -> Pixels:
    return np.full((side, side, 3), value, np.uint8)


def test_contact_sheet_shows_every_picture_under_its_name() -> None:
    """Catches columns that change places, and the row that falls off the bottom."""
    rows = [
        SheetRow({"content": None, "style": colour(10), "result": colour(20 + n), "truth": colour(60)}, f"row {n}")
        for n in range(ROWS)
    ]
    sheet = np.asarray(contact_sheet(rows))
    assert sheet.shape[1] == 3 * 24 - 4  # no content anywhere, so no column
    middles = sheet[:, [10, 34, 58], 0]
    places = [int(np.flatnonzero(middles[:, 1] == 20 + n)[10]) for n in range(ROWS)]
    assert places == sorted(places) and len(places) == ROWS
    assert all(middles[place].tolist() == [10, 20 + n, 60] for n, place in enumerate(places))


@pytest.mark.parametrize("count", [0, ROWS + 1])
def test_contact_sheet_refuses_what_does_not_fit(count: int) -> None:
    with pytest.raises(ConfigError, match="1 to 12 rows"):
        contact_sheet([SheetRow({"truth": colour(1)})] * count)


def test_album_writes_what_was_drawn(tmp_path: Path) -> None:
    """Catches selection: every picture is a file of its own, and the sheet holds the first ones in their order."""
    tasks = [draw_task(BY_NAME["text"], number, SIZE) for number in range(14)]
    results = np.stack([colour(number, SIZE) for number in range(14)])
    album = Album(tmp_path)
    for start, stop in ((0, 5), (5, 14)):
        album.add(
            Batch(BY_NAME["text"], tasks[start:stop], {"result": results[start:stop]}, results[start:stop], done=stop)
        )
    files = sorted((tmp_path / "text" / "result").iterdir())
    assert [file.name for file in files] == [f"{FIRST + number}.png" for number in range(14)]
    assert [int(np.asarray(Image.open(file))[0, 0, 0]) for file in files] == list(range(14))
    with Image.open(tmp_path / "text.png") as sheet:
        assert sheet.height == 16 + ROWS * (SIZE + 20)


# The command.


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--count", "0"], "--count is 0"),
        (["--batch", "0"], "--batch is 0"),
        (["--model", "none-such"], "There is no model"),
        (["--judge", "no/such/judge.safetensors"], "There is no judge"),
        (["--before", "no/such/folder"], "holds no projector.safetensors"),
    ],
    ids=["count", "batch", "model", "judge", "before"],
)
def test_command_refuses(flags: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is loaded, in a sentence."""
    assert main(["evaluate", *flags]) == 2
    captured = capsys.readouterr()
    assert reason in captured.err and captured.out == ""


@pytest.mark.parametrize(("flag", "value"), [("--steps", "0"), ("--guidance", "99")])
def test_command_refuses_what_the_model_does_not_take(
    flag: str, value: str, judge_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--judge", str(judge_file), flag, value]) == 2
    assert "allowed" in capsys.readouterr().err


@pytest.mark.slow
def test_command_measures_the_demo_model(tmp_path: Path, judge_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches flags that do not arrive; the demo model beside itself must score as itself."""
    flags = {
        "--judge": judge_file,
        "--count": 2,
        "--batch": 2,
        "--steps": 1,
        "--guidance": 2,
        "--before": "assets/demo-model",
        "--pictures": tmp_path / "pictures",
        "--json": tmp_path / "numbers" / "report.json",
    }
    assert main(["evaluate", *(str(part) for pair in flags.items() for part in pair)]) == 0
    captured = capsys.readouterr()
    assert "2 pictures per condition, 128 x 128, 1 steps, guidance 2" in captured.out
    assert captured.out.rstrip().endswith(LEGEND) and "two-styles: 2 of 2" in captured.err
    report = json.loads((tmp_path / "numbers" / "report.json").read_text(encoding="utf-8"))
    assert (report["settings"]["steps"], report["settings"]["guidance"], report["settings"]["seed"]) == (1, 2, FIRST)
    assert set(report["settings"]["models"]) == {"before", "after"}
    assert report["settings"]["autoencoder_psnr_of_all_kinds"] >= 27  # what was asked of the shipped one
    for score in report["scores"]:
        assert score["models"]["before"] == pytest.approx(score["models"]["after"], abs=1e-6)
    assert len(list((tmp_path / "pictures").glob("*/*/*.png"))) == 7 * 2 * 2
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 7


def test_psnr_is_that_of_bytes() -> None:
    """An error of one step everywhere is 48.13 dB; plants a picture that is out by two."""
    picture = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(picture + 1, picture) == pytest.approx(48.13, abs=0.01)
    assert psnr(picture + 2, picture) == pytest.approx(42.11, abs=0.01) and psnr(picture, picture) == 100
