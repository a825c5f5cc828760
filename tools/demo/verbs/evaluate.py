"""The verb `evaluate`: measure a model on drawn pictures that training has not seen."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.demo.verbs.data import parse_size
from uso.config import ROOT, ModelConfig, from_home, load_model_config, with_local_files
from uso.errors import ConfigError
from uso.request.request import GenerationRequest
from uso.terminal import loading_bar, say

if TYPE_CHECKING:
    from tools.demo.judge.material import Condition
    from uso.pipeline.pipeline import USOPipeline

COUNT = 200
"""Pictures per condition: shares are then known to within 7 points, which tells a good model from a fair one."""
BATCH = 20
"""Pictures drawn at once: enough for matrix products to be busy, few enough for a laptop's memory."""
JUDGE = "assets/judge/descriptor.safetensors"
"""Relative to the program's root."""


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "evaluate",
        help="measure a model",
        description="Draw pictures of eight conditions that training has not seen, have a judge decide whether style "
        "and subject are right, and print the shares beside chance and truth. The same numbers give the same pictures.",
    )
    parser.set_defaults(run=run)
    add_judged(parser, COUNT, "pictures per condition")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps (the model's default)")
    parser.add_argument("--guidance", type=float, metavar="NUMBER", help="guidance scale (the model's default)")
    parser.add_argument(
        "--before",
        type=Path,
        metavar="FOLDER",
        help="projector.safetensors and dit_lora.safetensors of before, measured beside the model's, with its image "
        "encoder unless the folder holds a siglip of its own",
    )
    parser.add_argument("--size", metavar="SIZE", help="WIDTHxHEIGHT of the pictures, such as 192x128 (128x128)")
    parser.add_argument("--only", metavar="NAMES", help="some conditions, separated by commas (all eight)")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="write every picture, and contact sheets")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers and settings")
    return parser


def add_judged(parser: argparse.ArgumentParser, count: int, counted: str) -> None:
    """The flags of every verb that lets the judge look at a model's pictures."""
    parser.add_argument("--model", default="demo", metavar="NAME", help="a model's name or YAML file (demo)")
    parser.add_argument("--judge", default=JUDGE, metavar="FILE", help=f"the judge's descriptor ({JUDGE})")
    parser.add_argument("--count", type=int, default=count, metavar="N", help=f"{counted} ({count})")
    parser.add_argument("--batch", type=int, default=BATCH, metavar="N", help=f"pictures drawn at once ({BATCH})")


