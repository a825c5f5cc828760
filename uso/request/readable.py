"""Prompts in languages that the model does not read: told before the model is there, by script.

`uso.pipeline.prompts` tells it exactly, by the tokenizer.
"""

import unicodedata

from uso.errors import RequestError
from uso.language import Text

MOST_UNREAD = 0.8
"""Share of a prompt's characters, without spaces, above which unread words leave hardly anything of it."""

MAX_WORDS, MAX_WORD = 12, 40
"""The most words that a message lists, and characters that it shows of one."""

UNREAD_SCRIPTS = (
    *("ARABIC", "ARMENIAN", "BENGALI", "BOPOMOFO", "CJK", "DEVANAGARI", "ETHIOPIC", "GEORGIAN", "GUJARATI", "HANGUL"),
    *("HEBREW", "HIRAGANA", "KANNADA", "KATAKANA", "KHMER", "LAO", "MALAYALAM", "MYANMAR", "TAMIL", "TELUGU", "THAI"),
)
"""First words of the Unicode names of letters of which T5 knows none. It knows some Cyrillic and Greek letters."""


def check_script(prompt: str, title: str) -> None:
    """Check that a prompt is not written in letters that no T5 knows.

    Args:
        title: the model's.

    Raises:
        RequestError: hardly anything of it would be read.
    """
    words = [word for word in prompt.split() if any(_is_unread(letter) for letter in word)]
    check_read(words, prompt, title)


def foreign_note(prompt: str, title: str) -> Text | None:
    """What to tell somebody who types letters that English does not have; None if there are none."""
    words = [word for word in prompt.split() if any(map(_is_foreign, word))]
    return Text("{} reads English. It will hardly understand: {}.", title, listed(words)) if words else None


def check_read(unread: list[str], prompt: str, title: str) -> None:
    """Check that enough of a prompt is read.

    Raises:
        RequestError: hardly anything of it is read.
    """
    if sum(map(len, unread)) > MOST_UNREAD * len("".join(prompt.split())):
        sentence = Text(
            "{} reads English, and T5, its reader, knows hardly anything of this prompt: {}. Write it in English.",
            title,
            listed(unread),
        )
        raise RequestError(sentence, "prompt")


def listed(words: list[str]) -> str:
    different = list(dict.fromkeys(words))
    shown = [word if len(word) <= MAX_WORD else f"{word[:MAX_WORD]}..." for word in different[:MAX_WORDS]]
    more = len(different) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _is_foreign(letter: str) -> bool:
    return letter.isalpha() and not unicodedata.name(letter, "LATIN").startswith("LATIN")


def _is_unread(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(UNREAD_SCRIPTS)
