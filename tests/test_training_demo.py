"""The demo model's own parts: each learns from drawn pictures and writes what the program loads; and the chain."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch import nn

from uso.cli import REFUSED, main
from uso.config import load_model_config
from uso.errors import ConfigError
from uso.loading import load_pipeline
from uso.training.arrays import encoded, name_of, to_pixels
from uso.training.command import train
from uso.training.config import OptimizerConfig, load_training_config
from uso.training.csd import load_csd, published_tensors
from uso.training.data.miniature.triplets import Miniature
from uso.training.data.shards import Kind, Shards, make_shards
from uso.training.demo.autoencoder import AutoencoderLoss, autoencoder_config, measure_scale, psnr
from uso.training.demo.base import caption_of, guided_velocity, quiet_start
from uso.training.demo.command import train_part
from uso.training.demo.config import PartConfig, load_part_config
from uso.training.demo.descriptor import FILE, new_descriptor, softened
from uso.training.demo.image_encoder import vision_config
from uso.training.demo.loop import Loop
from uso.training.demo.tokenizers import sentences
from uso.training.optimizer import MuonAndAdamW, orthogonal
from uso.training.release import write_safetensors
from uso.training.shard_source import CONTENT, STYLE, TARGET, ShardFeature, ShardFeatures
from uso.training.speed import autocast, compile_residuals, compiling, multiplies_bfloat16

SIDE = 64
TINY: dict[str, str] = {
    "tokenizers": "{clip_vocabulary: 600, t5_pieces: 700, t5_length: 32}",
    "autoencoder": f"{{widths: [32, 32, 32, 32], blocks: 1, groups: 8, sample_size: {SIDE}}}",
    "image-encoder": f"{{width: 32, layers: 20, heads: 2, image_size: {SIDE}, patch_size: 16, text_layers: 1}}",
    "decoder": "{}",
    "base": "{transformer: {num_layers: 1, num_single_layers: 1, attention_head_dim: 16, num_attention_heads: 2, "
    "axes_dims_rope: [4, 6, 6]}, text_encoder: {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, "
    "num_attention_heads: 2}, text_encoder_2: {d_model: 32, d_kv: 16, d_ff: 64, num_layers: 1, num_heads: 2}, "
    "style_tokens: 2}",
    "reward-descriptor": f"{{width: 64, layers: 1, image_size: {SIDE}, patch_size: 16, vector: 16}}",
}
"""Sizes at which a part learns in seconds."""


def shards(folder: Path, kind: Kind, count: int = 12) -> Path:
    for _ in make_shards(folder, Miniature(size=SIDE), kind, count):
        pass
    return folder


def tiny(name: str, folder: Path, data: Path, *overrides: str) -> PartConfig:
    """A run of a part as it ships, but small."""
    sizes = [f"architecture={TINY[name]}"] if name in TINY else []
    common = [f"output={folder / name}", f"model_folder={folder / 'model'}", f"data={data}", "compile=false"]
    common += ["steps=2", "batch=2", "log_every=1", "tensorboard=false", "precision=float32"]
    return load_part_config(name, [*common, *sizes, *overrides])


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shards(tmp_path_factory.mktemp("samples") / "samples", "samples")


# Optimizer


def test_steps_of_matrices_are_orthogonal() -> None:
    """Catches a wrong coefficient: singular values would spread or blow up. A tall and a wide matrix."""
    for shape in ((40, 12), (12, 40)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
        assert float(values.min()) > 0.6 and float(values.max()) < 1.3
    spread = torch.linalg.svdvals(torch.randn(40, 12, generator=torch.Generator().manual_seed(0)))
    assert float(spread.max() / spread.min()) > 2  # what was put in was not


def test_muon_goes_on_from_its_state_and_leaves_embeddings_and_vectors_alone() -> None:
    """Catches a state that is lost or given to another parameter, and convolutions that are not taken for matrices."""

    def optimizer_of(parameters: list[nn.Parameter]) -> MuonAndAdamW:
        return MuonAndAdamW(parameters, OptimizerConfig(kind="muon", lr=0.1), embeddings=parameters[1:2])

    def made() -> tuple[list[nn.Parameter], MuonAndAdamW]:
        torch.manual_seed(0)
        shapes = [(8, 4), (100, 4), (6,), (4, 3, 3, 3)]
        parameters = [nn.Parameter(torch.randn(shape)) for shape in shapes]
        return parameters, optimizer_of(parameters)

    def step(parameters: list[nn.Parameter], optimizer: MuonAndAdamW, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimizer.step()

    whole, optimizer = made()
    matrices, rest = (group["params"] for group in optimizer.param_groups)
    assert [p.shape for p in matrices] == [(8, 4), (4, 3, 3, 3)] and [p.shape for p in rest] == [(100, 4), (6,)]
    for seed in range(3):
        step(whole, optimizer, seed)
    parted, first = made()
    step(parted, first, 0)
    second = optimizer_of(parted)
    second.load_state_dict(first.state_dict())
    for seed in (1, 2):
        step(parted, second, seed)
    assert all(torch.equal(one, other) for one, other in zip(whole, parted, strict=True))
    alone = MuonAndAdamW([nn.Parameter(torch.ones(2, 2))], OptimizerConfig(kind="muon", lr=0.1))
    alone.load_state_dict(alone.state_dict())  # no vectors at all, as of a LoRA
    forgetful, third = made()
    step(forgetful, third, 0)
    third = optimizer_of(forgetful)
    for seed in (1, 2):
        step(forgetful, third, seed)
    assert not any(torch.equal(one, other) for one, other in zip(whole, forgetful, strict=True))


# The loop


def test_a_run_in_two_pieces_is_the_run_in_one(tmp_path: Path, samples: Path) -> None:
    """Bit for bit: catches a draw, a moment or a mean that starts again."""

    def run(folder: Path, steps: list[int]) -> dict[str, torch.Tensor]:
        for number, stop in enumerate(steps):
            config = tiny("reward-descriptor", folder, samples, "steps=4", "optimizer.decay=constant", "fresh=true")
            train_part(config.model_copy(update={"steps": stop}), resume=number > 0)
        return load_file(folder / "reward-descriptor" / FILE)

    whole, parted = run(tmp_path / "whole", [4]), run(tmp_path / "parted", [2, 4])
    assert all(torch.equal(whole[name], parted[name]) for name in whole)
    earlier = run(tmp_path / "earlier", [2])
    assert not torch.equal(whole["last_layer_style"], earlier["last_layer_style"])


def test_checkpoints_are_not_written_over(tmp_path: Path, samples: Path) -> None:
    """Catches a run that begins anew on top of another, or goes on with other data."""
    train_part(tiny("reward-descriptor", tmp_path, samples))
    with pytest.raises(ConfigError, match="holds checkpoints of an earlier run. Say --resume"):
        train_part(tiny("reward-descriptor", tmp_path, samples))
    with pytest.raises(ConfigError, match="made with another batch"):
        train_part(tiny("reward-descriptor", tmp_path, samples, "batch=3", "steps=4"), resume=True)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    from uso.errors import USOError

    weight = nn.Parameter(torch.ones(1))
    config = tiny("reward-descriptor", tmp_path, tmp_path)
    loop = Loop(config, {"weight": weight}, lambda step: {"loss": (weight * torch.nan).sum()}, lambda: None)
    with pytest.raises(USOError, match="The loss became nan"):
        loop.update()
    assert float(weight.detach()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "There is no training config 'nothing'. Choose one of: autoencoder, base"),
        (["base", "widht=3"], "There is no key widht"),
        (["judge", "tensorboard=false", "data=/nowhere/a,b"], "holds no shards of drawn data"),
        (["base", "tensorboard=false", "data=/nowhere/a"], "holds no shards of drawn data"),
        (["base", "options.subject=2"], "options.subject is of another part; base has no_text, distil"),
        (["base", "options.no_txt=0"], "There is no key options.no_txt. Did you mean options.no_text?"),
    ],
    ids=["part", "key", "data", "base", "option", "unknown option"],
)
def test_refusals(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert main(["train.demo", *arguments]) == REFUSED
    assert said in capsys.readouterr().err


def test_without_a_compiler_a_run_goes_uncompiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a run of minutes that ends in a compiler's traceback."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    config = load_part_config("base")
    assert config.compile and not compiling(config, "cpu").compile
    assert "compile=false: No C compiler was found" in caplog.text


def test_bfloat16_only_where_it_is_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without instructions for it would be many times slower than in float32, and no more exact."""
    for name, found in (("amx_bf16", True), ("avx2", False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=name: {name: True})
        multiplies_bfloat16.cache_clear()
        with autocast("cpu", "auto"):
            assert torch.is_autocast_enabled("cpu") == found
            product = torch.ones(2, 2) @ torch.ones(2, 2)
            assert product.dtype == (torch.bfloat16 if found else torch.float32)
        assert orthogonal(torch.eye(3)).dtype == torch.float32
    for precision, wanted in (("bfloat16", True), ("float32", False)):
        with autocast("cpu", precision):  # type: ignore[arg-type]
            assert torch.is_autocast_enabled("cpu") == wanted
    multiplies_bfloat16.cache_clear()


# Parts


def test_tokenizers_know_whole_words(tmp_path: Path, samples: Path) -> None:
    """Catches words of captions in pieces (prompts are 32 tokens), and files that differ from run to run."""
    from uso.training.demo.words import load_clip_tokenizer, load_t5_tokenizer

    config = load_part_config("tokenizers", [f"model_folder={tmp_path / 'model'}", "tensorboard=false"])
    train_part(config)
    tokenizer, length = load_t5_tokenizer(config.model)
    text = "a risograph print of an owl on a hill at night, next to a tree"
    pieces = tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)
    assert "".join(pieces) == "▁" + text.replace(" ", "▁") + "</s>" and len(pieces) == len(text.split()) + 2
    assert length == 32 and len(load_clip_tokenizer(config.model)) == 1536
    assert next(iter(sentences())) == next(iter(sentences()))


