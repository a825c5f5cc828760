"""Plots as SVG, drawn by matplotlib without a display."""

import io
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from uso.evaluation.page.tables import TITLES, figures, label, of_task
from uso.evaluation.records import Measured
from uso.evaluation.scores import NAMES
from uso.evaluation.statistics import by_group

COLOURS = ("#3567b0", "#d0642f", "#3d8f5f", "#8a54a2", "#8a6d3b", "#5f6b7a")
_STYLE = {"svg.hashsalt": "uso", "svg.fonttype": "path", "font.size": 9, "axes.spines.top": False}
_WIDTH, _ROW = 7.5, 0.28
"""Inches: the width of a plot, and the height of one line in it."""


def intervals(runs: Sequence[Measured], task: str) -> str:
    """Every metric of a task with its interval, a colour per run."""
    rows = figures(runs, task)
    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=(_WIDTH, 0.9 + _ROW * len(rows) * max(1.6, len(runs))), layout="constrained")
        axes = canvas.subplots()
        for number, run in enumerate(runs):
            having = [(place, row[number]) for place, row in enumerate(rows.values()) if row[number]]
            places = [place + (number - (len(runs) - 1) / 2) * 0.22 for place, _ in having]
            values = [each.value for _, each in having if each]
            low = [max(0.0, each.value - each.low) for _, each in having if each]
            high = [max(0.0, each.high - each.value) for _, each in having if each]
            colour = COLOURS[number % len(COLOURS)]
            axes.errorbar(values, places, xerr=[low, high], fmt="o", color=colour, capsize=3, label=run.name)
        axes.set_yticks(range(len(rows)), [NAMES[metric] for metric in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)  # the first row on top
        axes.set_xlabel(f"{TITLES[task]}: mean over subjects, 95 % interval")
        axes.grid(axis="x", alpha=0.3)
        if len(runs) > 1:
            axes.legend(loc="best", frameon=False)
        return _svg(canvas)


def subjects(runs: Sequence[Measured], task: str, metric: str) -> str:
    """Each subject's mean of a metric, sorted by the first run's."""
    groups = [by_group(of_task(run, task), metric) for run in runs]
    names = sorted({name for group in groups for name in group}, key=lambda name: groups[0].get(name, 0.0))
    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=(_WIDTH, 0.8 + 0.17 * max(4, len(names))), layout="constrained")
        axes = canvas.subplots()
        for number, (run, group) in enumerate(zip(runs, groups, strict=True)):
            having = [(place, group[name]) for place, name in enumerate(names) if name in group]
            colour = COLOURS[number % len(COLOURS)]
            axes.plot([value for _, value in having], [place for place, _ in having], "o", color=colour, label=run.name)
        _named(axes, names)
        axes.set_xlabel(f"{TITLES[task]}: {NAMES[metric]}")
        if len(runs) > 1:
            axes.legend(loc="lower right", frameon=False)
        return _svg(canvas)


def _named(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [label(name) for name in names], fontsize=7)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(alpha=0.3)


def _svg(canvas: Canvas) -> str:
    """The drawing's `<svg>` element alone, the same for the same numbers."""
    file = io.StringIO()
    canvas.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
