"""Batch files: a JSON list of jobs, verified as a whole, split over processes, resumed where an earlier run stopped.

    [{"prompt": "...", "image_paths": ["content.jpg" or "", "style.png", ...], "seed": 7, "save_dir": "out"}, ...]

Every picture's file name consists of the job's place in the file, a hash of everything that determines the picture, and
the seed. Pictures appear under their names complete or not at all, so an existing name means a finished picture.
Processes share only the file system.
"""

import argparse
import functools
import hashlib
import itertools
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uso import output
from uso.cli.pictures.request import REQUEST_FLAGS, chosen_config, load, make, output_place, request_values, style_file
from uso.cluster.address import reach, workers_of
from uso.config import SPEEDS, ModelConfig, from_home
from uso.errors import OutputError, RequestError, USOError
from uso.files import read_text
from uso.request.request import MAX_IMAGES, MAX_SEED, RANDOM_SEED, GenerationRequest, GenerationResult, ReferenceImage
from uso.system.launcher import Process, this_process
from uso.terminal import say
from uso.weights.flags import AUTO, with_auto

if TYPE_CHECKING:
    from uso.cluster.pipeline import RemotePipeline
    from uso.pipeline.pipeline import USOPipeline

logger = logging.getLogger(__name__)

_KEYS = ("prompt", "image_paths", "save_dir", *(key for key in REQUEST_FLAGS if key != "prompt"))
_CACHED_REFERENCES = 4
"""Opened images kept while a file is verified: neighbouring jobs often share them, and one may take 0.25 GiB."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One entry of a batch file, verified. Holds paths, not pixels, so that a file may have thousands of jobs."""

    number: int
    """Place in the file, from 1."""
    values: dict[str, Any]
    """Arguments of `GenerationRequest.create`, with references as paths and a definite seed."""
    folder: Path
    digest: str
    """SHA-256 of everything that determines its pictures; the seed counts only if it was given."""
    references: tuple[str, ...]
    """SHA-256 of its images at verification."""
    seed: int
    num_images: int

    def path(self, index: int) -> Path:
        """The file of picture `index`."""
        return self.folder / f"{self.number:04d}_{self.digest[:12]}_seed{self.seed + index}.png"

    def missing(self) -> list[int]:
        """Indices of the pictures that do not exist yet."""
        return [index for index in range(self.num_images) if not self.path(index).exists()]

    def save(self, result: GenerationResult) -> Path:
        return output.save(result, self.folder, self.path(result.request.seed - self.seed).stem)

    def requests(self, config: ModelConfig) -> Iterator[GenerationRequest]:
        """One request for each unbroken run of missing pictures, which share their conditioning.

        Raises:
            USOError: an image is gone or has changed since the file was verified; a batch may run for days.
        """
        whole = GenerationRequest.create(config, **self.values)
        if _hashes(whole) != self.references:
            raise RequestError("Its images have changed since the batch was verified. Start the batch again.")
        for _, run in itertools.groupby(enumerate(self.missing()), key=lambda pair: pair[1] - pair[0]):
            indices = [index for _, index in run]
            yield replace(whole, seed=self.seed + indices[0], num_images=len(indices))


def takes(process: Process, job: Job) -> bool:
    """Whether a job is this process's own."""
    return (job.number - 1) % process.world == process.rank


def device_of(process: Process, wanted: str) -> str:
    """The requested device; for `auto` with several processes, this process's own GPU."""
    if wanted != AUTO or process.world == 1:
        return wanted
    import torch

    return f"cuda:{process.local_rank}" if torch.cuda.is_available() else wanted


def generate_batch(args: argparse.Namespace) -> int:
    """Run a batch file; returns the exit status: 0, or 1 if a job failed.

    Raises:
        USOError: the file, one of its jobs or a flag was refused; nothing was started.
    """
    _refuse_single_flags(args)
    args = with_auto(args)
    workers = workers_of(args)
    process = Process(0, 1, 0) if workers else this_process()
    _entries(Path(args.batch))  # before `auto` may import torch
    if workers is not None and not workers.local:
        reach(workers)
    config, why = chosen_config(args, workers=workers)
    jobs = read_jobs(Path(args.batch), config, args)
    own = [job for job in jobs if takes(process, job)]
    waiting = [job for job in own if job.missing()]
    skipped, failed = _present(own), 0
    if waiting and workers is not None:
        from uso.cli.pictures.elsewhere import make_elsewhere

        failed = make_elsewhere(args, config, why, workers, jobs, waiting)
    elif waiting:
        failed = _make_here(args, config, why, process, jobs, waiting)
    whose = f"Process {process.rank} of {process.world}. " if process.world > 1 else ""
    say(f"{whose}Pictures made: {_present(own) - skipped}, there already: {skipped}; jobs failed: {failed}.")
    return 1 if failed else 0


