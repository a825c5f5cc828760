"""Loading for training."""

import os
from pathlib import Path

import psutil
import pytest

from tests.support.tiny_training import write_rows
from uso.memory.plan import GIB
from uso.training.config import load_training_config
from uso.training.model.load import host_refusal


def test_weights_that_the_host_cannot_hold_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches a run that is killed without a word, weights counted as they are stored where they are loaded in float32,
    and a copy counted for each process where they share one."""
    config = load_training_config("stage2", [f"data.rows={write_rows(tmp_path)}", "base=bfloat16"])
    memory = psutil.virtual_memory()._replace(available=40 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert host_refusal(config) is None  # 32.4 GiB
    assert (host_refusal(config.model_copy(update={"base": "float32"})) or "").startswith("The run loads 64.")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert host_refusal(config) is None
    monkeypatch.delattr(os, "memfd_create")
    assert (host_refusal(config) or "").startswith("The run's 2 processes load 64.")
