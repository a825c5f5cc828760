"""What a request is made into before denoising, on the demo model."""

import pytest
import torch

from uso import USOPipeline
from uso.pipeline.cache import TensorCache


def test_a_position_grid_is_the_models(demo_pipeline: USOPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a grid that is read nowhere, or changes pictures of the size that it was made for. The demo's is of 128
    pixels: there, the tables are those of a model without one."""
    config, prompt, tables = demo_pipeline.model_config, demo_pipeline.encode_prompt(""), {}
    assert config.position_grid == 8
    for grid in (8, None):
        monkeypatch.setattr(demo_pipeline, "model_config", config.model_copy(update={"position_grid": grid}))
        monkeypatch.setattr(demo_pipeline, "remembered", TensorCache(2**24))
        for width in (128, 192):
            made = demo_pipeline.make_conditioning(*prompt, height=128, width=width, guidance_scale=2.0)
            tables[grid, width] = torch.cat(made.positions)
    assert torch.equal(tables[8, 128], tables[None, 128])
    assert tables[8, 192].shape == tables[None, 192].shape and not torch.equal(tables[8, 192], tables[None, 192])
