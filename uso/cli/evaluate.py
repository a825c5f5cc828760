"""The verb `evaluate`: prepare a benchmark, make its pictures, score them, and write a report."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uso import output
from uso.cli import FAILED
from uso.cli.pictures.batch import device_of
from uso.cli.pictures.request import REQUEST_FLAGS, chosen_config, load, make
from uso.config import SPEEDS, ModelConfig, from_home
from uso.errors import ConfigError
from uso.evaluation.bench.config import bench_names, load_bench_config
from uso.evaluation.bench.entries import Bench, read_bench
from uso.evaluation.pictures import NAMINGS, RUN, claim, read_run, results
from uso.request.request import GenerationResult
from uso.system.launcher import Process, this_process
from uso.terminal import on_terminal, say
from uso.weights.flags import AUTO, DEVICE, add_model_flags, with_auto

logger = logging.getLogger(__name__)

BENCHES = Path("outputs/bench")
PACKAGES = BENCHES / "packages"
_SIZES = ("width", "height", "content_size")
_REQUEST = (*_SIZES, "steps", "guidance", "style_strengths")


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "evaluate",
        help="measure how good a model is",
        description="A benchmark in the style of the paper's USO-Bench, from its references to a report. Every step "
        "continues where it was interrupted. See docs/evaluation.md.",
    )
    kinds = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_prepare(kinds)
    _add_generate(kinds)
    _add_score(kinds)
    _add_report(kinds)
    return parser


def _add_prepare(kinds: Any) -> None:
    verb = kinds.add_parser("prepare", help="fetch the references and write the list of what to make")
    verb.add_argument("--bench", required=True, metavar="NAME", help=f"{', '.join(bench_names())}, or a YAML file")
    verb.add_argument("--output", type=Path, metavar="FOLDER", help=f"({BENCHES}/NAME)")
    verb.add_argument(
        "--references", type=Path, metavar="FOLDER", help="pictures of your own, in person/, object/ and style/"
    )
    verb.add_argument(
        "--packages", type=Path, default=PACKAGES, metavar="FOLDER", help=f"wheels and .deb files ({PACKAGES})"
    )
    verb.add_argument("--offline", action="store_true", help="fetch nothing")
    verb.set_defaults(run=_prepare)


def _add_generate(kinds: Any) -> None:
    verb = kinds.add_parser(
        "generate",
        help="make the pictures",
        description="Make a benchmark's pictures. Several GPUs: accelerate launch -m uso evaluate generate ...",
    )
    _add_bench(verb, required=True)
    verb.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for the pictures of this run")
    request = verb.add_argument_group("request (the model's defaults apply to what is left out)")
    for name in _SIZES:
        request.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="PIXELS")
    request.add_argument("--steps", type=int, metavar="N", help="denoising steps")
    request.add_argument("--guidance", type=float, metavar="NUMBER", help="how strictly the prompt is followed")
    request.add_argument(
        "--style-strength",
        dest="style_strengths",
        type=float,
        metavar="NUMBER",
        help="of every style image, 0 to 2 (1)",
    )
    add_model_flags(verb)
    verb.set_defaults(run=_generate)


def _add_score(kinds: Any) -> None:
    verb = kinds.add_parser(
        "score",
        help="measure pictures",
        description="Measure a folder of pictures: CLIP-I, CLIP-T, DINO, CSD, leak and copying. Several GPUs: "
        "accelerate launch -m uso evaluate score ...",
    )
    verb.add_argument("pictures", type=Path, metavar="PICTURES", help="a folder of evaluate generate, or of others")
    _add_bench(verb, required=False)
    verb.add_argument(
        "--naming", choices=NAMINGS, default=NAMINGS[0], help="upstream: inference.py's {save_dir}_{j}.png (uso)"
    )
    verb.add_argument("--output", type=Path, metavar="FOLDER", help="for scores and vectors (PICTURES)")
    verb.add_argument("--name", help="what tables call these pictures (the folder's name)")
    verb.add_argument("--partial", action="store_true", help="measure what is there where pictures are missing")
    encoders = verb.add_argument_group("encoders (the published ones are fetched)")
    encoders.add_argument("--clip", metavar="FOLDER", help="CLIP ViT-B/32 in transformers' layout, or a repository")
    encoders.add_argument("--dino", metavar="FOLDER", help="DINO ViT-S/16 in transformers' layout, or a repository")
    encoders.add_argument("--csd", metavar="FILE", help="CSD ViT-L/14's pytorch_model.bin, or a repository")
    encoders.add_argument("--device", default=AUTO, metavar="NAME", help="auto, cuda, cuda:1, mps, cpu")
    encoders.add_argument("--batch", type=int, default=64, metavar="N", help="pictures encoded at once (64)")
    encoders.add_argument("--offline", action="store_true", help="use what is on the disk; no network")
    verb.set_defaults(run=_score)


def _add_report(kinds: Any) -> None:
    verb = kinds.add_parser(
        "report",
        help="write tables, plots and sheets of pictures",
        description="Write report.md and report.html, which opens without a network. With several runs, each is "
        "compared with the first on the same pictures.",
    )
    verb.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders with scores.json")
    verb.add_argument("--output", type=Path, metavar="FOLDER", help="(RUN/report)")
    verb.set_defaults(run=_report)


def _add_bench(verb: argparse.ArgumentParser, required: bool) -> None:
    verb.add_argument(
        "--bench",
        required=required,
        metavar="NAME",
        help=f"{', '.join(bench_names())}, a prepared folder, or a list as inference.py reads it",
    )
    verb.add_argument("--images", type=int, metavar="N", help="pictures per entry, where the list does not say (1)")
    verb.add_argument(
        "--siblings", action="store_true", help="all pictures in a content image's folder show its subject (DreamBench)"
    )


def _reading(args: argparse.Namespace) -> dict[str, Any]:
    return {"images": args.images, "siblings": args.siblings}


def _bench(name: str, reading: dict[str, Any]) -> Bench:
    prepared = BENCHES / name
    return read_bench(prepared if prepared.is_dir() else from_home(name), **reading)


def _prepare(args: argparse.Namespace) -> int:
    config = load_bench_config(args.bench)
    if args.references and not args.references.is_dir():
        raise ConfigError(f"There is no folder {args.references}. Name the one that holds person/, object/, style/.")
    folder = args.output or BENCHES / Path(args.bench).stem
    output.check_folder(folder)
    from uso.evaluation.bench.prepare import LICENCES, prepare

    bench = prepare(config, folder, args.references, args.packages.absolute(), not args.offline, say)
    say((folder / LICENCES).read_text(encoding="utf-8"))
    say(f"{bench.title}: {len(bench.references)} references, {bench.count} pictures to make.")
    print(folder)
    return 0


def _generate(args: argparse.Namespace) -> int:
    args = with_auto(args)
    process = this_process()
    bench = _bench(args.bench, _reading(args))
    values = {REQUEST_FLAGS[name]: value for name in _REQUEST if (value := getattr(args, name)) is not None}
    from uso.evaluation.making import Maker

    def checked(model: ModelConfig) -> Maker:
        maker = Maker(bench, model, values, args.output)
        maker.check()
        return maker

    config, why = chosen_config(args, checked)
    maker = checked(config)
    output.check_folder(args.output)
    claim(args.output, bench, _made_by(args, config) | values, _reading(args))
    own = maker.own(process)
    waiting = {entry: wanted for entry, wanted in own.items() if any(not each.path.exists() for each in wanted)}
    before, failed = _present(own), 0
    if waiting:
        pipe = load(config, argparse.Namespace(**(vars(args) | {"device": device_of(process, args.device)})), why)
        maker.check_prompts(pipe)
    for number, (entry, wanted) in enumerate(waiting.items(), start=1):
        try:
            for request, paths in maker.requests(entry, wanted):
                make(pipe, request, _saved(paths), label=f"{number} of {len(waiting)}, ")
        except Exception as error:  # whatever happens to one entry, go on with the others
            failed += 1
            logger.debug("%s", entry.id, exc_info=True)
            say(f"{entry.id} failed: {error or type(error).__name__}")
    say(f"{_whose(process)}Pictures made: {_present(own) - before}, there already: {before}; entries failed: {failed}.")
    return FAILED if failed else 0


def _saved(paths: dict[int, Path]) -> Callable[[GenerationResult], Path]:
    def save(result: GenerationResult) -> Path:
        path = paths[result.request.seed]
        return output.save(result, path.parent, path.stem)

    return save


def _present(own: dict[Any, Any]) -> int:
    return sum(result.path.exists() for wanted in own.values() for result in wanted)


def _made_by(args: argparse.Namespace, config: ModelConfig) -> dict[str, Any]:
    """What determines pictures beside the benchmark and the request; files of one's own by their content, too."""
    from uso.weights.hub.cache import fingerprint

    model = config.model_dump(mode="json", include={"name", "components", "lora_scale", "added_loras"})
    if args.lora_scale is not None:
        model["lora_scale"] = args.lora_scale
    paths = [source.local_path for source in config.components.values() if source.repo is None]
    paths += [lora.local_path for lora in config.added_loras]
    inside = {path: [path] if path.is_file() else sorted(path.glob("*.safetensors")) for path in paths}
    files = {path.name: fingerprint(each)[:16] for path, each in inside.items() if each}
    made = {"model": model.pop("name"), **model, "files": files}
    return made | {"dtype": args.dtype, "speed": args.speed or SPEEDS[0]}


