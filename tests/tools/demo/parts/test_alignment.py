"""The base foretells what a descriptor sees: which tokens are read, of which pictures, and what learns from it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.support.tiny_parts import shards, tiny
from tests.support.tiny_training import training_pipeline
from tools.demo.parts.alignment import Alignment
from tools.demo.shards.arrays import Arrays
from tools.demo.training.config import PartConfig, load_part_config
from tools.demo.verbs.part import train_part
from uso.errors import ConfigError
from uso.pipeline.latents import pack
from uso.training.losses.flow import predict


def written(folder: Path, features: torch.Tensor) -> Arrays:
    """Features [pictures, slots, patches, width] as they lie on disk."""
    folder.mkdir()
    np.save(folder / "00000.npy", features.numpy().astype(np.float16))
    return Arrays(folder, len(features))


def test_each_token_foretells_its_own_place_of_its_own_picture(tmp_path: Path) -> None:
    """Catches text tokens that are read, patches in another order, and pictures that are swapped."""
    pipeline = training_pipeline()
    features = written(tmp_path / "features", torch.randn(3, 2, 4, 5, generator=torch.manual_seed(0)))
    places = [(2, 1), (0, 0)]
    alignment = Alignment(pipeline, features, [(n, slot) for n in range(3) for slot in (0, 1)], 4, seed=0)
    with torch.no_grad():
        words = pipeline.encode_prompts(["a red house", ""])
        conditioning = pipeline.make_conditioning(*words, height=32, width=32, guidance_scale=1.0)
        predict(pipeline, conditioning, pack(torch.randn(2, 16, 4, 4)), torch.tensor([0.4, 0.6]))
        assert 0.3 < float(alignment(alignment.wanted(places))) < 1.7  # nothing is learned yet
        # A head that is right, by definition: the features are what it says.
        said = alignment.head(alignment.read())
        assert said.shape == (2, 4, 5)
        right = torch.zeros(3, 2, 4, 5)
        right[2, 1], right[0, 0] = said * alignment.deviation + alignment.mean
        alignment.features = written(tmp_path / "right", right)
        assert float(alignment(alignment.wanted(places))) < 1e-5
        assert float(alignment(alignment.wanted(places[::-1]))) > 1e-3
        alignment.features = written(tmp_path / "rolled", right.roll(1, dims=2))
        assert float(alignment(alignment.wanted(places))) > 1e-3


@pytest.mark.slow
def test_the_base_learns_from_it(tmp_path: Path) -> None:
    """Catches a weight that is not used, and a head whose gradient does not reach the transformer."""
    triplets, samples = shards(tmp_path / "triplets", "triplets"), shards(tmp_path / "samples", "samples")
    for name in ("tokenizers", "autoencoder", "image-encoder", "reward-descriptor"):
        train_part(tiny(name, tmp_path, samples))
    plain = tiny("base", tmp_path, triplets, "optimizer.lr=0.01", "alignment=null", f"output={tmp_path / 'plain'}")
    train_part(plain)
    without = load_file(plain.model / "flux1.safetensors")

    def aligned(*overrides: str) -> PartConfig:
        return tiny("base", tmp_path, triplets, "optimizer.lr=0.01", "fresh=true", "alignment.weight=0.25", *overrides)

    with pytest.raises(
        ConfigError, match=r"there is none at .*nowhere. Train it first \(python -m tools.demo part reward-descriptor"
    ):
        train_part(aligned(f"alignment.descriptor={tmp_path / 'nowhere'}"))
    base = aligned()
    train_part(base)
    lines = [json.loads(line) for line in (base.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert line["loss"] == pytest.approx(line["flow"] + 0.25 * line["alignment"], rel=1e-5)
    with_it = load_file(base.model / "flux1.safetensors")
    assert with_it.keys() == without.keys()  # the head stays outside
    name = "double_blocks.0.img_mod.lin.weight"
    assert not torch.equal(with_it[name], without[name])


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    features = written(tmp_path / "features", torch.randn(2, 1, 9, 5))
    with pytest.raises(ConfigError, match="A picture has 4 tokens and the descriptor sees 9 patches.* alignment=null"):
        Alignment(training_pipeline(), features, [(0, 0), (1, 0)], 4, seed=0)
    with pytest.raises(ConfigError, match="alignment is of the base; leave it out of guidance"):
        load_part_config("guidance", ["alignment={descriptor: descriptor.safetensors}"])
