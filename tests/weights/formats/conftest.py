"""The tiny FLUX and its text encoders, as what a LoRA may change."""

from typing import Any

import pytest
from accelerate import init_empty_weights
from diffusers import FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from tests.golden import Case
from uso.weights.formats.loras import Targets
from uso.weights.formats.patches import parameter_shapes

CLIP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2, "vocab_size": 64}


@pytest.fixture(scope="module")
def targets(golden: Case) -> Targets:
    with init_empty_weights():
        modules: tuple[Any, ...] = (
            FluxTransformer2DModel.from_config(golden.transformer_config()),
            CLIPTextModel(CLIPTextConfig(**CLIP)),
            T5EncoderModel(T5Config(**T5, feed_forward_proj="gated-gelu")),
        )
    return Targets(*map(parameter_shapes, modules))
