"""Scores and their means against plain loops, and the bugs that would move them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uso.evaluation.bench.entries import Bench, Entry, Reference
from uso.evaluation.metrics import Vectors
from uso.evaluation.pictures import Result
from uso.evaluation.scores import Score, score
from uso.evaluation.statistics import by_group, difference, estimate

CONTENTS, STYLES = ("fox", "owl", "cup"), ("ink", "neon")


class Named(Reference):
    """A reference of two pictures whose hashes are its name and a number."""

    @property
    def hashes(self) -> tuple[str, ...]:
        return (f"{self.name}-0", f"{self.name}-1")


def bench() -> Bench:
    """Every content in every style: kept by an empty prompt, moved by another; contents and styles alone."""
    rows: list[dict[str, Any]] = []
    for number, content in enumerate(CONTENTS):
        # One subject has more pictures than the others: a mean over pictures differs from one over subjects.
        rows.append({"task": "subject", "prompt": f"a {content}", "content": content, "images": 1 + 3 * number})
        for style in STYLES:
            rows.append({"task": "joint-kept", "prompt": "", "content": content, "styles": (style,)})
            rows.append({"task": "joint-moved", "prompt": f"the {content}", "content": content, "styles": (style,)})
    rows.append({"task": "subject", "prompt": "", "content": "fox"})  # as a list of others may have it
    rows += [{"task": "style", "prompt": "a boat", "styles": (style,), "images": 2} for style in STYLES]
    filled = {"content": None, "styles": (), "images": 1, "seed": 7, "paths": ()}
    entries = tuple(Entry(**filled | {"id": str(number)} | row) for number, row in enumerate(rows))
    return Bench("t", Path("bench.json"), entries, {name: Named(name, (), {}) for name in (*CONTENTS, *STYLES)})


BENCH = bench()
RESULTS = [Result(entry, j, Path(f"{entry.id}_{j}")) for entry in BENCH.entries for j in range(entry.images)]
FOUND = [(result, str(result.path)) for result in RESULTS]


def drawn(seed: int) -> dict[str, Vectors]:
    """Unit vectors of every picture and reference; cosines of either sign."""
    names = [name for reference in BENCH.references.values() for name in reference.hashes] + [each for _, each in FOUND]
    values = np.random.default_rng(seed).normal(size=(len(names), 6)).astype(np.float32)
    return dict(zip(names, values / np.linalg.norm(values, axis=1, keepdims=True), strict=True))


CLIP, DINO, CSD = drawn(1), drawn(2), drawn(3)
PROMPTS = sorted({entry.prompt for entry in BENCH.entries if entry.prompt})
TEXTS = dict(zip(PROMPTS, list(drawn(4).values()), strict=False))


def scored(reference_names: dict[str, str] | None = None) -> list[Score]:
    """All scores; with other names, as if references had been mixed up."""
    mixed = {name: Named(other, (), {}) for name, other in (reference_names or {}).items()}
    mixed_bench = Bench(BENCH.title, BENCH.path, BENCH.entries, BENCH.references | mixed)
    return score(mixed_bench, FOUND, CLIP, DINO, CSD, TEXTS)


def of(task: str, scores: list[Score]) -> list[Score]:
    return [each for each in scores if each.task == task]


def expected(task: str, metric: str) -> float:
    """The definition, as loops: over references, over pictures of a subject, over subjects."""
    groups: dict[str, list[float]] = {}
    for result, own in FOUND:
        entry = result.entry
        if entry.task != task or (metric == "clip_t" and not entry.prompt):
            continue
        if metric == "clip_t":
            value = max(0.0, sum(float(a * b) for a, b in zip(TEXTS[entry.prompt], CLIP[own], strict=True)))
            group = entry.content or entry.styles[0]
        else:
            vectors = {"clip_i": CLIP, "copying": CLIP, "dino": DINO, "csd": CSD, "leak": DINO}[metric]
            group = entry.styles[0] if metric in ("csd", "leak") else str(entry.content)
            each = [float(vectors[f"{group}-{number}"] @ vectors[own]) for number in range(2)]
            value = sum(max(0.0, one) if vectors is CLIP else one for one in each) / 2
        groups.setdefault(group, []).append(value)
    return sum(sum(values) / len(values) for values in groups.values()) / len(groups)


CASES = [
    *(("subject", metric) for metric in ("clip_i", "dino", "clip_t")),
    *(("style", metric) for metric in ("csd", "clip_t", "leak")),
    *(("joint-kept", metric) for metric in ("csd", "clip_i", "dino", "leak")),
    *(("joint-moved", metric) for metric in ("csd", "clip_t", "dino", "leak", "copying")),
]


@pytest.mark.parametrize(("task", "metric"), CASES)
def test_figures_are_those_of_the_definition(task: str, metric: str) -> None:
    """Catches one reference in the place of all, cosines below 0, and a leak that is measured against the content."""
    figure = estimate(of(task, scored()), metric)
    assert figure is not None
    assert figure.value == pytest.approx(expected(task, metric), abs=1e-6)


def test_a_mean_over_pictures_would_be_another() -> None:
    """Catches subjects that weigh by how many pictures they have."""
    scores = of("subject", scored())
    figure = estimate(scores, "dino")
    assert figure is not None
    assert abs(np.mean([each.values["dino"] for each in scores]) - figure.value) > 0.02


def test_references_that_are_shifted_by_one_move_every_figure() -> None:
    """Catches a list of references that slipped against the list of pictures."""
    shifted = scored({"fox": "owl", "owl": "cup", "cup": "fox", "ink": "neon", "neon": "ink"})
    for task, metric in CASES:
        right, wrong = estimate(of(task, scored()), metric), estimate(of(task, shifted), metric)
        assert right and wrong
        if metric != "clip_t":
            assert abs(right.value - wrong.value) > 1e-3, (task, metric)


def test_an_empty_prompt_has_no_clip_t() -> None:
    """Catches a layout that was kept counting as a prompt that was missed; n says what is counted."""
    scores = of("joint-kept", scored())
    assert all("clip_t" not in each.values for each in scores)
    assert estimate(scores, "clip_t") is None
    figure = estimate(of("joint-moved", scored()), "clip_t")
    assert figure is not None and figure.n == len(CONTENTS) * len(STYLES)
    alone = estimate(of("subject", scored()), "clip_t")
    assert alone is not None and alone.n == sum(entry.images for entry in BENCH.entries if entry.task == "subject") - 1


def simple(value: float, content: str | None, style: str | None, number: int) -> Score:
    return Score(str(number), 0, "joint-moved", "p", content, style, 0, "", "", {"csd": value, "dino": value})


def test_intervals_are_wide_where_pictures_share_references() -> None:
    """Catches a bootstrap over pictures: forty of one content are no forty contents."""
    random = np.random.default_rng(0)
    effect = {f"c{number}": float(random.normal()) for number in range(6)}
    scores = [
        simple(effect[content] + 0.01 * float(random.normal()), content, f"s{style}", 40 * place + style)
        for place, content in enumerate(effect)
        for style in range(40)
    ]
    figure = estimate(scores, "dino")
    assert figure is not None and figure.n == 240
    values = np.array([each.values["dino"] for each in scores])
    naive = 2 * 1.96 * values.std() / np.sqrt(len(values))
    spread = np.std(list(effect.values()), ddof=1) / np.sqrt(6)
    assert figure.high - figure.low > 3 * naive
    assert 0.5 * spread * 3.92 < figure.high - figure.low < 1.5 * spread * 3.92
    assert figure.low < figure.value < figure.high


def test_a_difference_is_taken_picture_by_picture() -> None:
    """Catches a comparison of two means, whose interval hides a small gain on every picture."""
    random = np.random.default_rng(0)
    first = [simple(float(random.normal()), f"c{number % 8}", f"s{number % 5}", number) for number in range(40)]
    second = [simple(each.values["dino"] + 0.1, each.content, each.style, int(each.id)) for each in first[:36]]
    figure = difference(first, second, "dino")
    assert figure is not None and figure.n == 36, "only pictures that both have are compared"
    assert (figure.value, figure.low, figure.high) == pytest.approx((0.1, 0.1, 0.1))
    own = estimate(first, "dino")
    assert own is not None and own.low < 0 < own.high


def test_one_subject_alone_has_no_interval_to_speak_of() -> None:
    """Catches a crash, or a division by nothing, where a run has a single content."""
    figure = estimate([simple(0.4, "c", None, 0), simple(0.6, "c", None, 1)], "dino")
    assert figure is not None
    assert (figure.value, figure.low, figure.high, figure.n) == pytest.approx((0.5, 0.5, 0.5, 2))
    assert estimate([], "dino") is None
    assert by_group([simple(0.4, "c", "s", 0)], "csd") == {"s": 0.4}