def check_judged(args: argparse.Namespace) -> Path:
    """The judge's file.

    Raises:
        ConfigError: it is not there, or a number is too small.
    """
    for name, value in (("--count", args.count), ("--batch", args.batch)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1.")
    judge_file = ROOT / from_home(args.judge)
    if not judge_file.is_file():
        raise ConfigError(
            f"There is no judge {judge_file}. Train one (python -m tools.demo part judge), or name its file: "
            "--judge FILE."
        )
    return judge_file


def run(args: argparse.Namespace) -> int:
    """Measure, print the table; returns the exit status.

    Raises:
        USOError: with the remedy.
    """
    from tools.demo.judge.material import SIZE

    judge_file = check_judged(args)
    configs = _models(args)
    conditions = _conditions(args.only)
    size = parse_size(args.size, "--size") if args.size else (SIZE, SIZE)
    for folder in (args.pictures, args.json and args.json.parent):
        if folder is not None:
            _make(folder)
    _evaluate(args, configs, judge_file, conditions, size)
    return 0


def _conditions(names: str | None) -> "tuple[Condition, ...]":
    """The conditions of some names; all without any.

    Raises:
        ConfigError: there is none of a name.
    """
    from tools.demo.judge.material import CONDITIONS

    known = {condition.name: condition for condition in CONDITIONS}
    chosen = list(known) if names is None else [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in known:
            raise ConfigError(f"--only: there is no condition '{name}'. Choose from: {', '.join(known)}.")
    return tuple(known[name] for name in chosen)


def _models(args: argparse.Namespace) -> dict[str, ModelConfig]:
    """What is measured, by its name in the report.

    Raises:
        ConfigError: no such model, or files of before that are not there.
    """
    model = load_model_config(args.model)
    if args.before is None:
        return {"result": model}
    files = {"projector": args.before / "projector.safetensors", "lora": args.before / "dit_lora.safetensors"}
    for path in files.values():
        if not path.is_file():
            raise ConfigError(f"--before {args.before}: it holds no {path.name}. Name a folder with both files.")
    if (args.before / "siglip").is_dir():
        files["image_encoder"] = args.before / "siglip"
    return {"before": with_local_files(model, {name: str(path) for name, path in files.items()}), "after": model}


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"The folder {folder} cannot be made ({error.strerror}). Name another.") from error


def _load(config: ModelConfig) -> "USOPipeline":
    from uso.weights.loading import load_pipeline

    with loading_bar() as show:
        return load_pipeline(config, on_progress=show)


def _evaluate(
    args: argparse.Namespace,
    configs: dict[str, ModelConfig],
    judge_file: Path,
    conditions: "tuple[Condition, ...]",
    size: tuple[int, int],
) -> None:
    import cv2

    from tools.demo.judge.album import Album
    from tools.demo.judge.draw import through_autoencoder
    from tools.demo.judge.judge import EXAMPLES, Judge
    from tools.demo.judge.material import FIRST, SIZE
    from tools.demo.judge.report import Score, as_json, as_text
    from tools.demo.judge.scores import evaluate
    from tools.demo.judge.structure import psnr
    from tools.demo.parts.pictures import held_out
    from tools.demo.shards.arrays import to_bytes
    from tools.demo.world.subjects import font
    from uso.evaluation.metrics.csd import load_csd
    from uso.training.data.files import file_sha256

    began = time.perf_counter()
    cv2.setNumThreads(1)  # on pictures this small its threads only get in each other's way
    model = list(configs.values())[-1]
    request = GenerationRequest.create(
        model,
        width=size[0],
        height=size[1],
        content_size=SIZE,
        num_inference_steps=args.steps,
        guidance_scale=args.guidance,
        seed=FIRST,
    )
    font()
    descriptor = load_csd(judge_file)
    pipelines = {name: _load(config) for name, config in configs.items()}
    say("Drawing examples of every style and subject for the judge.")
    judge = Judge(descriptor)
    album = Album(args.pictures) if args.pictures else None
    scores: list[Score] = []
    fidelity: list[float] = []
    for event in evaluate(pipelines, judge, request, count=args.count, batch=args.batch, conditions=conditions):
        if isinstance(event, Score):
            scores.append(event)
            continue
        if album is not None:
            album.add(event)
        fidelity += [psnr(made, task.truth) for made, task in zip(event.decoded, event.tasks, strict=True)]
        say(f"{event.condition.name}: {event.done} of {args.count}, {time.perf_counter() - began:.0f} s in all.")
    single = to_bytes(held_out(SIZE))
    again = through_autoencoder(list(pipelines.values())[-1], single)
    kinds = [psnr(made, truth) for made, truth in zip(again, single, strict=True)]
    settings = {
        "models": {name: pipeline.provenance for name, pipeline in pipelines.items()},
        "judge": {"file": str(args.judge), "sha256": file_sha256(judge_file), "examples": EXAMPLES},
        "count": args.count,
        "batch": args.batch,
        "size": "{} x {}".format(*size),
        "steps": request.num_inference_steps,
        "guidance": request.guidance_scale,
        "schedule": request.schedule,
        "seed": FIRST,
        "autoencoder_psnr": round(sum(fidelity) / len(fidelity), 2),
        "autoencoder_psnr_of_all_kinds": round(sum(kinds) / len(kinds), 2),
        "seconds": round(time.perf_counter() - began, 1),
    }
    sys.stdout.write(_heading(model, settings) + "\n\n" + as_text(scores) + "\n")
    if args.json is not None:
        args.json.write_text(json.dumps(as_json(scores, settings), indent=2) + "\n", encoding="utf-8")


def _heading(model: ModelConfig, settings: dict[str, Any]) -> str:
    guided = "" if settings["guidance"] is None else f", guidance {settings['guidance']:g}"
    return (
        f"{model.title}: {settings['count']} pictures per condition, {settings['size']}, "
        f"{settings['steps']} steps{guided}, {settings['seconds']:.0f} s; "
        f"autoencoder {settings['autoencoder_psnr']:.1f} dB, and {settings['autoencoder_psnr_of_all_kinds']:.1f} dB on "
        "pictures of all kinds, plain ones too"
    )
