"""Style strength: 2 equals giving the image twice, 0 leaves it out, 1 changes nothing, whatever else is in a request.

Doubled images are the reference throughout: attention that reads a style's tokens twice needs no formula.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName
from PIL import Image
from torch._dynamo.utils import counters

from tests.conftest import draw_picture
from tests.support.tiny_flux import CONTEXT, tiny_request, tiny_transformer
from uso import USOPipeline
from uso.forecast.forecast import RequestForecaster
from uso.forecast.meta_model import MetaModel, RequestShape
from uso.pipeline import conditioning as module
from uso.pipeline.latents import draw_noise, pack
from uso.request.request import GenerationRequest
from uso.transformer import compile
from uso.transformer.attention import biased_attention, rotate_in_one_pass, strength_bias
from uso.transformer.int8 import quantize_blocks

EQUAL = 3e-6
"""Largest difference between two ways of computing one velocity, relative to its largest value."""

SEEN = 1e-4
"""A difference that no rounding makes."""

SMALL: dict[str, Any] = {"width": 128, "height": 160, "num_inference_steps": 2, "content_size": 64, "seed": 7}


def styles(*seeds: int) -> list[Image.Image]:
    return [draw_picture(100, 80, seed=seed) for seed in seeds]


@torch.inference_mode()
def velocity(pipeline: USOPipeline, images: Sequence[Image.Image], strengths: Any = None, **values: Any) -> Any:
    """The network's answer to noise, which the first step takes."""
    given = SMALL | {"style_images": images, "style_strengths": strengths} | values
    request = GenerationRequest.create(pipeline.model_config, prompt="A fox.", **given)
    conditioning = pipeline.condition(request)
    table = pipeline.modulation_table(conditioning, torch.tensor([0.9]))
    latents = pack(draw_noise(request.seed, request.height, request.width))
    return pipeline.velocity(conditioning, latents, table[0])


def bias_of(*values: Any) -> Any:
    return strength_bias(*values)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("contents", [0, 1], ids=["alone", "with content"])
def test_two_equals_twice(demo_pipeline: USOPipeline, contents: int) -> None:
    """Catches a bias at other tokens, of another size, or missing in some block."""
    content = {"content_images": [draw_picture(90, 120, seed=1)] * contents}
    one, other = styles(2, 3)
    twice = velocity(demo_pipeline, [one, one], **content)
    assert apart(velocity(demo_pipeline, [one], [2], **content), twice) < EQUAL
    assert apart(velocity(demo_pipeline, [one], [1], **content), twice) > SEEN
    both = velocity(demo_pipeline, [one, other, other], **content)
    assert apart(velocity(demo_pipeline, [one, other], [1, 2], **content), both) < EQUAL
    assert apart(velocity(demo_pipeline, [one, other], [2, 1], **content), both) > SEEN
    assert apart(velocity(demo_pipeline, [one, one, other], [0.5, 1.5, 2], **content), both) > SEEN
    halves = velocity(demo_pipeline, [one, one, other, other], [0.25, 0.75, 0.5, 1.5], **content)
    assert apart(halves, both) < EQUAL


