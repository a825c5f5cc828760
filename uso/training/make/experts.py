"""Triplets from a folder of stylised pictures, by experts: make references, score them, keep what passes.

A picture is the target. A stylization expert makes the style reference, a de-stylization expert the content reference;
CSD and DINO decide which triplets are kept. One expert is loaded at a time and every result is a file of its own, so a
stopped run continues. The protocols of the experts are here, the models in `models.py`.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uso.errors import ConfigError, RequestError
from uso.files import write_over
from uso.images.pixels import check_reference, fit_reference, open_image
from uso.training.data.folders import SUFFIXES, caption_of, pictures_in
from uso.training.data.rows import Row, write_rows
from uso.training.make.config import ExpertsConfig, FilterConfig

KINDS = ("style", "subject", "leak")
"""Of scores, and of reasons that begin with them; everything else is a `picture` that cannot be used."""

ROWS, REPORT, REPORT_TEXT = "rows.jsonl", "report.json", "report.txt"

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, how many are done, how many there are)."""


class Editor(Protocol):
    """Makes a picture from a picture and an instruction; equal seeds give equal pictures."""

    def edit(self, picture: Image.Image, instruction: str, seed: int) -> Image.Image: ...


class Scorer(Protocol):
    """Embeds pictures as unit vectors [N, D]; alike pictures have near vectors."""

    def vectors(self, pictures: list[Image.Image]) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Experts:
    """How each expert is loaded; a loaded one is dropped before the next is loaded."""

    stylization: Callable[[], Editor]
    destylization: Callable[[], Editor]
    style: Callable[[], Scorer]
    subject: Callable[[], Scorer]


@dataclass(frozen=True)
class Job:
    """One picture and what was drawn for it."""

    name: str
    """Of the source file, relative to the folder of pictures."""
    key: str
    """Of every file made for it."""
    caption: str
    layout: Literal["kept", "moved"]
    style_instruction: str
    content_instruction: str
    seed: int

    def file(self, output: Path, kind: str) -> Path:
        return output / kind / f"{self.key}.png"


