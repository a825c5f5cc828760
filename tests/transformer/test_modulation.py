"""Rows of a table instead of modulation layers: bitwise the same picture, and the mistakes that would show."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel

from tests.golden import MODES, Case
from uso import USOPipeline
from uso.pipeline.latents import pack, picture_ids
from uso.pipeline.schedule import schedule_sigmas
from uso.transformer.modulation import Modulation


@pytest.fixture
def transformer() -> FluxTransformer2DModel:
    torch.manual_seed(0)
    return FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=48,
        pooled_projection_dim=32,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    ).eval()


def inputs(batch: int, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    random = torch.Generator().manual_seed(1)
    ids, _ = picture_ids(64, 96, [])
    return {
        "hidden_states": torch.randn(batch, 24, 64, generator=random).to(dtype),
        "encoder_hidden_states": torch.randn(batch, 8, 48, generator=random).to(dtype),
        "pooled_projections": torch.randn(batch, 32, generator=random).to(dtype),
        "img_ids": ids,
        "txt_ids": torch.zeros(8, 3),
        "return_dict": False,
    }


def compare(
    transformer: FluxTransformer2DModel, batch: int, sigma: float, guidance: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """(plain, from the table) outputs."""
    values = inputs(batch, dtype)
    scale = torch.full((batch,), guidance)
    with torch.inference_mode():
        plain = transformer(**values, timestep=torch.full((batch,), sigma), guidance=scale)[0]
        modulation = Modulation(transformer)
        (row,) = modulation.table(torch.tensor([sigma]), scale, values["pooled_projections"])
        modulation.set_row(row)
        ours = transformer(**values, timestep=torch.zeros(batch))[0]
        modulation.put_back()
    return plain, ours


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("guidance", [1.0, 3.5, 4.0])
@pytest.mark.parametrize("sigma", [1.0, 0.8256748914718628, 0.06235346570611])
def test_bitwise_for_one_image(
    transformer: FluxTransformer2DModel, sigma: float, guidance: float, dtype: torch.dtype
) -> None:
    plain, ours = compare(transformer.to(dtype), 1, sigma, guidance, dtype)
    assert torch.equal(plain, ours)


def test_close_for_three_images(transformer: FluxTransformer2DModel) -> None:
    plain, ours = compare(transformer, 3, 0.5, 4.0, torch.float32)
    assert float((plain - ours).norm() / plain.norm()) < 1e-6


def test_without_guidance(transformer: FluxTransformer2DModel) -> None:
    """schnell's transformer has no guidance embedding."""
    config = dict(transformer.config) | {"guidance_embeds": False}
    schnell = FluxTransformer2DModel.from_config(config).eval()
    values = inputs(1)
    with torch.inference_mode():
        plain = schnell(**values, timestep=torch.tensor([0.75]))[0]
        modulation = Modulation(schnell)
        (row,) = modulation.table(torch.tensor([0.75]), None, values["pooled_projections"])
        modulation.set_row(row)
        assert torch.equal(plain, schnell(**values, timestep=torch.zeros(1))[0])


def test_sees_another_steps_row(transformer: FluxTransformer2DModel) -> None:
    """The planted bug: the row of the step before."""
    values = inputs(1)
    scale = torch.tensor([4.0])
    with torch.inference_mode():
        plain = transformer(**values, timestep=torch.tensor([0.5]), guidance=scale)[0]
        modulation = Modulation(transformer)
        modulation.set_row(modulation.table(torch.tensor([0.6, 0.5]), scale, values["pooled_projections"])[0])
        assert not torch.allclose(plain, transformer(**values, timestep=torch.zeros(1))[0], rtol=1e-4)


def test_the_time_is_cast_before_it_is_scaled(transformer: FluxTransformer2DModel) -> None:
    """In bfloat16, `(1000 * t).bfloat16()` is another time than `1000 * t.bfloat16()`, which the network takes."""
    sigma = 0.4730600416660309
    assert torch.tensor(sigma).bfloat16() * 1000 != (torch.tensor(sigma) * 1000).bfloat16()
    plain, ours = compare(transformer.bfloat16(), 1, sigma, 4.0, torch.bfloat16)
    assert torch.equal(plain, ours)


@pytest.mark.parametrize("schedule", ["uso", "flux", 0.0])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_bitwise_the_stock_transformer(
    golden: Case, golden_pipeline: USOPipeline, mode: str, schedule: Any
) -> None:
    """A whole run of the pipeline against the stock transformer, called as diffusers' own pipelines would."""
    case, pipeline = golden, golden_pipeline
    conditioning = case.condition(pipeline, mode)
    run = pipeline.denoise(conditioning, case.expected["noise"], num_inference_steps=3, schedule=schedule)
    ours = list(run)[-1].latents
    assert torch.equal(ours, stock_run(case, pipeline, mode, schedule))


@torch.inference_mode()
def stock_run(case: Case, pipeline: USOPipeline, mode: str, schedule: Any) -> torch.Tensor:
    """Three Euler steps with diffusers' transformer put together again; only the context comes from the pipeline."""
    conditioning = case.condition(pipeline, mode)
    content = MODES[mode][0]
    sizes = [(8 * n for n in case.expected["reference_latents"].shape[-2:])] if content else []
    ids, reference_ids = picture_ids(case.height, case.width, [tuple(size) for size in sizes])  # type: ignore[misc]
    sigmas = torch.tensor([*schedule_sigmas(schedule, 3, case.height, case.width), 0.0])
    latents = pack(case.expected["noise"])
    content_image = case.image("content_preprocessed.png")
    references = [pack(pipeline.encode_reference(content_image))] if content else []
    with pipeline.exchanged.stock() as transformer:
        transformer.context_embedder = torch.nn.Identity()
        for sigma, following in pairwise(sigmas):
            velocity = transformer(
                hidden_states=torch.cat([latents, *references], dim=1),
                encoder_hidden_states=conditioning.context,
                pooled_projections=conditioning.pooled_prompt_embeds,
                timestep=sigma[None],
                guidance=conditioning.guidance,
                img_ids=torch.cat([ids, *reference_ids]),
                txt_ids=torch.zeros(conditioning.context.shape[1], 3),
                return_dict=False,
            )[0]
            latents = latents + (following - sigma) * velocity[:, : latents.shape[1]]
    return latents
