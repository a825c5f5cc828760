"""A tiny model on a tiny Hub: its repositories, its configuration, and processes that fetch it."""

import random
import subprocess
import time
from collections.abc import Callable
from typing import Any

from tests.support.hub_server import Repository
from uso.config import ComponentName, ModelConfig, Source, load_model_config
from uso.weights.hub.cache import Hub
from uso.weights.hub.files import Located, download, plan_download

MIB = 1 << 20
BIG = 5 * MIB
REPO = "lab/flux"
STYLE = "studio/uso"


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def repository(**options: Any) -> Repository:
    """What a repository in the diffusers layout holds: things to fetch, and things that must not be."""
    files = {
        "flux1.safetensors": content(BIG),
        "flux1.bin": content(1000),
        "model_index.json": b"{}",
        "text_encoder/config.json": b'{"a": 1}',
        "text_encoder/model.safetensors": content(3000, 1),
        "text_encoder/model.fp16.safetensors": content(2000),
        "text_encoder/pytorch_model.bin": content(1000),
        "text_encoder/model.onnx": content(1000),
        "text_encoder_2/config.json": b'{"b": 2}',
        "text_encoder_2/model-00001-of-00002.safetensors": content(2500, 2),
        "text_encoder_2/model-00002-of-00002.safetensors": content(1500, 3),
        "text_encoder_2/model.safetensors.index.json": (
            b'{"weight_map": {"x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors"}}'
        ),
        "text_encoder_2/flax_model.msgpack": content(1000),
        "tokenizer/merges.txt": b"a b\n",
        "tokenizer/vocab.json": b'{"a": 0}',
        "tokenizer/tokenizer_config.json": b"{}",
        "tokenizer/README.md": b"read me",
        "tokenizer_2/spiece.model": content(500, 4),
        "tokenizer_2/tokenizer.json": b'{"c": 3}',
    }
    return Repository(files, **options)


WANTED = {
    "flux1.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder_2/config.json",
    "text_encoder_2/model-00001-of-00002.safetensors",
    "text_encoder_2/model-00002-of-00002.safetensors",
    "text_encoder_2/model.safetensors.index.json",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer_2/spiece.model",
    "tokenizer_2/tokenizer.json",
}


def model(**components: Source) -> ModelConfig:
    return load_model_config("demo").model_copy(update={"name": "tiny", "title": "Tiny", "components": components})


def remote(path: str, repo: str = REPO, **options: Any) -> Source:
    return Source(repo=repo, path=path, **options)


def everything() -> ModelConfig:
    folders: tuple[ComponentName, ...] = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    return model(
        transformer=remote("flux1.safetensors", size_gb=0.005),
        **{name: remote(name) for name in folders},
        lora=remote("v1/lora.safetensors", STYLE),
    )


def transformer() -> ModelConfig:
    return model(transformer=remote("flux1.safetensors"))


def fetch(config: ModelConfig, here: Hub, **options: Any) -> dict[ComponentName, Located]:
    return download(config, plan_download(config, hub=here), hub=here, **options)


def wait_for(condition: Callable[[], bool]) -> None:
    """A minute at most."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise TimeoutError("It never came to be.")


LOCATE = """
import sys
from uso.config import ModelConfig
from uso.errors import USOError
from uso.weights.hub.files import locate
try:
    locate(ModelConfig.model_validate_json(sys.argv[1]), download=True)
except USOError as error:
    sys.exit(str(error))
"""
COMMAND = """
import sys
from uso.config import ModelConfig
from uso.cli.download import run_download
sys.exit(run_download(ModelConfig.model_validate_json(sys.argv[1]), sys.stderr.write))
"""
Child = Callable[..., subprocess.Popen[str]]
