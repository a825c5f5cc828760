"""A small pipeline and a judge that has learned nothing."""

from functools import partial
from pathlib import Path

import pytest

from tests.support.judging import SIZE
from tests.support.tiny_training import training_pipeline
from tools.demo.judge.judge import (
    Judge,
)
from tools.demo.parts.descriptor import new_descriptor
from uso.evaluation.metrics.csd import load_csd, published_tensors
from uso.pipeline.pipeline import USOPipeline
from uso.training.model.export import write_safetensors


@pytest.fixture(scope="session")
def pipeline() -> USOPipeline:
    """The golden network with text encoders that read whole sentences. Nothing here changes it."""
    found = training_pipeline()
    found.model_config = found.model_config.model_copy(update={"max_sequence_length": 64})
    return found


@pytest.fixture(scope="session")
def judge_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A descriptor that has learned nothing."""
    sizes = {"width": 64, "layers": 1, "image_size": 32, "patch_size": 16, "vector": 16}
    path = tmp_path_factory.mktemp("judge") / "descriptor.safetensors"
    write_safetensors(path, published_tensors(new_descriptor(sizes, seed=0)))
    return path


@pytest.fixture
def few_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge of a command learns from two examples of each style and subject, not sixteen, which take longest."""
    monkeypatch.setattr("tools.demo.judge.judge.Judge", partial(Judge, examples=2))


@pytest.fixture(scope="session")
def judge(judge_file: Path) -> Judge:
    return Judge(load_csd(judge_file), SIZE, examples=2)