def make_triplets(
    pictures: Path, output: Path, config: ExpertsConfig, experts: Experts, progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """Make, score and filter triplets; writes rows, a report and the pictures under `output`.

    Thresholds may be changed between runs: pictures and scores are kept, only rows and report are written again.
    References that `make_references` has made elsewhere are kept, too.

    Args:
        pictures: stylised pictures, at any depth. `a.txt` beside `a.png` is its caption; without, the layout is kept.

    Returns:
        The report: counts, thresholds, and every dropped picture with its reason.

    Raises:
        ConfigError: no pictures, or `output` was made by other settings.
    """
    jobs, dropped = make_references(pictures, output, config, experts, progress)
    scores = _score_all(jobs, output, experts, progress)
    rows = []
    for job in jobs:
        fault = reason(scores[job.key], config.filters)
        if fault:
            dropped[job.name] = fault
        else:
            rows.append(_row(job, scores[job.key]))
    write_rows(output / ROWS, rows)
    return _report(output, config, rows, dropped)


def make_references(
    pictures: Path,
    output: Path,
    config: ExpertsConfig,
    experts: Experts,
    progress: Progress = lambda *_: None,
    part: tuple[int, int] = (1, 1),
) -> tuple[list[Job], dict[str, str]]:
    """Make the references alone, of a share of the pictures: several processes or machines can fill one folder.

    Args:
        part: (K, N): the K-th of N shares.

    Returns:
        (jobs of the share, why pictures of the folder are dropped).

    Raises:
        ConfigError: no pictures, or `output` was made by other settings.
    """
    output.mkdir(parents=True, exist_ok=True)
    _same_settings(output, config)
    jobs, dropped = plan(pictures, output, config, progress)
    own = jobs[part[0] - 1 :: part[1]]
    _edit_all(own, output, "style", experts.stylization, lambda job: job.style_instruction, progress)
    _edit_all(own, output, "content", experts.destylization, lambda job: job.content_instruction, progress)
    return own, dropped


def plan(
    pictures: Path, output: Path, config: ExpertsConfig, progress: Progress = lambda *_: None
) -> tuple[list[Job], dict[str, str]]:
    """(jobs, why other pictures are dropped); writes the targets. The same folder and settings give the same plan."""
    files = pictures_in(pictures)
    if not files:
        raise ConfigError(f"{pictures} holds no pictures ({', '.join(sorted(SUFFIXES))}).")
    jobs: list[Job] = []
    dropped: dict[str, str] = {}
    seen: dict[str | Path, str] = {}
    for done, path in enumerate(files, start=1):
        name = path.relative_to(pictures).as_posix()
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest in seen:
            dropped[name] = f"the same file as {seen[digest]}"
            continue
        if path.with_suffix("") in seen:
            dropped[name] = f"named like {seen[path.with_suffix('')]}; rename it if it is another picture"
            continue
        try:
            job = _job(name, digest, caption_of(path), config)
            _write_target(job.file(output, "target"), content, name, config.size)
        except RequestError as error:
            dropped[name] = str(error)
        else:
            seen[digest] = seen[path.with_suffix("")] = name
            jobs.append(job)
        progress("targets", done, len(files))
    return sorted(jobs, key=lambda job: Path(job.name)), dropped


def _job(name: str, digest: str, caption: str, config: ExpertsConfig) -> Job:
    """Draw a picture's instructions: its bytes and the seed decide, not its place among others."""
    draw = np.random.default_rng([config.seed, int(digest[:15], 16)])
    style = config.stylization

    def one(texts: tuple[str, ...]) -> str:
        return texts[int(draw.integers(len(texts)))]

    instruction = one(style.instructions).replace("{subject}", one(style.subjects))
    change = draw.random() < config.moved
    moved = bool(change and caption and config.destylization.moved)
    content = one(config.destylization.moved if moved else config.destylization.kept)
    layout: Literal["kept", "moved"] = "moved" if moved else "kept"
    return Job(name, digest[:16], caption, layout, instruction, content, int(draw.integers(2**31)))


def _write_target(path: Path, content: bytes, name: str, size: int) -> None:
    picture = open_image(content, name)
    check_reference(*picture.size, size, name)
    if not path.exists():
        _save(fit_reference(picture, size), path)


def _save(picture: Image.Image, path: Path) -> None:
    """Write a PNG whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG")
    write_over(path, buffer.getvalue())


def _opened(path: Path) -> Image.Image:
    return open_image(path.read_bytes(), path.name)


def _edit_all(
    jobs: list[Job],
    output: Path,
    kind: str,
    load: Callable[[], Editor],
    instruction: Callable[[Job], str],
    progress: Progress,
) -> None:
    """Make one kind of reference for every target that has none; loads the expert only if there is work."""
    todo = [job for job in jobs if not job.file(output, kind).exists()]
    if not todo:
        return
    editor = load()
    for done, job in enumerate(todo, start=1):
        target = _opened(job.file(output, "target"))
        made = editor.edit(target, instruction(job), job.seed)
        if made.size != target.size:
            made = made.resize(target.size, Image.Resampling.LANCZOS)
        _save(made, job.file(output, kind))
        progress(kind, done, len(todo))


# Scores


def _score_all(jobs: list[Job], output: Path, experts: Experts, progress: Progress) -> dict[str, dict[str, float]]:
    """{key: {"style", "subject", "leak"}}; those in `scores.json` are not measured again."""
    path = output / "scores.json"
    scores: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    pairs = {
        "style": ("style", experts.style),
        "subject": ("content", experts.subject),
        "leak": ("style", experts.subject),
    }
    for loader in (experts.style, experts.subject):
        names = [name for name, (_, load) in pairs.items() if load is loader]
        todo = [job for job in jobs if any(name not in scores.get(job.key, {}) for name in names)]
        scorer = loader() if todo else None
        for done, job in enumerate(todo, start=1):
            kinds = ["target", *(pairs[name][0] for name in names)]
            assert scorer is not None
            target, *others = scorer.vectors([_opened(job.file(output, kind)) for kind in kinds])
            found = {name: round(float(target @ other), 4) for name, other in zip(names, others, strict=True)}
            scores[job.key] = scores.get(job.key, {}) | found
            progress(f"{' and '.join(names)} scores", done, len(todo))
            if done % 50 == 0 or done == len(todo):
                _write(path, json.dumps(scores))
    return scores


def reason(scores: dict[str, float], filters: FilterConfig) -> str:
    """Why a triplet is dropped; empty if it is kept."""
    if scores["style"] < filters.min_style:
        return f"style: the style reference's CSD cosine is {scores['style']}, under {filters.min_style}"
    if scores["subject"] < filters.min_subject:
        return f"subject: the content reference's DINO cosine is {scores['subject']}, under {filters.min_subject}"
    if scores["leak"] > filters.max_leak:
        return f"leak: the style reference shows the same: its DINO cosine is {scores['leak']}, over {filters.max_leak}"
    return ""


# Results


def _row(job: Job, scores: dict[str, float]) -> Row:
    names = {kind: job.file(Path(), kind).as_posix() for kind in ("content", "style", "target")}
    labels: dict[str, Any] = {"scores": scores, "seed": job.seed}
    return Row(
        prompt=job.caption if job.layout == "moved" else "",
        content=names["content"],
        styles=(names["style"],),
        target=names["target"],
        layout=job.layout,
        sentence=job.caption or None,
        **labels,
    )


def _report(output: Path, config: ExpertsConfig, rows: list[Row], dropped: dict[str, str]) -> dict[str, Any]:
    heads = (text.split(":")[0] for text in dropped.values())
    reasons = Counter(head if head in KINDS else "picture" for head in heads)
    report = {
        "kept": len(rows),
        "layouts": dict(Counter(row.layout for row in rows)),
        "dropped": len(dropped),
        "reasons": dict(reasons),
        "filters": config.filters.model_dump(),
        "pictures": dropped,
    }
    _write(output / REPORT, json.dumps(report, indent=2, ensure_ascii=False))
    lines = [f"{len(rows)} triplets kept, {len(dropped)} pictures dropped."]
    lines += [f"{name}: {text}" for name, text in sorted(dropped.items())]
    _write(output / REPORT_TEXT, "\n".join(lines) + "\n")
    return report


def _same_settings(output: Path, config: ExpertsConfig) -> None:
    """Refuse a folder that other experts or instructions filled; thresholds may differ."""
    path = output / "experts.json"
    settings = json.loads(config.model_dump_json(exclude={"filters"}))
    settings["dino"] = config.filters.dino
    if not path.exists():
        _write(path, json.dumps(settings, indent=2))
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RequestError(f"{path} is damaged; remove the folder and begin again.") from error
    changed = [key for key in settings if found.get(key) != settings[key]]
    if changed:
        raise ConfigError(
            f"{output} was made with another '{changed[0]}'. Name a new folder, or repeat the settings in {path.name}."
        )


def _write(path: Path, text: str) -> None:
    write_over(path, text.encode())
