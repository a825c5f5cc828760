"""Captions as token ids, for the parts that read them."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTokenizer, T5TokenizerFast

from tools.demo.shards.shards import Shards
from uso.errors import ConfigError
from uso.pipeline.encoders import CLIP_LENGTH


def load_t5_tokenizer(model: Path) -> tuple[Any, int]:
    """T5's tokenizer of a model's folder, and the length that prompts are padded to."""
    folder = _present(model, "tokenizer_2")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    return T5TokenizerFast.from_pretrained(folder), int(settings["model_max_length"])


def load_clip_tokenizer(model: Path) -> Any:
    return CLIPTokenizer.from_pretrained(_present(model, "tokenizer"))


def _present(model: Path, name: str) -> Path:
    """A tokenizer's folder.

    Raises:
        ConfigError: it is not there.
    """
    if not (model / name / "tokenizer_config.json").is_file():
        raise ConfigError(f"{model} holds no {name}. Train it first: python -m tools.demo part tokenizers")
    return model / name


def t5_ids(tokenizer: Any, texts: list[str], length: int) -> torch.Tensor:
    """[N, length].

    Raises:
        ConfigError: a text is longer.
    """
    return _ids(tokenizer, texts, length)


def clip_ids(tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """[N, 77].

    Raises:
        ConfigError: a text is longer.
    """
    return _ids(tokenizer, texts, CLIP_LENGTH)


def _ids(tokenizer: Any, texts: list[str], length: int) -> torch.Tensor:
    ids: list[list[int]] = tokenizer(texts, padding="max_length", max_length=length).input_ids
    for text, row in zip(texts, ids, strict=True):
        if len(row) > length:
            raise ConfigError(
                f"A caption has {len(row)} tokens, and the model reads {length}: {text[:80]!r}. Write shorter captions."
            )
    return torch.tensor(ids)


def caption_ids(tokenizer: Any, shards: Shards, length: int) -> torch.Tensor:
    return t5_ids(tokenizer, [words["caption"] for words in shards.words], length)