def test_autoencoder_measures() -> None:
    """PSNR and the latents' scale against arithmetic. Plants an error of one step of 255 everywhere."""
    torch.manual_seed(0)
    vae: Any = AutoencoderKL.from_config(autoencoder_config({"widths": [32, 32], "blocks": 1, "groups": 8}))
    pixels = torch.rand(3, 3, 16, 16) * 2 - 1
    scaling, shift = measure_scale(vae, pixels)
    with torch.inference_mode():
        latents = (vae.encode(pixels).latent_dist.mode() - shift) * scaling
    assert float(latents.mean()) == pytest.approx(0, abs=1e-4) and float(latents.std()) == pytest.approx(1, abs=1e-4)
    grey, white = torch.zeros(3, 3, 16, 16), torch.ones(3, 3, 16, 16)
    with torch.no_grad():
        vae.decoder.conv_out.weight.zero_()
        vae.decoder.conv_out.bias.fill_(0.0)
    # Grey is 128 of 255 as bytes, so white is 127 away.
    assert psnr(vae, white, batch=2) == pytest.approx(6.055, abs=0.01) and psnr(vae, grey) == pytest.approx(100)


def test_the_decoder_alone_leaves_latents_as_they_are(tmp_path: Path, samples: Path) -> None:
    """Catches an encoder that moves a little, or a scale that is measured again: every cached latent would be wrong."""
    folder = tmp_path / "model"
    train_part(tiny("autoencoder", tmp_path, samples))
    before, scale = load_file(folder / "ae.safetensors"), (folder / "vae.json").read_text(encoding="utf-8")
    train_part(tiny("decoder", tmp_path, samples))
    after = load_file(folder / "ae.safetensors")
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"decoder"} and (folder / "vae.json").read_text(encoding="utf-8") == scale


