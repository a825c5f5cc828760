"""The image encoder and the projector that learn together."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.drawn import needs_font
from tests.support.tiny_parts import SIDE, shards, tiny
from tools.demo.shards.files import ROWS, make_files
from tools.demo.shards.shards import Shards, make_shards
from tools.demo.training.reader import ReaderConfig, ReaderSource, load_reader_config, train_reader
from tools.demo.verbs.part import train_part
from tools.demo.world.triplets import Miniature
from uso.errors import ConfigError

pytestmark = needs_font


@pytest.mark.slow
def test_both_learn_and_the_base_does_not(tmp_path: Path) -> None:
    """Catches an encoder without gradients, from shards or from files of other sizes, one whose learned weights are not
    written, and a base that moves."""
    samples = shards(tmp_path / "samples", "samples")
    triplets = tmp_path / "triplets"
    for _ in make_shards(triplets, Miniature(size=SIDE, grammar=0.5), "triplets", 12):
        pass
    for name, data in (("tokenizers", samples), ("autoencoder", samples), ("image-encoder", samples)):
        train_part(tiny(name, tmp_path, data))
    train_part(tiny("reward-descriptor", tmp_path, samples))
    train_part(tiny("base", tmp_path, triplets))
    model = tmp_path / "model"

    def run(folder: str, *overrides: str) -> Path:
        common = [f"model={model / 'model.yaml'}", f"data.rows={triplets}", f"data.resolution={SIDE}"]
        common += [f"data.content_size={SIDE}", f"data.cache={tmp_path / 'cache'}", f"output={tmp_path / folder}"]
        common += ["batch=2", "micro_batch=2", "tensorboard=false", "compile=false", "optimizer.decay=constant"]
        common += ["start.projector=null", "start.lora=null", "steps=3", "ema=null", "precision=float32"]
        return train_reader(load_reader_config("reader-mini", [*common, *overrides]))

    with_pairs, without = run("pairs", "pairs=1.0"), run("none", "pairs=0")
    list(make_files(tmp_path / "sizes", Miniature(), 6, sizes=[(96, 64)]))
    rows = f"sizes={{rows: {tmp_path / 'sizes' / ROWS}, resolution: 80, aspects: ['3:2'], share: 0.999}}"
    from_files = run("sizes", rows, "pairs=1.0")
    before = load_file(model / "siglip" / "model.safetensors")
    for folder in (with_pairs, without, from_files):
        after = load_file(folder / "siglip" / "model.safetensors")
        assert before.keys() == after.keys()
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert any("layers.0." in name for name in moved) and any("layers.17." in name for name in moved)
        assert not any("layers.19." in name or "head" in name for name in moved)  # what is read lies before them
        assert (folder / "projector.safetensors").is_file()
    first, second = (load_file(folder / "siglip" / "model.safetensors") for folder in (with_pairs, without))
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert not (with_pairs / "dit_lora.safetensors").exists()


@pytest.mark.slow
def test_what_a_model_answers_is_kept(tmp_path: Path) -> None:
    """Catches answers under other conditions than the network's own: at the start, both are the same."""
    triplets = tmp_path / "triplets"
    for _ in make_shards(triplets, Miniature(size=128, two_styles=0.5), "triplets", 4):
        pass
    common = ["model=demo", f"data.rows={triplets}", f"data.cache={tmp_path / 'cache'}", "batch=4", "micro_batch=4"]
    common += ["tensorboard=false", "compile=false", "steps=1", "ema=null", "precision=float32"]

    def loss(folder: str, *overrides: str) -> float:
        made = train_reader(
            load_reader_config("reader-joint-mini", [*common, f"output={tmp_path / folder}", *overrides])
        )
        return float(json.loads((made / "metrics.jsonl").read_text().splitlines()[0])["loss"])

    data, kept = loss("data"), loss("kept", "keep={model: demo, weight: 1}")
    assert kept < 1e-3 * data


def test_the_projector_must_learn() -> None:
    """Catches an encoder that learns for a projector that cannot follow."""
    with pytest.raises(ConfigError, match="learns must name projector"):
        load_reader_config("reader-mini", ["learns=[lora]"])


def test_every_sample_of_the_projector_alone_has_a_style(tmp_path: Path) -> None:
    """Catches steps that teach nothing: with frozen base and LoRA, samples without a style have no gradient."""
    for _ in make_shards(tmp_path, Miniature(size=32, grammar=0.5, plain_triplets=0.3), "triplets", 24):
        pass
    overrides = [f"data.rows={tmp_path}", "data.resolution=32", "data.content_size=32"]
    config = load_reader_config("reader-mini", overrides)
    assert isinstance(config, ReaderConfig) and len(Shards.open(tmp_path)) == 24
    source = ReaderSource(config, lambda _: None)
    assert source.samples and all(sample.styles for sample in source.samples)
    both = ReaderSource(load_reader_config("reader-mini", [*overrides, "learns=[projector,lora]"]), lambda _: None)
    assert any(not sample.styles for sample in both.samples)


def test_other_sizes_have_their_share(tmp_path: Path) -> None:
    """Catches sizes that are drowned in the shards, those of the shards' own size counted twice, and pictures that are
    no longer told apart by their shape."""
    shards_folder, files = tmp_path / "shards", tmp_path / "files"
    for _ in make_shards(shards_folder, Miniature(size=32), "triplets", 24):
        pass
    list(make_files(files, Miniature(), 6, sizes=[(32, 32), (48, 32), (64, 64)]))
    given = f"{{rows: {files / ROWS}, resolution: 64, smaller: [40], aspects: ['1:1', '3:2'], share: 0.5}}"
    overrides = [f"data.rows={shards_folder}", "data.resolution=32", "data.content_size=32", f"sizes={given}"]
    source = ReaderSource(load_reader_config("reader-joint-mini", overrides), lambda _: None)
    shapes = [sample.shape.target for sample in source.samples]
    assert {*shapes} == {(32, 32), (48, 32), (64, 64)} and len(source.sized) == 4
    assert 0.4 < sum(shape != (32, 32) for shape in shapes) / len(shapes) < 0.6
    list(make_files(files, Miniature(), 2, sizes=[(32, 32)]))
    with pytest.raises(ConfigError, match="holds no picture that fills 64 or 40 pixels squared and is not 32 x 32"):
        ReaderSource(load_reader_config("reader-joint-mini", overrides), lambda _: None)