def _make_here(
    args: argparse.Namespace,
    config: ModelConfig,
    why: str | None,
    process: Process,
    jobs: list[Job],
    waiting: list[Job],
) -> int:
    """Make what is missing of the waiting jobs, one after another; returns how many failed."""
    failed = 0
    pipe = load(config, argparse.Namespace(**(vars(args) | {"device": device_of(process, args.device)})), why)
    check_prompts(Path(args.batch), jobs, pipe)
    for job in waiting:
        try:
            for request in job.requests(config):
                make(pipe, request, job.save, label=f"job {job.number} of {len(jobs)}, ")
        except Exception as error:  # whatever happens to one job, go on with the others
            failed += 1
            logger.debug("Job %d", job.number, exc_info=True)
            say(f"Job {job.number} failed: {error or type(error).__name__}")
    return failed


def _present(jobs: list[Job]) -> int:
    return sum(job.num_images - len(job.missing()) for job in jobs)


def _refuse_single_flags(args: argparse.Namespace) -> None:
    single = {
        "prompt": args.prompt,
        "content": args.content,
        "style": args.style,
        "style-strength": args.style_strengths,
        "translate": args.translate,
    }
    for flag, value in single.items():
        if value is not None:
            raise RequestError(f"--{flag} cannot go with --batch: every job of the file has its own.")


def read_jobs(path: Path, config: ModelConfig, args: argparse.Namespace) -> list[Job]:
    """The verified jobs of a batch file; flags supply what a job leaves out.

    Raises:
        USOError: the file cannot be read, or jobs are refused; lists each by number, with the reason.
    """
    defaults, folder = request_values(args), output_place(args.output, several=True)[0]
    scale = config.lora_scale if args.lora_scale is None else args.lora_scale
    identity = [
        config.model_dump(mode="json", include={"name", "components"}),
        scale,
        args.dtype,
        args.speed or SPEEDS[0],
    ]
    if config.added_loras:
        identity.append(config.model_dump(mode="json", include={"added_loras"}))
    opened = functools.lru_cache(_CACHED_REFERENCES)(ReferenceImage.from_path)
    entries = _entries(path)
    jobs: list[Job] = []
    problems: list[str] = []
    seen: Counter[str] = Counter()
    for number, entry in enumerate(entries, start=1):
        try:
            values = _values(entry, path.parent, defaults, args)
            request = GenerationRequest.create(config, **_with_references(values, opened))
            digest = _digest(request, "seed" in values, identity)
            place = _save_dir(entry, path.parent, folder)
        except USOError as error:
            problems.append(f"Job {number}: {error}")
            continue
        seed = request.seed if "seed" in values else _derived_seed(digest, seen[digest])
        seen[digest] += 1
        jobs.append(
            Job(
                number=number,
                values=values | {"seed": seed},
                folder=place,
                digest=digest,
                references=_hashes(request),
                seed=seed,
                num_images=request.num_images,
            )
        )
    _refuse(path, problems or _unwritable(jobs), len(entries))
    return jobs


def check_prompts(path: Path, jobs: list[Job], pipe: "USOPipeline | RemotePipeline") -> None:
    """Refuse prompts that are longer than the model reads, or in letters that it does not know, by its tokenizer.

    Raises:
        RequestError: lists each refused job by number, with the reason.
    """
    problems = []
    for job in jobs:
        try:
            pipe.check_prompt(job.values["prompt"])
            pipe.reading_notes(job.values["prompt"])
        except RequestError as error:
            problems.append(f"Job {job.number}: {error}")
    _refuse(path, problems, len(jobs))