@pytest.mark.parametrize(
    "plant",
    [
        lambda lengths, strengths, tokens: strength_bias(lengths, [math.exp(s - 1) for s in strengths], tokens),
        lambda lengths, strengths, tokens: torch.roll(bias_of(lengths, strengths, tokens), 1),
        lambda lengths, strengths, tokens: strength_bias(lengths[::-1], strengths[::-1], tokens),
        lambda *_: None,
    ],
    ids=["s - 1 for log s", "one token late", "styles exchanged", "no bias"],
)
def test_wrong_biases_are_seen(demo_pipeline: USOPipeline, plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = styles(2, 3)
    twice = velocity(demo_pipeline, [one, other, other])
    monkeypatch.setattr(module, "strength_bias", plant)
    assert apart(velocity(demo_pipeline, [one, other], [1, 2]), twice) > SEEN


def test_zero_leaves_it_out(demo_pipeline: USOPipeline) -> None:
    """Bit for bit. Catches an image that is still encoded, or a mask where none is needed."""
    one, other = styles(2, 3)
    for images, strengths, left in (([one], [0], []), ([one, other], [0, 1], [other]), ([one, other], [1, 0], [one])):
        given = demo_pipeline("A fox.", **SMALL, style_images=images, style_strengths=strengths)
        assert given.images[0].tobytes() == demo_pipeline("A fox.", **SMALL, style_images=left).images[0].tobytes()
        assert given.results[0].request.style_strengths == tuple(strengths)
        assert len(given.results[0].request.style_images) == len(images)


def test_one_is_the_plain_way(demo_pipeline: USOPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, and attention is called without a mask, so that the fastest kernels stay."""
    plain = demo_pipeline("A fox.", **SMALL, style_images=styles(2, 3)).images[0]
    masks = []
    attend: Any = torch.nn.functional.scaled_dot_product_attention

    def watched(*args: Any, **kwargs: Any) -> Any:
        masks.append(kwargs.get("attn_mask"))
        return attend(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    again = demo_pipeline("A fox.", **SMALL, style_images=styles(2, 3), style_strengths=[1, 1.0]).images[0]
    assert again.tobytes() == plain.tobytes()
    assert masks and not any(mask is not None for mask in masks)
    demo_pipeline("A fox.", **SMALL, style_images=styles(2), style_strengths=0.5)
    assert {mask.shape[:3] for mask in masks if mask is not None} == {(1, 1, 1)}


def test_a_batch_shares_its_strengths(demo_pipeline: USOPipeline) -> None:
    """Catches a bias with a batch dimension of its own."""
    pipeline = demo_pipeline
    prompt, pooled = pipeline.encode_prompts(["A fox.", "A house."])
    tokens = torch.cat([pipeline.encode_style(image) for image in styles(2, 3)])
    given: dict[str, Any] = {"height": 128, "width": 128, "guidance_scale": 2.0}
    latents = torch.cat([pack(draw_noise(seed, 128, 128)) for seed in (1, 2)])

    @torch.inference_mode()
    def answer(which: slice, tokens: list[torch.Tensor], strengths: Sequence[float]) -> torch.Tensor:
        made = pipeline.make_conditioning(
            prompt[which], pooled[which], style_tokens=tokens, style_strengths=strengths, **given
        )
        row = pipeline.exchanged.modulation.table(torch.tensor([0.9]), made.guidance, made.pooled_prompt_embeds)[0]
        return pipeline.velocity(made, latents[which], row)

    batch = answer(slice(0, 2), [tokens], [2.0])
    for index in (0, 1):
        which = slice(index, index + 1)
        assert apart(batch[which], answer(which, [tokens[which]] * 2, ())) < 10 * EQUAL


@pytest.mark.parametrize("way", ["plain", "int8", "one pass"])
def test_every_kind_of_block_takes_it(way: str) -> None:
    """Held in a transformer of 32 channels a head, where a token given twice is the reference again."""
    transformer: Any = tiny_transformer()
    if way == "int8":
        assert quantize_blocks(transformer).layers
    elif way == "one pass":
        rotate_in_one_pass(transformer)
    noise, inputs = tiny_request(transformer, context=6)
    context, ids = inputs["encoder_hidden_states"], inputs["txt_ids"]
    assert context.shape[-1] == CONTEXT

    def answer(context: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        given = inputs | {"encoder_hidden_states": context, "txt_ids": ids[:1].expand(context.shape[1], 3)}
        with biased_attention(transformer, bias) as kwargs, torch.inference_mode():
            output: torch.Tensor = transformer(
                noise, timestep=torch.tensor([0.9]), joint_attention_kwargs=kwargs, return_dict=False, **given
            )[0]
        return output

    twice = answer(torch.cat([context[:, :2], context], dim=1), None)
    bias = strength_bias([2], [2.0], 6 + noise.shape[1])
    assert apart(answer(context, bias), twice) < 5 * EQUAL
    assert apart(answer(context, None), twice) > SEEN


def test_one_more_graph_for_all_strengths() -> None:
    """Catches blocks that are compiled for every strength anew."""
    torch._dynamo.reset()
    transformer = tiny_transformer()
    compile.compile_blocks(transformer, None, backend="eager")
    noise, inputs = tiny_request(transformer)

    def graphs(strength: float) -> int:
        before = counters["stats"]["unique_graphs"]
        bias = strength_bias([2], [strength], noise.shape[1] + inputs["encoder_hidden_states"].shape[1])
        with biased_attention(transformer, bias) as kwargs, torch.inference_mode():
            transformer(noise, timestep=torch.tensor([0.9]), joint_attention_kwargs=kwargs, **inputs)
        return counters["stats"]["unique_graphs"] - before

    compile.choose_attention(transformer, "cpu")
    assert [graphs(strength) for strength in (1.0, 2.0, 0.5, 1.0, 1.5)] == [2, 2, 0, 0, 0]
    torch._dynamo.reset()


def test_a_kernel_that_is_not_known_to_take_a_bias_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN's attention is chosen once for a transformer; it must come back after the step, and after an error."""
    transformer = tiny_transformer()
    processors = [block.attn.processor for block in transformer.transformer_blocks]
    for processor in processors:
        processor._attention_backend = AttentionBackendName._NATIVE_CUDNN

    def backends() -> set[Any]:
        return {processor._attention_backend for processor in processors}

    with suppress(InterruptedError), biased_attention(transformer, torch.zeros(1, 1, 1, 4)):
        assert backends() == {AttentionBackendName.NATIVE}
        raise InterruptedError
    assert backends() == {AttentionBackendName._NATIVE_CUDNN}
    with biased_attention(transformer, None) as kwargs:
        assert kwargs is None
        assert backends() == {AttentionBackendName._NATIVE_CUDNN}


def test_the_forecast_knows(demo_pipeline: USOPipeline) -> None:
    """Catches a bias that costs memory unforeseen, and an image of strength 0 that is counted."""
    config = demo_pipeline.model_config
    model = MetaModel.from_config(config, torch.float32)

    def shape(strengths: Any) -> RequestShape:
        return RequestShape.of(
            GenerationRequest.create(config, **SMALL, style_images=styles(2, 3), style_strengths=strengths)
        )

    plain, weighted, single = shape(None), shape([1, 2]), shape([0, 1])
    assert [(one.num_styles, one.weighted) for one in (plain, weighted, single)] == [(2, False), (2, True), (1, False)]
    more = model.activations(weighted).denoise - model.activations(plain).denoise
    tokens = 8 * 10 + config.max_sequence_length + 2 * 3 * demo_pipeline.context_embedder.config.style_tokens
    assert 4 * tokens <= more < 2 * 4 * tokens + 1024
    assert RequestForecaster(model, config).activations(None) == model.activations(RequestShape.worst(config))
