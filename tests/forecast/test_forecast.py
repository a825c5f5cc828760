"""The forecast: the design's figures, a forecast against a real request, and the largest size that fits."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from PIL import Image

from tests.forecast.conftest import BUILD, FLUX_BLOCKS, MODELS
from uso.config import MemoryPlan, ModelConfig, load_memory_plan, load_model_config
from uso.forecast import meta_model
from uso.forecast.forecast import (
    MetaModel,
    RequestForecaster,
    RequestShape,
    _smaller_sizes,
    forecast,
    largest_size_that_fits,
)
from uso.forecast.live_memory import LiveMemory
from uso.images.pixels import fit_reference
from uso.memory.plan import GIB, RESERVE, Activations
from uso.memory.sizes import weights_of
from uso.request.request import GenerationRequest

pytestmark = pytest.mark.usefixtures("one_model_of_a_kind")


@pytest.fixture(scope="module")
def flux() -> tuple[MetaModel, ModelConfig]:
    config = load_model_config("flux-dev")
    return MetaModel.from_config(config, torch.bfloat16), config


@pytest.fixture(scope="module")
def demo(demo_config: ModelConfig) -> tuple[MetaModel, ModelConfig]:
    return MetaModel.from_config(demo_config, torch.float32), demo_config


def shape_of(side: int, **values: Any) -> RequestShape:
    given: dict[str, Any] = {
        "height": side,
        "width": side,
        "content_sizes": ((side // 2, side // 2),),
        "num_styles": 2,
        "num_inference_steps": 25,
    }
    return RequestShape(**(given | values))


def test_weights_are_those_of_the_released_model(flux: tuple[MetaModel, ModelConfig]) -> None:
    """The design's figures: catches a component that is built in another dtype, twice, or not at all."""
    weights = flux[0].weights()
    assert sum(weights.blocks) + weights.core == pytest.approx(16.1 * GIB, abs=0.05 * GIB)
    assert sum(weights.modulation[:-1]) == pytest.approx(6.05 * GIB, abs=0.01 * GIB)
    assert weights.text_encoder_2 + sum(weights.text_encoder_2_blocks) == pytest.approx(8.9 * GIB, abs=0.05 * GIB)
    assert len(weights.blocks) == FLUX_BLOCKS and len(weights.text_encoder_2_blocks) == 24


@pytest.mark.parametrize(("size", "wanted"), [(1024, 3.3), (1536, 7.1)])
def test_decode_wants_what_is_known_of_it(size: int, wanted: float, flux: tuple[MetaModel, ModelConfig]) -> None:
    """The design's figures are tensors and the autoencoder's weights; catches attention over all pixels at once."""
    model, _ = flux
    alone = shape_of(size, content_sizes=(), num_styles=0)
    assert (model.activations(alone).decode + model.weights().vae) / GIB == pytest.approx(wanted, abs=0.06)


def test_references_and_steps_are_seen(demo: tuple[MetaModel, ModelConfig]) -> None:
    """Catches a stage that ignores what it is there for."""
    model, _ = demo
    base = shape_of(256)
    needs = model.activations(base)
    for changes, stages in (
        ({"height": 384, "width": 384}, {"denoise", "decode"}),
        ({"content_sizes": ((256, 256),)}, {"reference", "denoise"}),
        ({"content_sizes": ((128, 128),) * 3}, {"reference", "denoise"}),
        ({"num_styles": 6}, {"style", "denoise"}),
        ({"num_inference_steps": 50}, {"modulation", "denoise"}),
    ):
        more = model.activations(replace(base, **changes))
        assert all(getattr(more, stage) > getattr(needs, stage) for stage in stages), changes


def test_table_and_tiles_have_their_known_sizes(flux: tuple[MetaModel, ModelConfig]) -> None:
    """The design's 53 MB for 25 steps: catches a table as narrow as the layers that are run. Tiles must save memory."""
    model, _ = flux
    needs, tiled = model.activations(shape_of(1024)), model.activations(shape_of(1024, tiled=True))
    assert 53_000_000 > 25 * model.pipeline.exchanged.modulation.width * 2 > 52_000_000
    assert 80_000_000 > needs.modulation > 52_000_000
    assert tiled.decode < needs.decode / 2


