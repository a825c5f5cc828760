"""Prompts as token ids, and the words of a prompt that a tokenizer does not know.

A name of a special token in a prompt, such as `</s>` or `<|endoftext|>`, is text like any other. Prompts without one
have the ids that the tokenizer gives by itself.
"""

import copy
import re
import unicodedata
from typing import Any
from weakref import WeakKeyDictionary

import torch
from tokenizers import pre_tokenizers

from uso.language import Text
from uso.request.readable import check_read, listed

_LITERAL: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def prompt_ids(tokenizer: Any, prompt: str, **options: Any) -> torch.Tensor:
    """Token ids [1, L]; options are the tokenizer's own."""
    ids: torch.Tensor = _encoded(tokenizer, prompt, return_tensors="pt", **options).input_ids
    return ids


def prompt_length(tokenizer: Any, prompt: str) -> int:
    """In tokens, with those that mark beginning and end."""
    return len(_encoded(tokenizer, prompt, truncation=False, verbose=False).input_ids)


def _encoded(tokenizer: Any, prompt: str, **options: Any) -> Any:
    if _reads_special(tokenizer, prompt):
        return _literal(tokenizer)(prompt, split_special_tokens=True, **options)
    return tokenizer(prompt, **options)


def _reads_special(tokenizer: Any, prompt: str) -> bool:
    """Whether the tokenizer would find a special token in a prompt; it may fold letters before it looks."""
    text = unicodedata.normalize("NFKC", prompt).lower()
    if any(token.lower() in text for token in tokenizer.all_special_tokens):
        return True
    unknown = () if tokenizer.unk_token in (tokenizer.bos_token, tokenizer.eos_token) else (tokenizer.unk_token_id,)
    ids = tokenizer(prompt, add_special_tokens=False, truncation=False, verbose=False).input_ids
    return not (set(tokenizer.all_special_ids) - set(unknown)).isdisjoint(ids)


def _literal(tokenizer: Any) -> Any:
    """A copy that takes `<` for a piece of its own: T5's vocabulary holds its special tokens as pieces, too."""
    if tokenizer not in _LITERAL:
        made = copy.deepcopy(tokenizer)
        backend = made.backend_tokenizer
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [backend.pre_tokenizer, pre_tokenizers.Split("<", behavior="isolated")]
        )
        _LITERAL[tokenizer] = made
    return _LITERAL[tokenizer]


def unread_words(tokenizer: Any, prompt: str) -> list[str]:
    """The words of a prompt, in order, of which a part becomes the token for anything unknown.

    Of what is no word, such as a dash or an emoji, the unknown characters alone.
    """
    encoded = _encoded(
        tokenizer, prompt, return_offsets_mapping=True, add_special_tokens=False, truncation=False, verbose=False
    )
    unknown = [
        range(*span)
        for number, span in zip(encoded.input_ids, encoded.offset_mapping, strict=True)
        if number == tokenizer.unk_token_id
    ]
    places = sorted({place for span in unknown for place in span})
    found: list[str] = []
    for word in re.finditer(r"\S+", prompt):
        letters = [prompt[place] for place in places if word.start() <= place < word.end()]
        if any(letter.isalnum() for letter in letters):
            found.append(word[0])
        elif letters:
            found.append("".join(letters))
    return found


def reading_notes(tokenizer: Any, prompt: str, title: str) -> tuple[str, ...]:
    """What people should know about how their prompt is read: nothing, or one sentence.

    Args:
        title: the model's.

    Raises:
        RequestError: hardly anything of it is read.
    """
    words = unread_words(tokenizer, prompt)
    check_read(words, prompt, title)
    return (Text("{} reads English. T5 cannot read: {}.", title, listed(words)),) if words else ()
