"""Experts of real classes at toy size: editing pipelines and scorers of diffusers and transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import draw_picture
from tests.evaluation.metrics.test_csd import saved
from tests.support.experts import CONFIG
from tests.support.tiny_encoders import csd_checkpoint
from uso.errors import ConfigError
from uso.evaluation.metrics.csd import load_csd
from uso.training.data.check import check_rows
from uso.training.make.config import ExpertsConfig
from uso.training.make.experts import make_triplets
from uso.training.make.models import DinoScorer, PipelineEditor, experts_from, load_editor


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
    folder = tmp_path_factory.mktemp("dino")
    Dinov2Model(Dinov2Config(**sizes)).save_pretrained(folder)
    return folder


def test_scorers_give_unit_vectors_that_follow_pictures(dino: Path, tmp_path: Path) -> None:
    """Catches vectors of other lengths, which would make cosines of the filters meaningless, and two equal inputs."""
    from transformers import Dinov2Model

    csd = load_csd(saved(tmp_path / "csd.bin", csd_checkpoint()))
    for scorer in (DinoScorer(Dinov2Model.from_pretrained(dino)), csd):
        one, other = draw_picture(90, 70, 0), draw_picture(70, 90, 1)
        vectors = scorer.vectors([one, other, one])
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert vectors[0] @ vectors[2] > 0.9999 > vectors[0] @ vectors[1]


@pytest.fixture(scope="module")
def kontext(demo_pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FLUX.1 Kontext pipeline of the demo model's encoders and a transformer of one block each, on disk."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel

    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        num_attention_heads=2,
        attention_head_dim=32,
        joint_attention_dim=demo_pipeline.text_encoder_2.config.d_model,
        pooled_projection_dim=demo_pipeline.text_encoder.config.hidden_size,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    parts = {
        name: getattr(demo_pipeline, name)
        for name in ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    }
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    folder = tmp_path_factory.mktemp("kontext")
    FluxKontextPipeline(scheduler=scheduler, transformer=transformer, **parts).save_pretrained(folder)
    return folder


def editor_config(folder: Path, **changes: Any) -> Any:
    arguments = {"num_inference_steps": 2, "_auto_resize": False, "max_area": 4096, "max_sequence_length": 32}
    values = CONFIG.destylization.model_dump() | {"repo": str(folder), "dtype": "float32", "arguments": arguments}
    return CONFIG.destylization.model_validate(values | changes)


@pytest.mark.filterwarnings("ignore")
def test_a_real_editing_pipeline_edits(kontext: Path) -> None:
    """Catches a call that the pipeline refuses, another size, and a seed or an instruction that changes nothing."""
    editor = load_editor(editor_config(kontext), "cpu")
    assert isinstance(editor, PipelineEditor)
    picture = draw_picture(64, 64)
    first = editor.edit(picture, "A photograph.", 1)
    assert first.size == (64, 64)
    assert np.array_equal(np.asarray(first), np.asarray(editor.edit(picture, "A photograph.", 1)))
    assert not np.array_equal(np.asarray(first), np.asarray(editor.edit(picture, "A photograph.", 2)))


@pytest.mark.filterwarnings("ignore")
def test_a_run_with_real_classes(kontext: Path, dino: Path, tmp_path: Path, pictures: Path) -> None:
    """Catches what only fits together in the small doubles above."""
    csd = saved(tmp_path / "csd.bin", csd_checkpoint())
    values = json.loads(CONFIG.model_dump_json()) | {"size": 64}
    real = json.loads(editor_config(kontext).model_dump_json())
    common = {key: real[key] for key in ("repo", "dtype", "arguments")}
    values["stylization"] |= common
    values["destylization"] |= common
    values["filters"] = {"min_style": -1, "min_subject": -1, "dino": str(dino)}
    config = ExpertsConfig.model_validate(values)
    report = make_triplets(pictures, tmp_path / "out", config, experts_from(config, csd, "cpu"))
    assert report["kept"] == 3
    assert check_rows(tmp_path / "out" / "rows.jsonl", min_side=32).problems == ()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pipeline": "FluxContextPipeline"}, "diffusers has no pipeline 'FluxContextPipeline'"),
        ({"dtype": "float17"}, "torch has no dtype 'float17'"),
        ({"repo": "nobody/nothing"}, "nobody/nothing could not be loaded as FluxKontextPipeline: Offline mode is on"),
    ],
)
def test_experts_that_are_not_there_are_refused(tmp_path: Path, changes: dict[str, str], says: str) -> None:
    """Catches a stack trace of another library for a name with a typo."""
    with pytest.raises(ConfigError, match=says):
        load_editor(editor_config(tmp_path, **changes), "cpu")
