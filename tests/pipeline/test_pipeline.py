"""The pipeline on the demo model: every mode, one request one picture, save and load, cancel."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from PIL import Image, ImageChops

from tests.conftest import draw_picture
from tests.golden import MODES, Case
from uso import USOPipeline
from uso.config import ModelConfig
from uso.errors import ConfigError, DeviceError, RequestError, USOError
from uso.memory.device import answers
from uso.pipeline.denoising import needs_tiles
from uso.pipeline.latents import image_to_tensor
from uso.request.request import GenerationRequest, GenerationResult, Progress
from uso.weights.loading import load_pipeline

SMALL: dict[str, Any] = {"width": 128, "height": 160, "num_inference_steps": 2, "content_size": 64, "seed": 7}


def references(mode: str) -> dict[str, Any]:
    content, styles = MODES[mode]
    return {
        "content_images": [draw_picture(90, 120, seed=1)] if content else [],
        "style_images": [draw_picture(100, 80, seed=2 + index) for index in range(len(styles))],
    }


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and one.tobytes() == other.tobytes()


def difference(one: Image.Image, other: Image.Image) -> int:
    extrema: Any = ImageChops.difference(one, other).getextrema()
    return max(high for _, high in extrema)


@pytest.mark.parametrize("prompt", ["A fox in the snow.", ""], ids=["prompt", "empty"])
def test_every_mode_makes_a_picture_of_its_own(demo_pipeline: USOPipeline, prompt: str) -> None:
    """A mode whose reference were dropped on the way would give another mode's picture."""
    pictures = {mode: demo_pipeline(prompt, **SMALL, **references(mode)).images[0] for mode in MODES}
    assert {picture.size for picture in pictures.values()} == {(128, 160)}
    assert len({picture.tobytes() for picture in pictures.values()}) == len(MODES)


@pytest.mark.slow
def test_one_request_one_picture_after_any_other(demo_pipeline: USOPipeline) -> None:
    """State left behind by another request (global generator, caches, tiling, sizes) would change the repeat."""
    for mode in MODES:
        first = demo_pipeline("A fox.", **SMALL, **references(mode)).images[0]
        torch.manual_seed(99)
        demo_pipeline("Another.", width=192, height=128, num_inference_steps=1, seed=1, tiled_decode=True)
        demo_pipeline("A fox.", **SMALL | {"schedule": "flux"}, **references("multi_style_subject"))
        assert same(first, demo_pipeline("A fox.", **SMALL, **references(mode)).images[0]), mode


def test_n_images_are_n_single_requests(demo_pipeline: USOPipeline) -> None:
    many = demo_pipeline("A fox.", **SMALL, num_images=3, **references("style_subject"))
    assert [result.request.seed for result in many.results] == [7, 8, 9]
    assert [result.timings["condition"] > 0 for result in many.results] == [True, False, False]
    for index, result in enumerate(many.results):
        single = demo_pipeline("A fox.", **SMALL | {"seed": 7 + index}, **references("style_subject"))
        assert same(single.images[0], result.image)
        assert result.request == single.results[0].request


def test_any_number_of_references(demo_pipeline: USOPipeline) -> None:
    contents = [draw_picture(90, 120, seed=seed) for seed in (1, 2, 3)]
    styles = [draw_picture(90, 120, seed=seed) for seed in (4, 5, 6, 7)]
    request = GenerationRequest.create(
        demo_pipeline.model_config, **SMALL, content_images=contents, style_images=styles
    )
    conditioning = demo_pipeline.condition(request)
    embedder = demo_pipeline.context_embedder.config
    text = demo_pipeline.model_config.max_sequence_length
    assert conditioning.context.shape[1] == text + 4 * 3 * embedder.style_tokens
    assert conditioning.references is not None
    assert conditioning.references.shape[1] == 3 * 3 * 4  # 48 x 64 pixels each
    picture = 8 * 10
    assert len(conditioning.positions[0]) == conditioning.context.shape[1] + picture + 3 * 3 * 4


