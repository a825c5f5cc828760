"""Captions by a vision-language model: transformers' own pipeline and a real class at tiny size."""

from pathlib import Path

import pytest
import torch
import yaml
from transformers import (
    CLIPImageProcessorPil,
    CLIPTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from tests.conftest import draw_picture
from uso.cli.main import REFUSED, main
from uso.config import ROOT
from uso.training.make.captions import load_captioner_config

TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
)


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA with random weights, and the configuration that names it."""
    folder = tmp_path_factory.mktemp("llava")
    tokenizer = CLIPTokenizer.from_pretrained(ROOT / "assets" / "demo-model" / "tokenizer")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        eos_token_id=None,
        pad_token_id=0,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokenizer.convert_tokens_to_ids("<image>")
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlavaForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": 28, "width": 28}
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=size)
    LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    path = folder / "captioner.yaml"
    path.write_text(yaml.safe_dump({"repo": str(folder), "dtype": "float32", "question": "a house", "max_tokens": 6}))
    return path


def test_pictures_without_a_caption_get_one(captioner: Path, tmp_path: Path) -> None:
    """Catches captions that are written over, questions that are written as answers, and a model that is loaded for
    nothing."""
    for number in range(3):
        draw_picture(60, 40, number).save(tmp_path / f"{number}.png")
    (tmp_path / "1.txt").write_text("My own words.")
    call = ["train.data", "caption", str(tmp_path), "--captioner", str(captioner), "--device", "cpu"]
    assert main(call) == 0
    captions = [(tmp_path / f"{number}.txt").read_text().strip() for number in range(3)]
    assert captions[1] == "My own words."
    assert captions[0] and captions[2] and not any("a house" in caption for caption in captions)
    (captioner.parent / "config.json").rename(captioner.parent / "away.json")
    assert main(call) == 0  # nothing is missing any more
    (tmp_path / "0.txt").unlink()
    assert main(call) == REFUSED
    (captioner.parent / "away.json").rename(captioner.parent / "config.json")


def test_shipped_captioners_are_whole(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert load_captioner_config("llava").repo.count("/") == 1
    assert main(["train.data", "caption", str(tmp_path), "--captioner", "none"]) == REFUSED
    assert "There is no captioner 'none'. Choose one of: llava" in capsys.readouterr().err
