"""The whole chain of a demo model, from drawn pictures to one of its own."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.support.tiny_parts import SIDE, shards, tiny
from tools.demo.parts.descriptor import FILE
from tools.demo.shards.files import ROWS, make_files
from tools.demo.shards.samples import CONTENT, STYLE, ShardFeature
from tools.demo.shards.shards import Shards
from tools.demo.shards.source import ShardFeatures
from tools.demo.training.config import load_stage
from tools.demo.verbs.part import train_part
from tools.demo.world.triplets import Miniature
from uso.config import load_model_config
from uso.training.command import train
from uso.weights.loading import load_pipeline


def in_pieces(folder: Path, name: str, data: Path, stops: list[int]) -> Path:
    """A copy of the model in `folder`, in which a part has learned to the last of `stops`, resting at the others."""
    copy = folder / f"{name}-{'-'.join(map(str, stops))}"
    for each in ("model", "reward-descriptor"):
        shutil.copytree(folder / each, copy / each)
    for number, stop in enumerate(stops):
        config = tiny(name, copy, data, "optimizer.decay=constant", "optimizer.warm_up=1", f"steps={stop}")
        train_part(config, resume=number > 0)
    return copy / "model"


@pytest.mark.slow
def test_the_whole_chain(tmp_path: Path) -> None:
    """Every part from nothing, then stage 1, stage 2 and the reward, at a few steps each; what comes out is loaded.

    The features that stages read of shards are those that the pipeline makes of the same pictures; a stage that was
    interrupted ends with the numbers of one that was not.
    """
    samples, triplets = shards(tmp_path / "samples", "samples"), shards(tmp_path / "triplets", "triplets")
    for name, data in (
        ("tokenizers", samples),
        ("autoencoder", samples),
        ("image-encoder", samples),
        ("reward-descriptor", samples),
        ("base", triplets),
        ("guidance", triplets),
    ):
        train_part(tiny(name, tmp_path, data))
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
        config = load_stage(name, [*common, *overrides])
        train(config, resume=resume, offline=True)
        return tmp_path / folder

    projector = stage("stage1-mini", "stage1", "steps=2") / "projector.safetensors"
    start = f"start.projector={projector}"
    stage("stage2-mini", "stage2", "steps=1", start)
    joint = stage("joint-mini", "joint", "steps=2", start)
    for _ in make_files(tmp_path / "validation", Miniature(size=SIDE, split="seen"), 1):
        pass
    reward = [f"start.projector={joint / 'projector.safetensors'}", f"start.lora={joint / 'dit_lora.safetensors'}"]
    reward += [f"reward.descriptor_weights={descriptor}", f"reward.held_out_weights={descriptor}"]
    reward += [
        "reward.start_step=2",
        "reward.steps=3",
        "reward.last=2",
        "reward.samples=1",
        "teacher_options.share=1.0",
    ]
    reward += [f"validation.rows={tmp_path / 'validation' / ROWS}", "validation.every=4", "validation.steps=1"]
    whole = stage("reward-mini", "whole", "steps=4", *reward)
    stage("reward-mini", "parted", "steps=2", *reward)
    parted = stage("reward-mini", "parted", "steps=4", *reward, resume=True)
    # Tensors, not files: the order of a safetensors header's own notes is not fixed.
    results = ("dit_lora.safetensors", "projector.safetensors")
    for file in results:
        ended, resumed = (load_file(folder / file) for folder in (whole, parted))
        assert ended.keys() == resumed.keys() and all(torch.equal(ended[name], resumed[name]) for name in ended), file
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any("reward" in line for line in lines) and "validation/style_held_out/content_style" in lines[-1]
    for file in results:
        shutil.copy(whole / file, tmp_path / "model" / file)
    pipeline = load_pipeline(load_model_config(model), device="cpu", dtype="float32", offline=True)
    opened = Shards.open(triplets)
    features = ShardFeatures(pipeline, opened, tmp_path / "float32", ("style",))
    from PIL import Image

    content, style, _ = (Image.fromarray(np.asarray(picture)) for picture in opened.pixels(3))
    latents = pipeline.encode_reference(content)[0]
    kept, other = features.stacked([ShardFeature("latents", index, CONTENT) for index in (3, 4)])["latents"]
    assert float((kept - latents).norm() / latents.norm()) < 0.03  # bfloat16 and float16 against float32
    assert float((other - latents).norm() / latents.norm()) > 0.1
    states = pipeline.style_features(style)
    kept_states = features.stacked([ShardFeature("style", 3, STYLE)])
    for layer in ("-2", "-11", "-20"):
        state = states[int(layer)]
        assert state is not None and torch.allclose(kept_states[layer], state, atol=0.02)
    result = pipeline(
        prompt="The fox stands.", content_images=[content], style_images=[style], width=128, height=128, seed=1
    )
    assert result.images[0].size == (128, 128)