def test_the_divergence_is_that_of_two_normals() -> None:
    """Against torch's own."""
    torch.manual_seed(0)
    vae: Any = AutoencoderKL.from_config(autoencoder_config({"widths": [32, 32], "blocks": 1, "groups": 8}))
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    _, _, divergence = AutoencoderLoss(vae)(pixels, torch.zeros(2, 16, 8, 8))
    posterior = vae.encode(pixels).latent_dist
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(posterior.mean, posterior.std), torch.distributions.Normal(0.0, 1.0)
    ).mean()
    assert float(divergence.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


def test_the_tower_must_have_the_layers_that_are_read() -> None:
    with pytest.raises(ConfigError, match="architecture.layers must be at least 20"):
        vision_config({"width": 32, "layers": 12, "heads": 2, "image_size": 32, "patch_size": 16})


def test_a_descriptor_is_read_back_as_csd(tmp_path: Path) -> None:
    """Catches query, key and value in another order, and a tower that does not come back as it was."""
    model = new_descriptor({"width": 64, "layers": 2, "image_size": 32, "patch_size": 8, "vector": 16}, seed=0).eval()
    path = tmp_path / "descriptor.safetensors"
    write_safetensors(path, published_tensors(model))
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.allclose(load_csd(path)(pixels), model(pixels), atol=1e-6)
    tensors = load_file(path)
    name = "backbone.transformer.resblocks.0.attn.in_proj_weight"
    query, key, value = tensors[name].chunk(3)
    write_safetensors(path, tensors | {name: torch.cat([value, key, query])})
    assert not torch.allclose(load_csd(path)(pixels), model(pixels), atol=1e-6)


def test_softened_pictures_keep_their_brightness() -> None:
    pixels = torch.rand(4, 3, 16, 16) * 2 - 1
    soft = softened(pixels, 0, 0)
    assert torch.equal(soft, softened(pixels, 0, 0)) and not torch.equal(soft, softened(pixels, 0, 1))
    assert float(soft.std()) < float(pixels.std()) and float(soft.mean()) == pytest.approx(
        float(pixels.mean()), abs=0.02
    )


def test_captions_belong_to_their_pictures() -> None:
    """A content picture has its target's words only where the layout is kept, and never those of the style."""
    words: dict[str, Any] = {
        "caption": "a woodcut of a fox",
        "sentence": "The fox stands.",
        "labels": {"layout": "kept"},
    }
    assert caption_of(words, TARGET) == "a woodcut of a fox" and caption_of(words, CONTENT) == "The fox stands."
    assert caption_of({**words, "labels": {"layout": "moved"}}, CONTENT) is None


def test_a_new_base_begins_as_nothing() -> None:
    """Catches a base whose first steps are noise."""
    from diffusers import FluxTransformer2DModel

    flux = FluxTransformer2DModel(
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    quiet_start(flux)
    given: dict[str, Any] = {
        "hidden_states": torch.randn(1, 4, 64),
        "encoder_hidden_states": torch.randn(1, 3, 8),
        "pooled_projections": torch.randn(1, 8),
        "timestep": torch.tensor([0.5]),
        "guidance": torch.tensor([1.0]),
        "img_ids": torch.zeros(4, 3),
        "txt_ids": torch.zeros(3, 3),
    }
    assert not flux(**given, return_dict=False)[0].any()


# Features of shards


def test_arrays_are_made_once_and_go_on(tmp_path: Path) -> None:
    """Catches files that are made again, and slots that are swapped."""
    opened = Shards.open(shards(tmp_path / "data", "triplets"))
    calls: list[int] = []

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixels))
        return pixels.mean(dim=(2, 3))

    arrays = encoded(opened, (STYLE, CONTENT), tmp_path / "arrays", encode, batch=5)
    assert calls == [5, 5, 5, 5, 4]
    again = encoded(opened, (STYLE, CONTENT), tmp_path / "arrays", encode, batch=5)
    assert len(calls) == 5 and arrays == again
    for place, slot in enumerate((STYLE, CONTENT)):
        expected = to_pixels(np.stack([opened.pixels(7)[slot]])).mean(dim=(2, 3))
        assert torch.allclose(again.take([(7, place)]), expected, atol=1e-3)


