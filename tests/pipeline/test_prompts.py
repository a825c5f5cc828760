"""A prompt's token ids: special tokens that somebody types are text, and words that T5 does not know are named."""

from typing import Any

import pytest
import torch
from transformers import CLIPTokenizer, T5TokenizerFast

from uso.config import load_model_config
from uso.errors import RequestError
from uso.pipeline.prompts import prompt_ids, prompt_length, reading_notes, unread_words
from uso.request.readable import MAX_WORDS

PADDED = {"padding": "max_length", "max_length": 64, "truncation": True}


@pytest.fixture(scope="module")
def t5() -> Any:
    return T5TokenizerFast.from_pretrained(load_model_config("demo").components["tokenizer_2"].local_path)


@pytest.fixture(scope="module")
def clip() -> Any:
    return CLIPTokenizer.from_pretrained(load_model_config("demo").components["tokenizer"].local_path)


ORDINARY = [
    "",
    "a fox",
    "  A red Fox, 3D & more",
    "naïve café — лиса 🦊",
    "a < b > c <3",
    "一只狐狸",
    "a_b [c] (d:1.2)",
]


@pytest.mark.parametrize("prompt", ORDINARY)
def test_ordinary_prompts_have_the_tokenizers_own_ids(t5: Any, clip: Any, prompt: str) -> None:
    """Catches a new way to read prompts that changes a picture."""
    for tokenizer in (t5, clip):
        own = tokenizer([prompt], return_tensors="pt", **PADDED).input_ids
        assert torch.equal(prompt_ids(tokenizer, prompt, **PADDED), own)
        assert prompt_length(tokenizer, prompt) == len(tokenizer(prompt).input_ids)


@pytest.mark.parametrize(
    "name",
    ["</s>", "<pad>", "<unk>", "<extra_id_0>", "<|endoftext|>", "<|startoftext|>", "<|EndOfText|>", "\uff1c/s\uff1e"],
)
@pytest.mark.parametrize("form", ["a fox {} in snow", "{}", "{}{}fox", "fox{}"])
def test_special_tokens_in_a_prompt_are_text(t5: Any, clip: Any, name: str, form: str) -> None:
    """`</s>` ended the prompt for T5, and `<|endoftext|>` moved CLIP's pooled vector to its place."""
    prompt = form.replace("{}", name)
    ids = prompt_ids(t5, prompt)[0].tolist()
    special = set(t5.all_special_ids) - (set() if name.isascii() else {t5.unk_token_id})  # it does not know wide signs
    assert ids[-1] == t5.eos_token_id and set(ids[:-1]).isdisjoint(special)
    ids = prompt_ids(clip, prompt)[0].tolist()
    assert (ids[0], ids[-1]) == (clip.bos_token_id, clip.eos_token_id)
    assert set(ids[1:-1]).isdisjoint(clip.all_special_ids)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a fox in snow", []),
        ("", []),
        ("a fox </s> <unk>", []),
        ("лиса fox in the deep snow", ["лиса"]),
        ("a fox 狐狸 in snow, 雪地", ["狐狸", "雪地"]),
        ("a fox 🦊🦊 — in snow", ["🦊🦊", "—"]),
    ],
)
def test_words_that_are_not_read_are_known(t5: Any, prompt: str, words: list[str]) -> None:
    assert unread_words(t5, prompt) == words


def test_a_note_names_them(t5: Any) -> None:
    assert reading_notes(t5, "a fox in the snow", "FLUX") == ()
    (note,) = reading_notes(t5, "a лиса fox лиса in 雪地 snow", "FLUX")
    assert note == "FLUX reads English. T5 cannot read: лиса, 雪地."
    many = "a fox in the deep snow " * 20 + " ".join(chr(0x4E00 + number) for number in range(MAX_WORDS + 3))
    assert reading_notes(t5, many, "FLUX")[0].endswith(" and 3 more.")


@pytest.mark.parametrize("prompt", ["一只狐狸站在雪地里", "лиса в снегу", "🦊", "一只狐狸站在雪地里 3"])
def test_a_prompt_of_which_hardly_anything_is_read_is_refused(t5: Any, prompt: str) -> None:
    """A Chinese sentence became one token, and the picture was of anything."""
    with pytest.raises(RequestError, match="knows hardly anything of this prompt: .* Write it in English"):
        reading_notes(t5, prompt, "FLUX")
