"""The demo model: files in the released layouts, small, tokenizers that read anything, and content that is kept."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from tests.support import layouts
from tools.demo.world.triplets import Miniature
from uso.config import ModelConfig
from uso.weights.loading import load_pipeline

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "assets" / "demo-model"
RELEASED = layouts.RELEASED_TRANSFORMER

MAX_BYTES = 40_000_000
"""What a clone may cost for the demo."""

TEXTS = ["A small dog in the forest, watercolor.", "Zoë's 3 cafés – 猫 🐱", "~xylophone~ @ 100 %", ""]


def shapes(path: Path) -> layouts.Shapes:
    with safe_open(path, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("flux1-dev.safetensors", layouts.transformer_layout(RELEASED)),
        ("flux1-schnell.safetensors", layouts.transformer_layout(replace(RELEASED, guidance=False))),
        ("dit_lora.safetensors", layouts.lora_layout(RELEASED)),
        ("projector.safetensors", layouts.projector_layout(RELEASED)),
        ("ae.safetensors", layouts.autoencoder_layout(layouts.RELEASED_AUTOENCODER)),
    ],
)
def test_layouts_are_the_released_ones(name: str, written: layouts.Shapes) -> None:
    """At full size every key and shape is a released file's: catches a demo that proves nothing about real files."""
    released = json.loads((ROOT / "tests" / "golden" / "released_layout.json").read_text(encoding="utf-8"))
    assert written == {key: tuple(shape) for key, shape in released[name].items()}


def test_demo_files_have_the_released_layouts(demo_config: ModelConfig) -> None:
    """Catches files of a training run in other names or shapes than released ones: at the demo's sizes."""
    flux, projector, vision, vae = (
        json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("transformer", "projector", "image_encoder", "vae")
    )
    (rank, _) = shapes(FOLDER / "dit_lora.safetensors")["single_blocks.0.processor.qkv_lora.down.weight"]
    sizes = layouts.TransformerSizes(
        hidden=flux["num_attention_heads"] * flux["attention_head_dim"],
        heads=flux["num_attention_heads"],
        axes=tuple(flux["axes_dims_rope"]),
        double_blocks=flux["num_layers"],
        single_blocks=flux["num_single_layers"],
        context=flux["joint_attention_dim"],
        pooled=flux["pooled_projection_dim"],
        guidance=demo_config.guidance,
        lora_rank=rank,
        vision=vision["hidden_size"],
        vision_tokens=(vision["image_size"] // vision["patch_size"]) ** 2,
        style_tokens=projector["style_tokens"],
    )
    autoencoder = layouts.AutoencoderSizes(tuple(vae["block_out_channels"]), vae["layers_per_block"])
    for name, layout in (
        ("flux1.safetensors", layouts.transformer_layout(sizes)),
        ("dit_lora.safetensors", layouts.lora_layout(sizes)),
        ("projector.safetensors", layouts.projector_layout(sizes)),
        ("ae.safetensors", layouts.autoencoder_layout(autoencoder)),
    ):
        assert shapes(FOLDER / name) == layout, name


def test_demo_is_small_and_readable_by_anyone() -> None:
    """Catches a heavy clone, and files that only their writer may read (a container runs as somebody else)."""
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in files)


def test_clip_tokenizer_reads_any_bytes() -> None:
    """Catches a vocabulary with a hole: the unknown mark is the end mark, and would cut the prompt off in silence."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(FOLDER / "tokenizer")
    assert tokenizer.model_max_length == 77
    for text in [*TEXTS, "\x01\x7f"]:
        ids = tokenizer(text).input_ids
        assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id == max(ids)
        assert tokenizer.eos_token_id not in ids[1:-1]
        assert "".join(tokenizer.decode(ids[1:-1]).split()) == "".join(text.lower().split())


def test_t5_tokenizer_agrees_with_its_sentencepiece_model(demo_config: ModelConfig) -> None:
    """Catches a tokenizer.json that is not the spiece.model beside it, or sentinels in another order than T5's."""
    import sentencepiece
    from transformers import T5TokenizerFast

    tokenizer = T5TokenizerFast.from_pretrained(FOLDER / "tokenizer_2")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / "tokenizer_2" / "spiece.model"))
    assert tokenizer.convert_tokens_to_ids(["<pad>", "</s>", "<unk>"]) == [0, 1, 2]
    assert tokenizer.convert_tokens_to_ids("<extra_id_99>") == pieces.get_piece_size()
    assert tokenizer.model_max_length == demo_config.max_sequence_length
    for text in TEXTS:
        assert tokenizer(text).input_ids == [*pieces.encode(text), 1]
    assert 2 not in tokenizer("The quick brown fox, 0123456789; Überraschung!").input_ids


@pytest.mark.slow
def test_demo_keeps_what_the_content_image_shows(demo_config: ModelConfig) -> None:
    """Pictures made of a content image alone are nearest to their own one of six. Plants a model without its LoRA."""

    def own(config: ModelConfig) -> int:
        pipeline = load_pipeline(config, device="cpu", dtype="float32", offline=True)
        contents = [Miniature(split="new-both").triplet(number).content for number in range(6)]
        right = 0
        for number, content in enumerate(contents):
            made = pipeline(content_images=[Image.fromarray(content)], width=128, height=128, seed=number).images[0]
            errors = [np.square(np.asarray(made, float) - one).mean() for one in contents]
            right += int(np.argmin(errors)) == number
        return right

    bare = {name: source for name, source in demo_config.components.items() if name != "lora"}
    assert own(demo_config) == 6
    assert own(demo_config.model_copy(update={"components": bare})) <= 3
