"""Results to save, and pictures whose records were written by others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from uso import output
from uso.config import load_model_config
from uso.request.request import GenerationRequest, GenerationResult

DEMO = load_model_config("demo")
MODEL = {"name": "demo", "plan": "full", "device": "cpu (x86_64)", "dtype": "float32", "lora_scale": 1.0}


def result(image: Image.Image, **values: Any) -> GenerationResult:
    request = GenerationRequest.create(DEMO, **({"seed": 42} | values))
    return GenerationResult(
        image=image, request=request, model=MODEL, timings={"denoise": 1.23456}, peak_memory_gib=None
    )


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The picture at `path` with its record changed, as somebody might who wants to deceive."""
    record = output.read(path).record
    change(record)
    return foreign(path.with_name("changed.png"), json.dumps(record))


def foreign(path: Path, text: str | None, keyword: str = output.CHUNK) -> Path:
    info = PngImagePlugin.PngInfo()
    if text is not None:
        info.add_itxt(keyword, text)
    Image.new("RGB", (16, 16)).save(path, pnginfo=info)
    return path
