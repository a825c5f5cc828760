"""The context embedder against its definition; numbers of the released layout are held by the golden case."""

import pytest
import torch
from torch import nn

from uso.transformer.context_embedder import STYLE_LAYERS, ContextEmbedder


@pytest.fixture
def embedder() -> ContextEmbedder:
    torch.manual_seed(0)
    embedder = ContextEmbedder(image_tokens=16, image_dim=24, style_tokens=4, hidden_size=32)
    embedder.text_projection = nn.Linear(12, 32)
    return embedder.eval()


def test_levels_read_their_layers_in_order(embedder: ContextEmbedder) -> None:
    """A level that read another layer, or tokens in another order, would show."""
    states = list(torch.randn(28, 1, 16, 24))
    tokens = embedder.style_tokens(states)
    assert tokens.shape == (1, 12, 32)
    for position, (level, layer) in enumerate(STYLE_LAYERS.items()):
        expected = embedder.levels[level](states[layer])
        assert torch.equal(tokens[:, 4 * position : 4 * position + 4], expected)
        assert not torch.allclose(expected, embedder.levels[level](states[layer + 1]))


def test_context_is_styles_then_text(embedder: ContextEmbedder) -> None:
    text = torch.randn(1, 5, 12)
    styles = [torch.randn(1, 12, 32), torch.randn(1, 12, 32)]
    context = embedder(text, styles)
    assert context.shape == (1, 29, 32)
    assert torch.equal(context[:, :24], torch.cat(styles, dim=1))
    assert torch.equal(context[:, 24:], embedder.text_projection(text))  # type: ignore[misc]
    assert torch.equal(embedder(text), context[:, 24:])


def test_without_a_text_projection_it_says_so(embedder: ContextEmbedder) -> None:
    embedder.text_projection = None
    with pytest.raises(RuntimeError, match="still in the transformer"):
        embedder(torch.randn(1, 5, 12))