def test_arrays_are_known_by_what_made_them(tmp_path: Path) -> None:
    """Catches features of other pictures, weights or settings under the same name; growing shards keep theirs."""
    module, other = nn.Linear(2, 2), nn.Linear(2, 2)
    opened = Shards.open(shards(tmp_path / "a" / "data", "triplets", 2))
    more = Shards.open(shards(tmp_path / "b" / "data", "triplets", 3))
    name = name_of("latents", opened, (0, 2), module, 0.5)
    assert name.startswith("latents-data-") and name == name_of("latents", more, (0, 2), module, 0.5)
    for _ in make_shards(tmp_path / "c" / "data", Miniature(size=SIDE, seed=1), "triplets", 2):
        pass
    redrawn = Shards.open(tmp_path / "c" / "data")
    others = {
        name_of("latents", redrawn, (0, 2), module, 0.5),
        name_of("latents", opened, (0,), module, 0.5),
        name_of("latents", opened, (0, 2), other, 0.5),
        name_of("latents", opened, (0, 2), module, 0.25),
    }
    assert name not in others and len(others) == 4


# The whole chain


def in_pieces(folder: Path, name: str, data: Path, stops: list[int]) -> Path:
    """A copy of the model in `folder`, in which a part has learned to the last of `stops`, resting at the others."""
    copy = folder / f"{name}-{'-'.join(map(str, stops))}"
    shutil.copytree(folder / "model", copy / "model")
    for number, stop in enumerate(stops):
        sizes = [f"architecture={TINY['base']}", "optimizer.decay=constant", "optimizer.warm_up=1"]
        config = tiny(name, copy, data, *sizes, f"steps={stop}")
        train_part(config, resume=number > 0)
    return copy / "model"


