"""Captions for pictures that have none, by a vision-language model that a configuration names.

The model runs in transformers' own `image-text-to-text` pipeline, and is asked one question per picture. Each caption
is written at once as `a.txt` beside `a.png`, so a stopped call continues; captions that exist are left alone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from uso.config import CONFIGS, Strict, load_named
from uso.errors import ConfigError
from uso.files import write_over
from uso.images.pixels import fit_reference, open_image
from uso.training.data.folders import SUFFIXES, caption_file, pictures_in

FOLDER = CONFIGS / "captioners"


class CaptionerConfig(Strict):
    """A vision-language model and what it is asked; a YAML file of `configs/captioners/`."""

    repo: str
    """A Hub repository, or a folder on this machine."""
    revision: str | None = None
    dtype: str = "bfloat16"
    question: str
    size: int = Field(default=768, ge=64)
    """Long side of what it is shown, in pixels."""
    max_tokens: int = Field(default=120, ge=1)


def load_captioner_config(name: str) -> CaptionerConfig:
    """A configuration by name or path of a YAML file.

    Raises:
        ConfigError: there is none, or it holds unknown or wrong values.
    """
    return load_named(CaptionerConfig, name, FOLDER, "captioner")


def load_captioner(config: CaptionerConfig, device: str) -> Any:
    """The model's pipeline on a device.

    Raises:
        ConfigError: it cannot be loaded.
    """
    import torch
    from transformers import pipeline

    try:
        return pipeline(
            "image-text-to-text",
            model=config.repo,
            revision=config.revision,
            dtype=getattr(torch, config.dtype),
            device=device,
        )
    except (OSError, ValueError, AttributeError, ImportError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"{config.repo} could not be loaded as a captioner: {lines[0]}") from error


def write_captions(
    folder: Path,
    config: CaptionerConfig,
    load: Callable[[], Any],
    progress: Callable[[int, int], None] = lambda *_: None,
) -> int:
    """Write a caption beside every picture that has none; returns how many.

    Args:
        load: gives the pipeline; not called if nothing is missing.

    Raises:
        ConfigError: the folder holds no pictures, or the model answers nothing.
    """
    pictures = pictures_in(folder)
    if not pictures:
        raise ConfigError(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))}).")
    silent = [path for path in pictures if caption_file(path) is None]
    model: Any = load() if silent else None
    for done, path in enumerate(silent, start=1):
        image = fit_reference(open_image(path.read_bytes(), path.name), config.size)
        content = [{"type": "image", "image": image}, {"type": "text", "text": config.question}]
        answer = model(
            text=[{"role": "user", "content": content}],
            return_full_text=False,
            generate_kwargs={"max_new_tokens": config.max_tokens, "do_sample": False},
        )
        caption = " ".join(answer[0]["generated_text"].split())
        if not caption:
            raise ConfigError(f"{config.repo} says nothing of {path}. Choose another captioner.")
        write_over(path.with_suffix(".txt"), f"{caption}\n".encode())
        progress(done, len(silent))
    return len(silent)
