"""A whole pipeline that trains in seconds: the golden case with small random text encoders, and a few drawn rows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from tests.conftest import draw_picture
from tests.golden import Case
from uso.config import ROOT, Limits, load_model_config
from uso.pipeline.pipeline import USOPipeline
from uso.training.config import TrainingConfig
from uso.training.data.batches import Batches
from uso.training.data.features import FeatureCache
from uso.training.data.source import RowSource
from uso.training.loop.trainer import Judges, Trainer

GOLDEN = ROOT / "tests" / "golden" / "case-a"
T5_LENGTH = 24


def training_pipeline() -> USOPipeline:
    """The golden network without its LoRA, with tokenizers of the demo model and text encoders of fitting widths."""
    case = Case(GOLDEN)
    pipeline = case.load(lora_scale=0.0)
    demo = ROOT / "assets" / "demo-model"
    tokenizer = CLIPTokenizer.from_pretrained(demo / "tokenizer")
    tokenizer_2 = T5TokenizerFast.from_pretrained(demo / "tokenizer_2")
    clip = CLIPTextConfig(
        vocab_size=max(1024, len(tokenizer)),
        hidden_size=case.values["vec_in_dim"],
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=16,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )
    t5 = T5Config(
        vocab_size=max(1152, len(tokenizer_2)),
        d_model=case.values["context_in_dim"],
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text_encoder, text_encoder_2 = CLIPTextModel(clip).eval(), T5EncoderModel(t5).eval()
    pipeline.register_modules(
        text_encoder=text_encoder, tokenizer=tokenizer, text_encoder_2=text_encoder_2, tokenizer_2=tokenizer_2
    )
    limits = Limits(
        min_size=32,
        max_size=128,
        min_content_size=32,
        max_content_size=128,
        max_steps=50,
        min_guidance=1.0,
        max_guidance=5.0,
    )
    pipeline.model_config = load_model_config("demo").model_copy(
        update={"limits": limits, "max_sequence_length": T5_LENGTH, "position_grid": None}
    )
    return pipeline


def write_rows(folder: Path, count: int = 4, size: tuple[int, int] = (48, 48), prompt: str = "a red house") -> Path:
    """Rows with pictures of their own: content, one style, target."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        row: dict[str, Any] = {"prompt": f"{prompt} {number}", "subject": "house"}
        for place, key in enumerate(("content", "style", "target")):
            name = f"{key}-{number}.png"
            draw_picture(*size, seed=10 * number + place).save(folder / name)
            row[key] = name
        row["styles"] = [row.pop("style")]
        lines.append(json.dumps(row))
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


STAGES: dict[str, dict[str, Any]] = {
    "stage1": {"learns": ["projector"], "reads": ["style"]},
    "stage2": {"learns": ["lora"], "reads": ["style", "content"], "start": {"projector": "given"}},
    "joint": {
        "learns": ["projector", "lora"],
        "reads": ["style", "content"],
        "dropout": {"text": 0.2, "style": 0.25, "content": 0.25},
    },
}


def tiny_config(folder: Path, rows: Path, stage: str = "stage2", **changes: Any) -> TrainingConfig:
    """A run of a few steps at 32 x 32 pixels; `changes` are laid over whole sections."""
    values: dict[str, Any] = {
        "name": stage,
        "description": "A few steps.",
        "model": "demo",
        "output": str(folder / "run"),
        "data": {
            "rows": str(rows),
            "cache": str(folder / "cache"),
            "resolution": 32,
            "content_size": 32,
            "aspects": ["1:1"],
        },
        "optimizer": {"lr": 1e-3},
        "lora": {"rank": 4},
        "steps": 3,
        "batch": 2,
        "micro_batch": 2,
        "device": "cpu",
        "precision": "float32",
        "base": "float32",
        "gradient_checkpointing": False,
        "export_dtype": "float32",
        "tensorboard": False,
        "log_every": 1,
    }
    return TrainingConfig.model_validate(values | STAGES[stage] | changes)


def tiny_batches(pipeline: USOPipeline, config: TrainingConfig, rank: int = 0, processes: int = 1) -> Batches:
    """The run's micro-batches, their features made."""
    source = RowSource(config, lambda _: None)
    cache = FeatureCache(config.data.cache, pipeline, config.data.memory_gib)
    cache.encode(cache.missing(source.cached()))
    return Batches(source.samples, cache, config, rank, processes)


def tiny_trainer(config: TrainingConfig, judges: Judges | None = None, **options: Any) -> Trainer:
    pipeline = training_pipeline()
    return Trainer(pipeline, config, tiny_batches(pipeline, config), judges=judges, **options)


def differing(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> int:
    """How many tensors of two lists are not bit for bit the same."""
    return sum(not torch.equal(one, other) for one, other in zip(first, second, strict=True))


def metrics(config: TrainingConfig) -> list[dict[str, Any]]:
    """The lines that a run has logged."""
    lines = (config.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def cut_down(folder: Path, checkpointing: bool) -> tuple[TrainingConfig, Any]:
    rows = write_rows(folder / "rows", 2)
    config = tiny_config(folder, rows, "stage2", gradient_checkpointing=checkpointing)
    return config, training_pipeline()