@pytest.mark.slow
def test_the_whole_chain(tmp_path: Path, samples: Path) -> None:
    """Every part from nothing, then stage 1, stage 2 and the reward, at a few steps each; what comes out is loaded.

    The features that stages read of shards are those that the pipeline makes of the same pictures; a stage that was
    interrupted ends with the numbers of one that was not.
    """
    triplets = shards(tmp_path / "triplets", "triplets")
    for name, data in (
        ("tokenizers", samples),
        ("autoencoder", samples),
        ("image-encoder", samples),
        ("base", triplets),
        ("guidance", triplets),
        ("reward-descriptor", samples),
    ):
        base = name in ("base", "guidance")
        sizes = [f"architecture={TINY['base']}"] if base else []
        train_part(tiny(name, tmp_path, data, *sizes))
    for name in ("base", "guidance"):
        ends = [in_pieces(tmp_path, name, triplets, stops) for stops in ([3], [1, 3], [1])]
        whole_run, parted_run, short_run = (load_file(model / "flux1.safetensors") for model in ends)
        assert all(torch.equal(whole_run[key], parted_run[key]) for key in whole_run), name
        assert any(not torch.equal(whole_run[key], short_run[key]) for key in whole_run), name
    model = str(tmp_path / "model" / "model.yaml")
    descriptor = tmp_path / "reward-descriptor" / FILE

    def stage(name: str, folder: str, *overrides: str, resume: bool = False) -> Path:
        common = [f"model={model}", f"data.rows={triplets}", f"data.resolution={SIDE}", f"data.content_size={SIDE}"]
        common += [f"data.cache={tmp_path / 'cache'}", f"output={tmp_path / folder}", "batch=2", "micro_batch=2"]
        common += ["tensorboard=false", "lora.rank=4", "optimizer.decay=constant", "compile=false"]
        config = load_training_config(name, [*common, *overrides])
        train(config, resume=resume, offline=True)
        return tmp_path / folder

    projector = stage("stage1-mini", "stage1", "steps=2") / "projector.safetensors"
    start = f"start.projector={projector}"
    reward = ["reward.descriptor=uso.training.csd:csd_descriptor", f"reward.descriptor_weights={descriptor}"]
    reward += ["reward.start_step=2", "reward.steps=3", "reward.last=2", "reward.samples=1", start]
    whole = stage("stage2-mini", "whole", "steps=4", *reward)
    stage("stage2-mini", "parted", "steps=2", *reward)
    parted = stage("stage2-mini", "parted", "steps=4", *reward, resume=True)
    # Tensors, not files: the order of a safetensors header's own notes is not fixed.
    ended, resumed = (load_file(folder / "dit_lora.safetensors") for folder in (whole, parted))
    assert ended.keys() == resumed.keys() and all(torch.equal(ended[name], resumed[name]) for name in ended)
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert "reward" in lines[-1]
    for file in (projector, whole / "dit_lora.safetensors"):
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    pipeline = load_pipeline(load_model_config(model), device="cpu", dtype="float32", offline=True)
    opened = Shards.open(triplets)
    features = ShardFeatures(pipeline, opened, tmp_path / "float32", ("style",))
    from PIL import Image

    content, style, _ = (Image.fromarray(np.asarray(picture)) for picture in opened.pixels(3))
    latents = pipeline.encode_reference(content)[0]
    kept = features.load(ShardFeature("latents", 3, CONTENT))["latents"]
    assert float((kept - latents).norm() / latents.norm()) < 0.03  # bfloat16 and float16 against float32
    other = features.load(ShardFeature("latents", 4, CONTENT))["latents"]
    assert float((other - latents).norm() / latents.norm()) > 0.1
    states = pipeline.style_features(style)
    kept_states = features.load(ShardFeature("style", 3, STYLE))
    for layer in ("-2", "-11", "-20"):
        state = states[int(layer)]
        assert state is not None and torch.allclose(kept_states[layer], state[0], atol=0.02)
    result = pipeline(
        prompt="The fox stands.", content_images=[content], style_images=[style], width=128, height=128, seed=1
    )
    assert result.images[0].size == (128, 128)


