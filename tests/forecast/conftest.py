"""FLUX and demo model without weights, each built and traced once for a file of tests."""

from collections.abc import Generator

import pytest
import torch

from uso.config import ModelConfig
from uso.forecast.forecast import MetaModel

FLUX_BLOCKS = 57

MODELS: dict[tuple[str, torch.dtype], MetaModel] = {}
BUILD = MetaModel.from_config


@pytest.fixture(scope="module")
def one_model_of_a_kind() -> Generator[None, None, None]:
    """Traces are remembered by the model, which the verb would build anew for each call."""

    def kept(config: ModelConfig, dtype: torch.dtype) -> MetaModel:
        key = (config.name, dtype)
        if key not in MODELS:
            MODELS[key] = BUILD(config, dtype)
        return MODELS[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetaModel, "from_config", kept)
        yield
    MODELS.clear()