@pytest.mark.parametrize(
    ("values", "sees"),
    [
        ({"seed": 8}, True),
        ({"guidance_scale": 4.0}, True),
        ({"num_inference_steps": 3}, True),
        ({"schedule": "flux"}, True),
        ({"schedule": 0.25}, True),
        ({"content_size": 96}, True),
        ({"schedule": "uso"}, False),
        ({"guidance_scale": 2.0}, False),
    ],
    ids=str,
)
def test_every_parameter_counts(demo_pipeline: USOPipeline, values: dict[str, Any], sees: bool) -> None:
    """A parameter that were ignored would give the same picture; one that is the default must."""
    plain = demo_pipeline("A fox.", **SMALL, **references("style_subject")).images[0]
    changed = demo_pipeline("A fox.", **SMALL | values, **references("style_subject")).images[0]
    assert same(plain, changed) is not sees


def test_keep_input_size(demo_pipeline: USOPipeline) -> None:
    output = demo_pipeline(num_inference_steps=1, keep_input_size=True, content_images=[draw_picture(200, 150)])
    assert output.images[0].size == (208, 144)
    assert output.results[0].request.width == output.images[0].width


def test_a_too_long_prompt_is_refused(demo_pipeline: USOPipeline) -> None:
    with pytest.raises(RequestError, match=r"The prompt has \d+ tokens; this model reads 32. Shorten it."):
        demo_pipeline("fox and hound " * 60, **SMALL)


def test_progress_follows_every_step(demo_pipeline: USOPipeline) -> None:
    request = GenerationRequest.create(demo_pipeline.model_config, **SMALL, num_images=2)
    events = list(demo_pipeline.stream(request))
    stages = [(e.stage, e.image_index, e.step) if isinstance(e, Progress) else "result" for e in events]
    assert stages == [
        ("condition", 0, 0),
        *[
            event
            for index in (0, 1)
            for event in (
                ("condition", index, 1),
                ("denoise", index, 1),
                ("denoise", index, 2),
                ("decode", index, 0),
                "result",
            )
        ],
    ]
    last = [e for e in events if isinstance(e, Progress) and e.stage == "denoise"][-1]
    # After the last step (sigma 0) the latents are what that step predicted as clean.
    assert torch.allclose(last.latents, last.denoised, atol=1e-5)
    seconds = [e.seconds for e in events if isinstance(e, Progress)]
    assert seconds == sorted(seconds)


