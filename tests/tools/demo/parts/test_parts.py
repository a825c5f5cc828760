"""The demo model's own parts: each learns from drawn pictures and writes what the program loads."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch import nn

from tests.support.tiny_parts import shards, tiny
from tools.demo.__main__ import main
from tools.demo.parts.autoencoder import AutoencoderLoss, autoencoder_config, measure_scale, psnr
from tools.demo.parts.base import quiet_start
from tools.demo.parts.captions import caption_of
from tools.demo.parts.descriptor import FILE, new_descriptor, softened
from tools.demo.parts.guidance import guided_velocity
from tools.demo.parts.image_encoder import vision_config
from tools.demo.parts.tokenizers import sentences
from tools.demo.shards.samples import CONTENT, TARGET
from tools.demo.training.config import load_part_config
from tools.demo.training.loop import Loop
from tools.demo.verbs.part import train_part
from uso.cli.main import REFUSED
from uso.errors import ConfigError
from uso.evaluation.metrics.csd import load_csd, published_tensors
from uso.training.model.export import write_safetensors


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shards(tmp_path_factory.mktemp("samples") / "samples", "samples")


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


@pytest.mark.slow
def test_an_image_encoder_in_two_pieces_is_the_one_in_one(tmp_path: Path, samples: Path) -> None:
    """Catches a tower that learns on in the numbers of its file, bfloat16."""

    def run(folder: Path, stops: list[int]) -> dict[str, torch.Tensor]:
        train_part(tiny("tokenizers", folder, samples))
        for number, stop in enumerate(stops):
            config = tiny("image-encoder", folder, samples, f"steps={stop}", "optimizer.decay=constant")
            train_part(config, resume=number > 0)
        return load_file(folder / "model" / "siglip" / "model.safetensors")

    whole, parted = run(tmp_path / "whole", [2]), run(tmp_path / "parted", [1, 2])
    assert all(torch.equal(whole[name], parted[name]) for name in whole)


def test_checkpoints_are_not_written_over(tmp_path: Path, samples: Path) -> None:
    """Catches a run that begins anew on top of another, or goes on with other data."""
    train_part(tiny("reward-descriptor", tmp_path, samples))
    with pytest.raises(ConfigError, match="holds checkpoints of an earlier run. Say --resume"):
        train_part(tiny("reward-descriptor", tmp_path, samples))
    with pytest.raises(ConfigError, match="made with another batch"):
        train_part(tiny("reward-descriptor", tmp_path, samples, "batch=3", "steps=4"), resume=True)


def test_reading_ahead_changes_no_number(tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a draw that goes by the order of reading, in a run that goes on too; and a device that must stay."""
    import tools.demo.parts.descriptor as part
    from tools.demo.training.prefetch import Prefetcher

    def run(folder: Path, *overrides: str) -> dict[str, torch.Tensor]:
        for number, stop in enumerate((2, 4)):
            config = tiny("reward-descriptor", folder, samples, "steps=4", "optimizer.decay=constant", *overrides)
            train_part(config.model_copy(update={"steps": stop, "fresh": True}), resume=number > 0)
            overrides = ("device=cpu",)
        return load_file(folder / "reward-descriptor" / FILE)

    here = run(tmp_path / "here", "device=cpu")
    monkeypatch.setattr(part, "Prefetcher", lambda read, device: Prefetcher(read, torch.device("cuda")))
    ahead = run(tmp_path / "ahead", "device=cpu:0")
    assert all(torch.equal(here[name], ahead[name]) for name in here)


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
        (["base", "steps.now=3"], "There is no key steps.now: steps has no keys of its own."),
        (["judge", "tensorboard=false", "data=/nowhere/a,b"], "holds no shards of drawn data"),
        (["base", "tensorboard=false", "data=/nowhere/a"], "holds no shards of drawn data"),
        (["base", "device=cuda:99", "tensorboard=false"], "There is no device 'cuda:99'"),
        (["tokenizers", "device=gpu", "tensorboard=false"], "There is no device 'gpu'. Choose auto, cpu, mps, cuda"),
        (["base", "options.subject=2"], "options.subject is of another part; base has no_text"),
        (["base", "options.no_txt=0"], "There is no key options.no_txt. Did you mean options.no_text?"),
    ],
    ids=["part", "key", "key below", "data", "base", "device", "device name", "option", "unknown option"],
)
def test_refusals(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert main(["part", *arguments]) == REFUSED
    assert said in capsys.readouterr().err


# Parts


def test_tokenizers_know_whole_words(tmp_path: Path, samples: Path) -> None:
    """Catches words of captions in pieces (prompts are 32 tokens), and files that differ from run to run."""
    from tools.demo.parts.words import load_clip_tokenizer, load_t5_tokenizer

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


@pytest.mark.slow
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


def test_sizes_are_those_of_the_part_that_is_there(tmp_path: Path, samples: Path) -> None:
    """Catches `architecture` that is asked for and passed over in silence."""
    train_part(tiny("autoencoder", tmp_path, samples))
    wider = tiny("decoder", tmp_path, samples, "architecture.widths=[32, 32, 32, 64]")
    with pytest.raises(ConfigError, match=r"has block_out_channels \[32, 32, 32, 32\], and architecture asks for"):
        train_part(wider)
    train_part(tiny("reward-descriptor", tmp_path, samples))
    deeper = tiny("reward-descriptor", tmp_path, samples, "architecture.layers=2", f"output={tmp_path / 'other'}")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / FILE).write_bytes((tmp_path / "reward-descriptor" / FILE).read_bytes())
    with pytest.raises(ConfigError, match="The descriptor that is there has num_hidden_layers 1, and"):
        train_part(deeper)
    train_part(deeper.model_copy(update={"fresh": True}))


def test_captions_are_not_cut(tmp_path: Path) -> None:
    """Catches words that a model is said to have learned and never read."""
    from tools.demo.parts.words import clip_ids, load_clip_tokenizer, load_t5_tokenizer, t5_ids

    model = load_part_config("tokenizers").model_copy(update={"model_folder": "assets/demo-model"}).model
    tokenizer, length = load_t5_tokenizer(model)
    fitting, long = "tree " * (length - 1), "tree " * length
    assert t5_ids(tokenizer, [fitting, "a"], length).shape == (2, length)
    with pytest.raises(ConfigError, match=f"A caption has {length + 1} tokens, and the model reads {length}: 'tree"):
        t5_ids(tokenizer, ["a", long], length)
    with pytest.raises(ConfigError, match="and the model reads 77"):
        clip_ids(load_clip_tokenizer(model), [" ".join(["tree"] * 76)])


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
    assert caption_of({**words, "labels": {"layout": "kept", "style_2": "neon"}}, TARGET) is None


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


def test_guidance_is_between_with_and_without_words() -> None:
    """At scale 1 the teacher's answer to the words, at 0 that without, linear beyond. Catches the two swapped."""
    from tests.support.tiny_training import training_pipeline
    from uso.pipeline.latents import pack
    from uso.training.losses.flow import predict

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
