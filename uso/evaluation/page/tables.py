"""Figures as tables in Markdown: one per task, a row per metric, the paper's figure beside."""

from collections.abc import Sequence
from pathlib import Path

from uso.evaluation.bench.config import paper_figures
from uso.evaluation.records import Measured
from uso.evaluation.report import Figure
from uso.evaluation.scores import LOWER_IS_BETTER, METRICS, NAMES, Score
from uso.evaluation.statistics import by_group, difference, estimate

TITLES = {
    "subject": "Subject-driven",
    "style": "Style-driven",
    "joint-kept": "Style and subject, layout kept",
    "joint-moved": "Style and subject, layout moved",
    "text": "Prompt alone",
}

Rows = list[list[str]]


def of_task(measured: Measured, task: str) -> list[Score]:
    return [score for score in measured.scores if score.task == task]


def tasks_of(runs: Sequence[Measured]) -> list[str]:
    """The tasks that any run has, in order."""
    return [task for task in METRICS if any(of_task(run, task) for run in runs)]


def figures(runs: Sequence[Measured], task: str) -> dict[str, list[Figure | None]]:
    """Each metric of a task: a figure per run."""
    found = {metric: [estimate(of_task(run, task), metric) for run in runs] for metric in METRICS[task]}
    return {metric: row for metric, row in found.items() if any(row)}


def task_table(runs: Sequence[Measured], task: str) -> Rows:
    """A row per metric: value, interval, counts; the paper's figure."""
    paper = paper_figures().figures.get(task.partition("-")[0], {})
    rows = [["metric", *(run.name for run in runs), "paper"]]
    for metric, row in figures(runs, task).items():
        cells = [
            f"{shown(figure)} {figure.n}/{len(by_group(of_task(run, task), metric))}" if figure else "-"
            for run, figure in zip(runs, row, strict=True)
        ]
        arrow = "↓" if metric in LOWER_IS_BETTER else "↑"
        rows.append([f"{NAMES[metric]} {arrow}", *cells, f"{paper[metric]:.3f}" if metric in paper else "-"])
    return rows


def difference_table(first: Measured, second: Measured) -> Rows:
    """A row per task and metric: how much the second is above the first on the same pictures."""
    rows = [["task", "metric", f"{second.name} - {first.name}, 95 % interval", "pictures", "differs"]]
    for task in tasks_of([first, second]):
        for metric in METRICS[task]:
            figure = difference(of_task(first, task), of_task(second, task), metric)
            if figure:
                apart = "yes" if figure.low > 0 or figure.high < 0 else "no"
                text = f"{figure.value:+.3f} [{figure.low:+.3f}, {figure.high:+.3f}]"
                rows.append([TITLES[task], NAMES[metric], text, str(figure.n), apart])
    return rows


def label(name: str) -> str:
    """A reference's name; of one that is named by its path, the file's."""
    return Path(name).name if "/" in name else name


def shown(figure: Figure) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def markdown(rows: Rows) -> str:
    """Rows, the first of which are headings, as a table in Markdown."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