def test_guidance_is_between_with_and_without_words() -> None:
    """At scale 1 the teacher's answer to the words, at 0 that without, linear beyond. Catches the two swapped."""
    from tests.tiny_training import training_pipeline
    from uso.latents import pack
    from uso.training.network import predict

    pipeline = training_pipeline()
    tokens, levels = pack(torch.randn(1, 16, 4, 4)), torch.tensor([0.6])
    with torch.inference_mode():
        words, no_words = (pipeline.encode_prompt(text) for text in ("a red house", ""))
        told, untold = (
            predict(
                pipeline,
                pipeline.make_conditioning(*encoded, height=32, width=32, guidance_scale=1.0),
                tokens,
                levels,
            )
            for encoded in (words, no_words)
        )
        for scale in (0.0, 1.0, 3.0):
            found = guided_velocity(pipeline, words, no_words, tokens, levels, torch.tensor([scale]), 32)
            assert torch.allclose(found, untold + scale * (told - untold), atol=1e-5)
    assert not torch.allclose(told, untold, atol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of what torch's own compiler imports and traces
def test_compiled_blocks_have_the_gradients_of_eager_ones() -> None:
    """Catches a compiler that loses gradients, as a whole compiled autoencoder did: theirs would be zero."""
    torch.manual_seed(0)
    vae: Any = AutoencoderKL.from_config(autoencoder_config({"widths": [32, 32], "blocks": 1, "groups": 8}))
    vae = vae.to(memory_format=torch.channels_last)
    pixels = to_pixels((np.random.default_rng(0).random((2, 32, 32, 3)) * 255).astype(np.uint8))
    noise = torch.randn(2, 16, 16, 16)

    def gradients() -> dict[str, torch.Tensor]:
        vae.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            squared, _, _ = AutoencoderLoss(vae)(pixels, noise)
        squared.mean().backward()
        return {name: p.grad.float().clone() for name, p in vae.named_parameters() if p.grad is not None}

    eager = gradients()
    compile_residuals(vae)
    compiled = gradients()
    for name in ("encoder.conv_in.weight", "decoder.conv_in.weight", "decoder.conv_out.weight"):
        assert float((eager[name] - compiled[name]).norm() / eager[name].norm()) < 0.2