def _refuse(path: Path, problems: list[str], jobs: int) -> None:
    if problems:
        count = f"{len(problems)} of {jobs} jobs" if jobs > 1 else "its job"
        raise RequestError("\n".join([f"{path}: {count} refused, nothing was started.", *problems]))


def _entries(path: Path) -> list[Any]:
    try:
        entries = json.loads(read_text(path, "batch file", RequestError))
    except (json.JSONDecodeError, RecursionError) as error:
        raise RequestError(f"The batch file {path} is not JSON: {error}.") from error
    if not isinstance(entries, list) or not entries:
        raise RequestError(f"The batch file {path} must hold a list of one or more jobs: [{{...}}, ...].")
    return entries


def _values(entry: Any, base: Path, defaults: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """A job as arguments of `GenerationRequest.create`, with absolute paths as references and without a random seed."""
    if not isinstance(entry, dict):
        raise RequestError(f'A job is {{"prompt": "...", "image_paths": [...]}}, not {json.dumps(entry)[:60]}.')
    unknown = [key for key in entry if key not in _KEYS]
    if unknown:
        raise RequestError(f"There is no {unknown[0]!r}. The keys of a job are: {', '.join(_KEYS)}.")
    if entry.get("prompt") is None:
        raise RequestError('It has no "prompt". An empty one ("") keeps the layout of its content image.')
    given = {REQUEST_FLAGS[key]: entry[key] for key in REQUEST_FLAGS if entry.get(key) is not None}
    sized = "width" in given or "height" in given
    if sized and given.get("keep_input_size"):
        raise RequestError('"keep_size" takes the size from the content image: leave out "width" and "height".')
    values = defaults | ({"keep_input_size": False} if sized else {}) | given
    if values.get("seed") == RANDOM_SEED:
        del values["seed"]
    paths = entry.get("image_paths") or []
    if not isinstance(paths, list) or not all(isinstance(item, str) for item in paths):
        raise RequestError('"image_paths" is a list of paths: the content image (or ""), then the style images.')
    if "" in paths[1:]:
        raise RequestError('Only the first of "image_paths" may be "" (no content image); leave out the others.')
    contents = [base.absolute() / from_home(item) for item in paths[:1] if item]
    styles = [style_file(args, item, base.absolute()) for item in paths[1:]]
    return values | {"content_images": contents, "style_images": styles}


def _with_references(values: dict[str, Any], opened: Callable[[Path], ReferenceImage]) -> dict[str, Any]:
    return values | {kind: [opened(path) for path in values[kind]] for kind in ("content_images", "style_images")}


def _hashes(request: GenerationRequest) -> tuple[str, ...]:
    return tuple(reference.sha256 for reference in (*request.content_images, *request.style_images))


def _digest(request: GenerationRequest, seeded: bool, identity: list[Any]) -> str:
    """SHA-256 of everything that determines the pictures: model, request, image bytes; the seed if it was given."""
    content: dict[str, Any] = {
        field.name: getattr(request, field.name)
        for field in fields(request)
        if field.name not in ("content_images", "style_images", "num_images", "seed")
    }
    content |= {"contents": len(request.content_images), "references": _hashes(request), "model": identity}
    if set(request.style_strengths) <= {1.0}:
        del content["style_strengths"]  # the names of pictures from before there were strengths stay
    if seeded:
        content["seed"] = request.seed
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _derived_seed(digest: str, occurrence: int) -> int:
    """The seed of a job without one: always the same for a file, but different among equal jobs."""
    number = int(hashlib.sha256(f"{digest}/{occurrence}".encode()).hexdigest(), 16)
    return number % (MAX_SEED - MAX_IMAGES)


def _save_dir(entry: dict[str, Any], base: Path, default: Path) -> Path:
    place = entry.get("save_dir")
    if place is None:
        return default
    if not isinstance(place, str) or not place or "\0" in place:
        raise OutputError(f'"save_dir" is {place!r}; a folder is needed.')
    return base / from_home(place)


def _unwritable(jobs: list[Job]) -> list[str]:
    problems = []
    for folder, job in {job.folder: job for job in reversed(jobs)}.items():
        try:
            output.check_folder(folder)
        except OutputError as error:
            problems.append(f"Job {job.number}: {error}")
    return problems