def _whose(process: Process) -> str:
    return f"Process {process.rank} of {process.world}. " if process.world > 1 else ""


def _score(args: argparse.Namespace) -> int:
    process = this_process()
    if not args.pictures.is_dir():
        raise ConfigError(f"There is no folder {args.pictures}. Name the one that holds the pictures.")
    if args.batch < 1:
        raise ConfigError(f"--batch is {args.batch}; it must be at least 1.")
    if not DEVICE.fullmatch(args.device):
        raise ConfigError(f"There is no device '{args.device}'. Choose auto, cpu, cuda, cuda:N or mps.")
    made = {} if args.bench and not (args.pictures / RUN).is_file() else read_run(args.pictures)
    bench = _bench(args.bench, _reading(args)) if args.bench else _bench(made["bench"], made["reading"])
    if made and made["digest"] != bench.digest:
        raise ConfigError(
            f"{args.pictures} was made for another benchmark ({made['title']}: prompts, seeds or references differ "
            f"from those of {bench.path}). Name the one it was made for: --bench."
        )
    folder = args.output or args.pictures
    output.check_folder(folder)
    from uso.evaluation.measure import ENCODERS, Settings, measure
    from uso.weights.choices import choose_device

    settings = Settings(
        encoders={name: getattr(args, name) for name in ENCODERS},
        device=str(choose_device(device_of(process, args.device))),
        batch=args.batch,
        partial=args.partial,
        offline=args.offline,
        process=process,
    )
    about = {"name": args.name, "made_by": made.get("made_by"), "naming": args.naming}
    path = measure(bench, results(bench, args.pictures, args.naming), folder, about, settings, _meter)
    if path is None:
        say(f"{_whose(process)}Done with its part. The process that ends last writes the scores.")
        return 0
    print(path)
    return 0


def _meter(what: str) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        if on_terminal():
            say(f"{what}: {done} of {total} pictures")

    return show


def _report(args: argparse.Namespace) -> int:
    for run in args.runs:
        if not run.exists():
            raise ConfigError(f"There is no {run}. Name folders with a scores.json, which evaluate score writes.")
    folder = args.output or (args.runs[0] if args.runs[0].is_dir() else args.runs[0].parent) / "report"
    output.check_folder(folder)
    from uso.evaluation.page.report import write_report

    for path in write_report(args.runs, folder):
        print(path)
    return 0
