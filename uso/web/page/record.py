"""How a picture was made, from its record: the line under it, and its settings. Every text that comes in is escaped."""

from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any

from uso.config import ModelConfig
from uso.language import Text, told, tr
from uso.web.store.ledger import Remembered

_STAGES = {"condition": Text("reading"), "denoise": Text("denoising"), "decode": Text("decoding")}
"""The stages of a picture, in its settings."""

_DEVICES = {"cpu": "CPU", "cuda": "GPU", "mps": "Apple GPU"}


def facts(remembered: Remembered) -> str:
    """The seed and size that were used, how long it took, and when."""
    picture = remembered.picture
    parts = [
        (Text("Seed"), str(picture.seed)),
        (Text("Size"), f"{picture.width} × {picture.height}"),
        (Text("Steps"), str(picture.num_inference_steps)),
        (Text("Time"), tr("{:.1f} s", picture.seconds)),
    ]
    items = "".join(f"<div><dt>{told(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in parts)
    if remembered.made:
        items += f"<div><dt>{tr('Made')}</dt><dd>{_time(remembered.made)}</dd></div>"
    return f'<dl class="uso-facts" data-seed="{picture.seed}">{items}</dl>'


def settings(record: Mapping[str, Any]) -> str:
    """Everything that a picture's file records about how it was made."""
    request, model = record["request"], record["model"]
    size = f"{request.get('width')} × {request.get('height')}"
    none, timings = tr("(none)"), record.get("timings") or {}
    rows = [
        (Text("Prompt"), request.get("prompt") or none),
        (Text("Prompt as typed"), record.get("typed_prompt")),
        (Text("Notes"), " ".join(map(str, record.get("notes") or ()))),
        (Text("Content image"), ", ".join(entry["name"] for entry in request["content_images"]) or none),
        (Text("Style images"), _styles(request) or none),
        (Text("Size"), tr("{} (from the content image)", size) if request.get("keep_input_size") else size),
        (Text("Number of steps"), request.get("num_inference_steps")),
        (Text("Guidance"), request.get("guidance_scale") or none),
        (Text("Content reference size"), request.get("content_size")),
        (Text("Seed"), request.get("seed")),
        (Text("Schedule"), request.get("schedule")),
        (Text("Model"), told(model.get("title") or model["name"])),
        (Text("LoRAs"), loras(model)),
        (Text("Device"), device_name(model["device"]) if model.get("device") else None),
        (Text("Precision"), model.get("dtype")),
        (Text("Seconds"), ", ".join(f"{told(_STAGES.get(stage, stage))} {timings[stage]}" for stage in timings)),
    ]
    items = "".join(
        f"<dt>{told(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in rows
        if value is not None and value != ""
    )
    return f'<dl class="uso-settings">{items}</dl>'


def _styles(request: Mapping[str, Any]) -> str:
    """Names of the style images, with strengths where they are not 1."""
    images, strengths = request["style_images"], request.get("style_strengths")
    known = strengths if isinstance(strengths, list) else []
    named = zip(images, [*known, *[1] * len(images)], strict=False)
    return ", ".join(f"{entry['name']}" if size == 1 else tr("{} at {}", entry["name"], size) for entry, size in named)


def loras(model: Mapping[str, Any]) -> str:
    """The LoRAs that a picture's record names, with their strengths: those that were added, and USO's own.

    A record may come from a stranger's file.
    """
    named = [(lora.get("file"), lora.get("strength")) for lora in _dicts(model.get("added_loras"))]
    named += [(tr("USO's own"), model["lora_scale"])] if "lora_scale" in model else []
    return ", ".join(
        tr("{} at {:g}", name, round(size, 6)) if isinstance(size, float) else f"{name}" for name, size in named
    )


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def loras_of(config: ModelConfig) -> dict[str, Any]:
    """What `loras` shows of a model, before its pipeline is there."""
    added = [{"file": lora.local_path.name, "strength": lora.strength} for lora in config.added_loras]
    return {"added_loras": added, "lora_scale": config.lora_scale}


def device_name(name: str) -> str:
    """A device as people call it: the processor's name, or its kind."""
    kind, _, model = name.partition(" (")
    return model.removesuffix(")") if model and kind == "cuda" else _DEVICES.get(kind, kind)


def _time(seconds: float) -> str:
    """A moment in UTC; `scripts.LOCAL_TIME` turns it into the person's own time."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f'<time datetime="{moment.isoformat(timespec="seconds")}">{moment:%Y-%m-%d %H:%M} UTC</time>'
