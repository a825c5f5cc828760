"""Loading for training."""

from pathlib import Path

import psutil
import pytest

from tests.support.tiny_training import (
    write_rows,
)
from uso.memory.plan import GIB
from uso.training.config import load_training_config
from uso.training.model.load import host_refusal


def test_weights_that_the_host_cannot_hold_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches processes that each load the whole model at the same moment, and are killed without a word; and weights
    counted as they are stored where they are loaded in float32."""
    config = load_training_config("stage2", [f"data.rows={write_rows(tmp_path)}", "base=bfloat16"])
    memory = psutil.virtual_memory()._replace(available=40 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert host_refusal(config) is None  # 32.4 GiB
    assert (host_refusal(config.model_copy(update={"base": "float32"})) or "").startswith("This process loads 64.")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert (host_refusal(config) or "").startswith("2 processes of this machine load 64.")
