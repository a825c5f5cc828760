"""What a report says, in two forms: `report.md` with its plots and sheets beside it, and `report.html` alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uso.errors import ConfigError
from uso.evaluation.bench.config import paper_figures
from uso.evaluation.bench.entries import Bench, read_bench
from uso.evaluation.page import html, plots, sheets, tables
from uso.evaluation.records import Measured, read_scores
from uso.evaluation.scores import NAMES
from uso.files import write_over

MARKDOWN, PAGE = "report.md", "report.html"

METHOD = (
    "CLIP-I, CLIP-T: OpenAI's CLIP ViT-B/32; cosines clipped at 0. DINO: ViT-S/16, version 1, class token. CSD: style "
    "vectors of CSD ViT-L/14. Every picture is compared with all pictures of its reference.",
    "leak: DINO of a result and its style image, high where the style image's subject comes along. copying: CLIP-I "
    "where the prompt asks for another layout, high where the content image is pasted in.",
    "A figure is the mean over each subject's pictures, then over subjects: contents for CLIP-I, CLIP-T, DINO and "
    "copying, styles for CSD, leak and prompts without a content. Intervals come from a bootstrap over contents and "
    "styles at once, because pictures share them.",
    "An empty prompt has no CLIP-T.",
    "Cells show the mean, its 95 % interval in brackets, and how many pictures of how many subjects it comes from.",
)
OWN_ENCODERS = (
    "Encoders from files of one's own: {names}. Unless they hold the published weights, nothing here can be compared "
    "with the paper or with other reports; the fingerprints are below."
)
NOT_THE_PAPERS = (
    "The paper's column is there for orientation, not as a mark to pass ({source}). Its pictures and most of its "
    "prompts are not published, so these are others, and references are smaller. It has 20 contents of 50 that show "
    "people, the full benchmark here has 5. Its joint row covers both layouts, and it does not say how empty prompts "
    "are counted."
)


class _Report:
    """Both forms at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.parts: list[str] = []
        self.title = ""

    def heading(self, text: str, level: int = 2) -> None:
        self.title = text
        self.lines += ["", f"{'#' * level} {text}", ""]
        self.parts.append(html.heading(text, level))

    def paragraph(self, text: str) -> None:
        self.lines += [text, ""]
        self.parts.append(html.paragraph(text))

    def bullets(self, texts: Sequence[str]) -> None:
        self.lines += [*(f"- {text}" for text in texts), ""]
        self.parts.append(html.bullets(texts))

    def table(self, rows: tables.Rows) -> None:
        self.lines += [tables.markdown(rows), ""]
        self.parts.append(html.table(rows, self.title))

    def plot(self, name: str, svg: str, caption: str) -> None:
        self._beside(f"{name}.svg", svg.encode(), caption)
        self.parts.append(html.plot(svg, caption))

    def sheet(self, name: str, image: Any, caption: str) -> None:
        if image is not None:
            data = html.webp(image)
            self._beside(f"{name}.webp", data, caption)
            self.parts.append(html.picture(data, caption))

    def _beside(self, name: str, data: bytes, caption: str) -> None:
        write_over(self.folder / name, data)
        self.lines += [f"![{caption}]({name})", ""]


def write_report(places: Sequence[Path], folder: Path) -> tuple[Path, Path]:
    """Write the report of one or several measured runs; returns both files.

    Raises:
        ConfigError: scores are missing, or of different benchmarks.
    """
    runs = [read_scores(place) for place in places]
    other = next((run for run in runs if run.record["digest"] != runs[0].record["digest"]), None)
    if other:
        raise ConfigError(
            f"{other.path} is of another benchmark than {runs[0].path} (prompts, seeds or references differ). Compare "
            "runs of one."
        )
    bench = _bench_of(runs[0])
    title = f"{runs[0].record['title']}: {', '.join(run.name for run in runs)}"
    report = _Report(folder)
    report.lines.append(f"# {title}")
    _about(report, runs)
    for task in tables.tasks_of(runs):
        _task(report, runs, task, bench)
    for run in runs[1:]:
        report.heading(f"{run.name} against {runs[0].name}")
        report.paragraph(
            "The same entries and seeds of both, picture by picture. They differ where the interval does not hold 0; "
            "of twenty rows about one does by chance."
        )
        report.table(tables.difference_table(runs[0], run))
    _ending(report, runs, bench)
    write_over(folder / MARKDOWN, ("\n".join(report.lines).strip() + "\n").encode())
    write_over(folder / PAGE, html.document(title, report.parts).encode())
    return folder / MARKDOWN, folder / PAGE


