"""The verb `memory`: what a request will need, as a table or as JSON."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from PIL import Image

from uso.config import MemoryPlan, ModelConfig, load_memory_plan, load_model_config, memory_names, model_names
from uso.errors import ConfigError
from uso.memory.plan import GIB
from uso.request.request import GenerationRequest, ReferenceImage
from uso.weights.flags import AUTO, DTYPES

if TYPE_CHECKING:
    from uso.forecast.forecast import Forecast

_SQUARE = (64, 64)
"""Size of the blank reference images, in pixels; they are fitted to the requested size."""


def add_parser(verbs: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        "memory",
        help="what memory a request will need",
        description="Forecast a request's memory, stage by stage, from shapes alone: nothing is loaded or fetched.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("--model", default="flux-dev", metavar="NAME", help=f"{', '.join(model_names())} (flux-dev)")
    parser.add_argument(
        "--memory", default=AUTO, metavar="PLAN", help=f"auto (asks the GPU), {', '.join(memory_names())}"
    )
    parser.add_argument("--dtype", default="bfloat16", choices=DTYPES[1:], help="of all but the autoencoder (bfloat16)")
    parser.add_argument("--width", type=int, metavar="PIXELS", help="of the picture; left out, the model's default")
    parser.add_argument("--height", type=int, metavar="PIXELS", help="likewise")
    parser.add_argument("--content", type=_count, default=0, metavar="N", help="how many content images (0)")
    parser.add_argument("--content-size", type=int, metavar="PIXELS", help="side they are read at; they are square")
    parser.add_argument("--styles", type=_count, default=0, metavar="N", help="how many style images (0)")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps")
    parser.add_argument("--tiled-decode", action="store_true", help="decode in tiles")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of images")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Forecast a request; returns the exit status.

    Raises:
        USOError: the model, the plan or a size is refused.
    """
    config = load_model_config(args.model)
    plan = None if args.memory == AUTO else load_memory_plan(args.memory)
    request = request_of(args, config)

    import torch

    from uso.forecast.forecast import forecast, largest_size_that_fits
    from uso.forecast.meta_model import MetaModel, RequestShape
    from uso.weights.choices import choose_device, choose_plan

    if plan is None and not torch.cuda.is_available():
        raise ConfigError(
            "--memory auto asks a GPU how much of its memory is free, and there is none here. Name a plan: "
            f"--memory {', '.join(memory_names())}."
        )
    model = MetaModel.from_config(config, getattr(torch, args.dtype))
    plan = plan or choose_plan(AUTO, choose_device(), model.weights().total)
    shape = RequestShape.of(request)
    found = forecast(model, config, plan, shape)
    values = as_json(found, config, plan, request, args.dtype) | {"blocks": len(model.weights().blocks)}
    if not found.fits:
        values["largest_size_that_fits"] = largest_size_that_fits(model, config, plan, shape)
    print(json.dumps(values, indent=2) if args.json else as_table(values, plan))
    return 0


def request_of(args: argparse.Namespace, config: ModelConfig) -> GenerationRequest:
    """The request that the flags describe, with blank squares as references, checked against the model's limits.

    Raises:
        RequestError: a value is refused.
    """
    square = ReferenceImage.from_pil(Image.new("RGB", _SQUARE))
    return GenerationRequest.create(
        config,
        content_images=[square] * args.content,
        style_images=[square] * args.styles,
        width=args.width,
        height=args.height,
        content_size=args.content_size,
        num_inference_steps=args.steps,
        tiled_decode=args.tiled_decode,
    )


def as_json(
    found: "Forecast", config: ModelConfig, plan: MemoryPlan, request: GenerationRequest, dtype: str
) -> dict[str, Any]:
    """A forecast as plain values, in GiB."""
    return {
        "model": config.name,
        "plan": plan.name,
        "dtype": dtype,
        "width": request.width,
        "height": request.height,
        "content": len(request.content_images),
        "content_size": request.content_size,
        "styles": len(request.style_images),
        "steps": request.num_inference_steps,
        "tiled_decode": request.tiled_decode,
        "device_peak_gib": gib(found.device_peak),
        "device_limit_gib": None if found.budget is None else gib(found.budget),
        "host_pinned_gib": gib(found.host_pinned),
        "fits": found.fits,
        "stages": [
            {
                "name": stage.name,
                "weights_gib": gib(stage.weights),
                "activations_gib": gib(stage.activations),
                "peak_gib": gib(stage.peak),
                "resident_blocks": stage.resident_blocks,
            }
            for stage in found.stages
        ],
    }


def gib(size: int) -> float:
    return round(size / GIB, 3)


def as_table(values: dict[str, Any], plan: MemoryPlan) -> str:
    """A forecast as a table to read."""
    lines = [
        f"{values['model']} in {values['dtype']}, {values['width']} x {values['height']}, "
        f"content images: {values['content']}, style images: {values['styles']}",
        f"{plan.name}: {plan.description}",
        "",
        f"{'GiB':<12}{'weights':>9}{'others':>9}{'peak':>9}  blocks on the device",
    ]
    for stage in values["stages"]:
        figures = "".join(f"{stage[f'{column}_gib']:9.2f}" for column in ("weights", "activations", "peak"))
        lines.append(f"{stage['name']:<12}{figures}  {stage['resident_blocks']} of {values['blocks']}")
    limit = "" if plan.device_gib is None else f" of {plan.device_gib:g} that the plan allows"
    lines += [
        "",
        f"Peak on the device: {values['device_peak_gib']:.2f} GiB{limit}.",
        f"Page-locked on the host: {values['host_pinned_gib']:.2f} GiB.",
    ]
    if not values["fits"]:
        size = values["largest_size_that_fits"]
        lines.append("It does not fit; {} x {} does.".format(*size) if size else "It does not fit, at any size.")
    return "\n".join(lines)
