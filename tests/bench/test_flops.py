"""Operations of a step, from shapes, against the design's figure and a count by hand."""

import json

import pytest

from uso.bench.flops import step_flops
from uso.config import CONFIGS

TINY = {
    "in_channels": 64,
    "num_layers": 2,
    "num_single_layers": 3,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "pooled_projection_dim": 12,
    "guidance_embeds": True,
    "axes_dims_rope": (2, 2, 4),
}


def test_flux_at_1024_with_content_and_style() -> None:
    """The design: 99.0 TFLOP a step at 1024 x 1024 with a content reference of 512 and one style."""
    config = json.loads((CONFIGS / "architectures" / "flux-dev" / "transformer.json").read_text())
    flops = step_flops(config, picture_tokens=4096, reference_tokens=1024, context_tokens=512 + 192)
    assert flops / 1e12 == pytest.approx(99.0, abs=0.1)


def test_a_tiny_transformer_by_hand() -> None:
    """Every matrix product and both products of attention; a block kind left out or counted twice would show."""
    d, tokens, context = 16, 10, 6
    all_tokens = tokens + context
    attention = 2 * 2 * all_tokens * all_tokens * d
    double = 2 * all_tokens * d * d * (4 + 8) + attention
    single = 2 * all_tokens * d * d * (3 + 4 + 5) + attention
    time = 2 * (2 * (256 * d + d * d) + 12 * d + d * d)  # timestep, guidance and pooled prompt
    outside = 2 * tokens * 64 * d * 2 + time
    expected = 2 * double + 3 * single + outside
    counted = step_flops(TINY, picture_tokens=7, reference_tokens=3, context_tokens=6)
    assert counted == expected
    modulation = 2 * d * d * (2 * 12 + 3 * 3 + 2)
    assert step_flops(TINY, picture_tokens=7, reference_tokens=3, context_tokens=6, modulation=True) == (
        expected + modulation
    )