def _bench_of(run: Measured) -> Bench | None:
    """The benchmark, for its pictures; None if it is gone or has changed since."""
    try:
        bench = read_bench(run.record["bench"])
        return bench if bench.digest == run.record["digest"] else None
    except ConfigError:
        return None


def _about(report: _Report, runs: Sequence[Measured]) -> None:
    report.heading("What was measured")
    rows = [["run", "model", "pictures", "made with"]]
    for run in runs:
        made = dict(run.record.get("made_by") or {})
        model = str(made.pop("model", "not recorded"))
        kept = {key: value for key, value in made.items() if key not in ("components", "added_loras", "files")}
        words = ", ".join(f"{key} {value}" for key, value in kept.items()) or "not recorded"
        count = f"{len(run.scores)} of {run.record['asked']}"
        rows.append([run.name, model, count, words])
    report.table(rows)
    own = sorted({name for run in runs for name, origin in run.record["encoders"].items() if "repo" not in origin})
    report.bullets([*METHOD, *([OWN_ENCODERS.format(names=", ".join(own))] if own else [])])


def _task(report: _Report, runs: Sequence[Measured], task: str, bench: Bench | None) -> None:
    title = tables.TITLES[task]
    report.heading(title)
    report.table(tables.task_table(runs, task))
    report.plot(f"{task}-intervals", plots.intervals(runs, task), f"{title}: figures and their 95 % intervals")
    main = sheets.MAIN[task]
    report.plot(f"{task}-subjects", plots.subjects(runs, task, main), f"{title}: {NAMES[main]} of each subject")
    for number, run in enumerate(runs if bench else ()):
        assert bench
        scores = [each for each in tables.of_task(run, task) if Path(each.file).is_file()]
        name = f"{task}-{number + 1}"
        caption = f"{run.name}, {title.lower()}: the best and the worst by {NAMES[main]}"
        report.sheet(f"{name}-extremes", sheets.extremes(scores, task, bench), caption)
        caption = f"{run.name}, {title.lower()}: the seeds of some prompts"
        report.sheet(f"{name}-seeds", sheets.seeds(scores, bench), caption)


def _ending(report: _Report, runs: Sequence[Measured], bench: Bench | None) -> None:
    report.heading("The paper's figures")
    report.paragraph(NOT_THE_PAPERS.format(source=paper_figures().source))
    report.heading("Encoders")
    rows = [["run", "encoder", "weights", "commit", "fingerprint"]]
    for run in runs:
        for name, origin in run.record["encoders"].items():
            where = origin.get("repo", "a file of one's own")
            commit = origin.get("commit", "-")
            rows.append([run.name, name, f"{where}: {origin['file']}", commit, origin["fingerprint"][:16]])
    report.table(rows)
    cut = [f"{run.name}: {run.record['cut_prompts']}" for run in runs if run.record["cut_prompts"]]
    if cut:
        report.paragraph(f"Prompts that CLIP could read the beginning of only: {', '.join(cut)}.")
    moved = [run.name for run in runs if not all(Path(each.file).is_file() for each in run.scores)]
    if moved:
        report.paragraph(f"Pictures of {', '.join(moved)} are no longer where they were measured; they are not shown.")
    if bench is None:
        report.paragraph("The benchmark's folder is gone or has changed, so no pictures are shown.")
        return
    report.heading("References")
    rows = [["reference", "author", "licence", "source"]]
    for name, reference in bench.references.items():
        about = reference.about
        rows.append([tables.label(name), *(about.get(key, "not stated") for key in ("author", "licence", "source"))])
    report.table(rows)
