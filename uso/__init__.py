"""USO: style- and subject-driven image generation on FLUX.1.

`from uso import USOPipeline, GenerationRequest, load_pipeline` works. Nothing heavy is imported until one of these
names is used, so `import uso` and `--help` stay fast.

errors files config language hooks output arguments terminal version    plain data, without torch
images/         images that people send: formats, and pixels as the model takes them
request/        what is asked for, checked before anything heavy loads
system/         the machine: network, threads, packages, launchers
transformer/    FLUX's transformer as USO runs it
memory/         where weights live while it runs
pipeline/       a request becomes a picture
forecast/       what a request will need, from shapes alone
weights/        files on a disk become a pipeline
cluster/        workers on other machines
bench/          how fast it is
evaluation/     how good it is
training/       how projector and LoRA are learned
web/            the page and the server
cli/            `python -m uso`
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from uso.version import __version__ as __version__

if sys.platform == "linux" and not any(name.endswith("_ALLOC_CONF") for name in os.environ):
    # PyTorch reads it at its first allocation on a GPU. With segments of fixed size, blocks that come and go would
    # leave gaps: 1 GiB under plan `16gb`, and no room for the blocks that stream.
    os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"

_HOMES = {
    "GenerationRequest": "uso.request.request",
    "GenerationResult": "uso.request.request",
    "ModelConfig": "uso.config",
    "Progress": "uso.request.request",
    "ReferenceImage": "uso.request.request",
    "USOError": "uso.errors",
    "USOPipeline": "uso.pipeline.pipeline",
    "load_model_config": "uso.config",
    "load_pipeline": "uso.weights.loading",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from uso.config import ModelConfig, load_model_config
    from uso.errors import USOError
    from uso.pipeline.pipeline import USOPipeline
    from uso.request.request import GenerationRequest, GenerationResult, Progress, ReferenceImage
    from uso.weights.loading import load_pipeline


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'uso' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