def test_closing_the_stream_stops_and_the_next_request_works(demo_pipeline: USOPipeline) -> None:
    request = GenerationRequest.create(demo_pipeline.model_config, **SMALL)
    expected = demo_pipeline(**SMALL).images[0]
    stream: Any = demo_pipeline.stream(request)
    for event in stream:
        if isinstance(event, Progress) and event.stage == "denoise":
            break
    stream.close()
    assert list(stream) == []
    assert same(demo_pipeline(**SMALL).images[0], expected)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.0 GB, other allocations: 1.0 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_running_out_of_memory_is_a_sentence(
    error: RuntimeError, demo_pipeline: USOPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(demo_pipeline, "decode", full)
        with pytest.raises(USOError, match="ran out of memory at 128 x 160. Choose a smaller picture"):
            demo_pipeline(**SMALL)
    assert demo_pipeline(**SMALL).images[0].size == (128, 160)


def test_other_errors_are_not_called_memory(demo_pipeline: USOPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any, **__: Any) -> None:
        raise RuntimeError("The size of tensor a (4) must match the size of tensor b (5)")

    monkeypatch.setattr(demo_pipeline, "decode", wrong)
    with pytest.raises(RuntimeError, match="must match the size"):
        demo_pipeline(**SMALL)


def test_a_device_that_answers_no_more_is_told_apart(golden: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU stays dead for its process after some errors. The meta device computes nothing either."""

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with `TORCH_USE_CUDA_DSA`")

    assert answers(torch.device("cpu"))
    pipeline = golden.load()
    monkeypatch.setattr(pipeline, "condition", broken)
    request = GenerationRequest.create(pipeline.model_config)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        list(pipeline.stream(request))
    pipeline.residency.device = torch.device("meta")
    with pytest.raises(DeviceError, match=r"nothing any more \(CUDA error: .* was encountered\)\. Start the prog"):
        list(pipeline.stream(request))


@pytest.mark.parametrize(
    ("device", "width", "height", "tiled"),
    [("mps", 1536, 1360, False), ("mps", 1536, 1376, True), ("cuda", 1536, 1536, False), ("cpu", 1536, 1536, False)],
)
def test_large_pictures_are_decoded_in_tiles_on_mps(device: str, width: int, height: int, tiled: bool) -> None:
    """Catches one piece of more than 32,766 latents there, which is multiplied wrongly or ends the process."""
    assert needs_tiles(torch.device(device), torch.empty(1, 16, height // 8, width // 8, device="meta")) == tiled


def test_saved_pipeline_loads_back_to_the_same_numbers(demo_pipeline: USOPipeline, tmp_path: Path) -> None:
    """The traps: a text projection left random or on the meta device, T5's second embedding, another scheduler."""
    demo_pipeline.save_pretrained(tmp_path)
    stock, info = FluxTransformer2DModel.from_pretrained(tmp_path / "transformer", output_loading_info=True)
    assert not any(info.values()), info
    projection = demo_pipeline.context_embedder.text_projection
    assert projection is not None
    assert torch.equal(stock.context_embedder.state_dict()["weight"], projection.state_dict()["weight"])
    loaded = USOPipeline.from_pretrained(tmp_path, dtype=torch.float32)
    assert not any(
        p.is_meta for module in loaded.components.values() if hasattr(module, "parameters") for p in module.parameters()
    )
    assert loaded.model_config == demo_pipeline.model_config.model_copy(update={"components": {}})
    values = SMALL | references("multi_style_subject")
    assert same(demo_pipeline("A fox.", **values).images[0], loaded("A fox.", **values).images[0])


def test_a_folder_that_names_the_old_module_loads(demo_pipeline: USOPipeline, tmp_path: Path) -> None:
    """Catches a folder that no longer loads because `ContextEmbedder` moved away from `uso.context`."""
    demo_pipeline.save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    values = json.loads(index.read_text())
    assert values["context_embedder"] == ["uso.transformer.context_embedder", "ContextEmbedder"]
    index.write_text(json.dumps(values | {"context_embedder": ["uso.context", "ContextEmbedder"]}))
    loaded = USOPipeline.from_pretrained(tmp_path)
    made = SMALL | references("multi_style_subject")
    assert same(demo_pipeline("A fox.", **made).images[0], loaded("A fox.", **made).images[0])


def test_a_saved_bfloat16_pipeline_loads_back_to_the_same_numbers(tmp_path: Path) -> None:
    """Left alone diffusers loads float32 where bfloat16 was saved, and with bfloat16 the autoencoder as well."""
    saved = load_pipeline("demo", device="cpu", memory="full", dtype="bfloat16")
    saved.save_pretrained(tmp_path)
    loaded = USOPipeline.from_pretrained(tmp_path)
    assert {name: dtypes(module) for name, module in modules(loaded)} == {
        name: dtypes(module) for name, module in modules(saved)
    }
    assert same(saved("A fox.", **SMALL).images[0], loaded("A fox.", **SMALL).images[0])
    assert USOPipeline.from_pretrained(tmp_path, dtype=torch.float32).transformer.dtype == torch.float32


def modules(pipeline: USOPipeline) -> list[tuple[str, torch.nn.Module]]:
    return [(name, part) for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)]


def dtypes(module: torch.nn.Module) -> set[torch.dtype]:
    return {parameter.dtype for parameter in module.parameters()}


def test_a_pipeline_that_is_moved_forgets_what_it_encoded() -> None:
    """Catches float32 features of a remembered picture among bfloat16 weights, and records of what was."""
    pipeline = load_pipeline("demo", device="cpu", memory="full")
    values = SMALL | references("multi_style_subject")
    pipeline("A fox.", **values)
    pipeline.to(torch.bfloat16)
    result = pipeline("A fox.", **values).results[0]
    assert (result.model["dtype"], result.model["vae_dtype"]) == ("bfloat16", "bfloat16")


def test_a_pipeline_that_moves_its_weights_is_not_moved() -> None:
    pipeline = load_pipeline("demo", device="cpu", memory="8gb")
    with pytest.raises(ConfigError, match=r"Memory plan '8gb' moves the weights by itself\. Load the pipeline again"):
        pipeline.to(torch.bfloat16)


def test_two_pipelines_cannot_share_one_transformer(golden: Case) -> None:
    pipeline = golden.load()
    components = dict(pipeline.components) | {"context_embedder": golden.load().context_embedder}
    with pytest.raises(ValueError, match="taken by another pipeline"):
        USOPipeline(**components)


def test_bfloat16_is_close_and_deterministic(demo_pipeline: USOPipeline) -> None:
    half = load_pipeline("demo", device="cpu", dtype="bfloat16")
    assert {half.transformer.dtype, half.text_encoder_2.dtype, half.image_encoder.dtype} == {torch.bfloat16}
    assert half.vae.dtype == torch.float32
    values = SMALL | references("style_subject")
    # Latents are rounded for the network's input only: rounding them after each step is the diffusers way, and drifts.
    steps = half.stream(GenerationRequest.create(half.model_config, **values))
    assert {e.latents.dtype for e in steps if isinstance(e, Progress) and e.stage == "denoise"} == {torch.float32}
    pictures = [half("A fox.", **values).images[0] for _ in range(2)]
    assert same(*pictures)
    exact = demo_pipeline("A fox.", **values).images[0]
    error = _relative(pictures[0], exact)
    assert 0 < error < 0.1


def _relative(one: Image.Image, other: Image.Image) -> float:
    ours, theirs = image_to_tensor(one), image_to_tensor(other)
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.slow
def test_a_tiled_decode_is_close_and_recorded(demo_pipeline: USOPipeline) -> None:
    latents = torch.randn(1, 16, 40, 80, generator=torch.Generator().manual_seed(0)) * 0.2
    whole, tiled = demo_pipeline.decode(latents), demo_pipeline.decode(latents, tiled=True)
    assert whole.shape == tiled.shape == (1, 3, 320, 640)
    assert 0 < float((whole - tiled).norm() / whole.norm()) < 0.5
    assert torch.equal(whole, demo_pipeline.decode(latents))
    assert demo_pipeline(**SMALL, tiled_decode=True).results[0].request.tiled_decode is True


def test_results_tell_what_made_them(demo_pipeline: USOPipeline, demo_config: ModelConfig) -> None:
    result = demo_pipeline(**SMALL).results[0]
    assert isinstance(result, GenerationResult)
    assert result.model["name"] == "demo" and result.model["lora_scale"] == 1.0
    assert result.model["plan"] == "full" and result.model["dtype"] == "float32"
    assert set(result.model["components"]) == set(demo_config.components)
    assert result.timings.keys() == {"condition", "denoise", "decode"}


def test_lora_scale_counts(demo_pipeline: USOPipeline) -> None:
    without = load_pipeline("demo", device="cpu", lora_scale=0.0)
    assert without.provenance["lora_scale"] == 0.0
    assert not same(without("A fox.", **SMALL).images[0], demo_pipeline("A fox.", **SMALL).images[0])


def test_scheduler_is_one_per_request(golden: Case, golden_pipeline: USOPipeline) -> None:
    """The pipeline's own scheduler keeps no state, so two interleaved runs give what each gives alone."""
    conditioning = golden.condition(golden_pipeline, "text")
    noise = golden.expected["noise"]

    def run(steps: int) -> Iterator[Any]:
        return golden_pipeline.denoise(conditioning, noise, num_inference_steps=steps, schedule="uso")

    alone = list(run(4))[-1].latents
    one, other = run(4), run(3)
    for _ in range(3):
        latents = next(one).latents
        next(other)
    latents = next(one).latents
    assert torch.equal(latents, alone)
    assert not hasattr(golden_pipeline.scheduler, "num_inference_steps")
    assert isinstance(golden_pipeline.scheduler, FlowMatchEulerDiscreteScheduler)