def test_a_few_blocks_stand_for_all(demo: tuple[MetaModel, ModelConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches memory that grows from block to block, which a trace of the first two would not see."""
    model, config = demo
    blocks = len(model.pipeline.transformer.single_transformer_blocks)
    few = model.activations(shape_of(256))
    assert len(model.pipeline.transformer.single_transformer_blocks) == blocks > 2  # the model is whole again
    monkeypatch.setattr(meta_model, "TRACED_BLOCKS", 1000)
    MODELS.clear()
    assert MetaModel.from_config(config, torch.float32).activations(shape_of(256)) == few


def test_forecast_is_what_a_real_request_takes(
    demo: tuple[MetaModel, ModelConfig],
    demo_pipeline: Any,
    picture: Callable[..., Image.Image],
) -> None:
    """A whole request on the CPU, counted while it runs: catches a trace that has drifted from the pipeline."""
    config = demo[1]
    model = BUILD(config, torch.float32)
    model.pipeline.exchanged.run_eagerly()  # as the loaded model runs
    request = GenerationRequest.create(
        config,
        content_images=[picture(160, 128)],
        style_images=[picture(90, 90, 1), picture(80, 90, 2)],
        width=256,
        height=192,
        num_inference_steps=3,
        seed=5,
    )
    needs = model.activations(RequestShape.of(request))
    modulation = demo_pipeline.exchanged.modulation
    modules = [*demo_pipeline.components.values(), *modulation.layers, modulation.embedding]
    weights = [weight for module in modules if isinstance(module, torch.nn.Module) for weight in module.parameters()]
    demo_pipeline.remembered.clear()
    peaks: dict[str, int] = {}
    with LiveMemory("cpu", weights=weights) as live:
        for event in demo_pipeline.stream(request):
            done = getattr(event, "stage", "decode")
            peaks[done] = max(peaks.get(done, 0), live.take_peak())
    remembered = demo_pipeline.remembered.bytes  # on a CPU the host's memory is the device's
    demo_pipeline.remembered.clear()
    forecasts = {
        "condition": max(needs.text, needs.style, needs.reference),
        "denoise": max(needs.modulation, needs.denoise),
        "decode": needs.decode,
    }
    for stage, expected in forecasts.items():
        # What is remembered is counted whole, though the peak may come before the last of it.
        assert expected == pytest.approx(peaks[stage] - remembered, rel=0.1), stage


def test_weights_are_those_of_the_loaded_pipeline(demo: tuple[MetaModel, ModelConfig], demo_pipeline: Any) -> None:
    """Catches a component whose shipped config is not that of its files."""
    assert demo[0].weights() == weights_of(demo_pipeline)


def test_shape_of_a_request(demo_config: ModelConfig, picture: Callable[..., Image.Image]) -> None:
    """Catches exchanged sides, and a reference counted at another size than it is read at."""
    pictures = [picture(200, 100), picture(100, 200), picture(16, 16)]
    request = GenerationRequest.create(
        demo_config, content_images=pictures, style_images=[picture(64, 64)], width=256, height=128, content_size=150
    )
    shape = RequestShape.of(request)
    fitted = [fit_reference(image, 150).size for image in pictures]
    assert (shape.height, shape.width, shape.num_styles) == (128, 256, 1)
    assert shape.content_sizes == tuple((height, width) for width, height in fitted) == ((64, 144), (144, 64), (16, 16))


def test_the_worst_shape_is_the_limits_own(flux: tuple[MetaModel, ModelConfig]) -> None:
    """Catches blocks without a host copy that a request within the limits would have to make leave."""
    model, config = flux
    worst = RequestShape.worst(config)
    assert (worst.height, worst.width, worst.content_sizes) == (1536, 1536, ((1024, 1024),))
    most, usual = model.activations(worst), model.activations(shape_of(1024))
    assert all(getattr(most, field.name) >= getattr(usual, field.name) for field in fields(Activations))


def test_stages_that_a_request_skips_are_not_told(demo: tuple[MetaModel, ModelConfig]) -> None:
    """Catches SigLIP's weights in the peak of a request without a style."""
    model, config = demo
    bare = shape_of(256, content_sizes=(), num_styles=0)
    found = forecast(model, config, load_memory_plan("8gb"), bare)
    assert [stage.name for stage in found.stages] == ["text", "modulation", "denoise", "decode"]


def test_a_plan_without_a_limit_holds_everything(demo: tuple[MetaModel, ModelConfig]) -> None:
    """Catches pinned memory or missing weights where nothing visits."""
    model, config = demo
    found = forecast(model, config, load_memory_plan("cpu"), shape_of(256))
    assert found.fits and found.host_pinned == 0
    assert {stage.weights for stage in found.stages} == {model.weights().total}
    assert {stage.resident_blocks for stage in found.stages} == {len(model.weights().blocks)}


STREAMING = MemoryPlan(name="test", description="", visit=True, slots=2)


def least_budget(model: MetaModel, shape: RequestShape) -> int:
    """What a request needs with no block of the transformer on the device, when decoding is the most."""
    weights = model.weights()
    return model.activations(shape).decode + weights.vae + weights.core + RESERVE


def test_largest_size_keeps_the_shape_and_fits(demo: tuple[MetaModel, ModelConfig]) -> None:
    """Catches a size that is named and then refused, a smaller one than need be, or another shape."""
    model, config = demo
    asked = shape_of(384, height=192, content_sizes=())

    def fits(width: int, height: int, budget: int) -> bool:
        return forecast(model, config, STREAMING, replace(asked, width=width, height=height), budget).fits

    budget = least_budget(model, replace(asked, width=320, height=160))
    assert not fits(384, 192, budget)
    assert largest_size_that_fits(model, config, STREAMING, asked, budget) == (320, 160)
    assert fits(320, 160, budget) and not fits(336, 176, budget)
    assert largest_size_that_fits(model, config, STREAMING, asked, 2 * GIB) == (384, 192)
    assert largest_size_that_fits(model, config, STREAMING, asked, RESERVE) is None


@pytest.mark.parametrize(
    ("width", "height", "content", "styles"), [(4096, 2048, 512, 2), (8192, 2048, None, 0), (3072, 3072, 1024, 1)]
)
def test_few_sizes_are_traced_for_a_refusal(
    flux: tuple[MetaModel, ModelConfig], width: int, height: int, content: int | None, styles: int
) -> None:
    """Catches a search that traces a dozen sizes, which takes a person's patience; and a guess that is believed without
    a trace: the size fits, the next one does not."""
    model, config = flux
    sizes = () if content is None else ((content, content),)
    asked = shape_of(0, width=width, height=height, content_sizes=sizes, num_styles=styles)
    plan = load_memory_plan("8gb")
    assert not forecast(model, config, plan, asked).fits  # which traces the request itself
    before = model._traced.cache_info().misses
    found = largest_size_that_fits(model, config, plan, asked)
    assert found is not None and model._traced.cache_info().misses - before <= 4
    assert forecast(model, config, plan, replace(asked, width=found[0], height=found[1])).fits
    sizes_above = [size for size in _smaller_sizes(config, asked) if size.width > found[0]]
    assert not forecast(model, config, plan, sizes_above[0]).fits


@pytest.mark.slow
def test_stages_that_were_run_before_take_what_they_took(demo: tuple[MetaModel, ModelConfig]) -> None:
    """Catches a stage that is remembered although it depends on something else as well."""
    config = demo[1]
    used = BUILD(config, torch.float32)
    shapes = [
        shape_of(256),
        shape_of(256, num_styles=0),
        shape_of(256, content_sizes=((128, 64), (64, 64))),
        shape_of(256, content_sizes=()),
        shape_of(256, num_inference_steps=50),
        shape_of(128, weighted=True),
        shape_of(384, tiled=True),
    ]
    for shape in shapes:
        assert used.activations(shape) == BUILD(config, torch.float32).activations(shape), shape


def test_largest_size_stays_within_the_limits(demo: tuple[MetaModel, ModelConfig]) -> None:
    """Catches an advice that the request's own check would refuse; below the limit only for a shape that is there."""
    model, config = demo
    asked = shape_of(384, content_sizes=())
    kept = shape_of(112, content_sizes=())  # by keep-input-size, which goes below the limit of 128
    budget = least_budget(model, kept)
    assert largest_size_that_fits(model, config, STREAMING, asked, budget) is None
    assert largest_size_that_fits(model, config, STREAMING, kept, budget) == (112, 112)


def test_forecaster_answers_for_requests(
    demo: tuple[MetaModel, ModelConfig], picture: Callable[..., Image.Image]
) -> None:
    """Catches width and height exchanged between the request and the sentence that a person reads."""
    model, config = demo
    forecaster = RequestForecaster(model, config)
    request = GenerationRequest.create(config, content_images=[picture(200, 100)], width=256, height=128)
    assert forecaster.activations(request) == model.activations(RequestShape.of(request))
    assert forecaster.activations(None) == model.activations(RequestShape.worst(config))
    assert forecaster.largest_size(request, STREAMING, GIB) == (256, 128)
