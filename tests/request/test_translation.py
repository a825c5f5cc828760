"""Prompts that the model does not read: told at the door, or translated by a hook. `test_safety.py` tests hooks."""

import logging
from typing import Any

import pytest

from uso.errors import ConfigError, RequestError
from uso.request.readable import check_script, foreign_note
from uso.request.translation import TranslationError, Translator, load_translator


def test_a_prompt_is_translated_unless_it_is_empty_or_english() -> None:
    """Catches an invented prompt where the layout is to be kept, and a line break that a file name would get."""
    asked: list[str] = []

    def translate(prompt: str) -> str | None:
        asked.append(prompt)
        return " A fox\nin the snow. " if prompt == "雪地里的狐狸" else None

    translator = Translator(translate)
    assert translator.english("雪地里的狐狸") == "A fox in the snow."
    assert translator.english("A  fox.") == "A  fox."
    assert (translator.english(""), translator.english(" ")) == ("", " ")
    assert asked == ["雪地里的狐狸", "A  fox."]
    assert Translator().english("狐狸") == "狐狸"


@pytest.mark.parametrize("answer", [7, "", " \n", "x" * 10_001, RuntimeError("the translator is on fire")])
def test_a_translator_that_fails_refuses(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a picture of an untranslated prompt, and an error of the hook's that people see."""

    def translate(prompt: str) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    with caplog.at_level(logging.ERROR), pytest.raises(TranslationError, match="could not be translated") as refused:
        Translator(translate).english("狐狸")
    assert "fire" not in str(refused.value)
    assert "translator" in caplog.text


def test_what_is_no_prompt_does_not_reach_the_translator() -> None:
    """Catches a megabyte, or a number, that a stranger sends to a translator that costs money."""
    translator = Translator(lambda prompt: pytest.fail("asked"))
    for prompt in ("x" * 10_001, 7, "a\x00b"):
        with pytest.raises(RequestError):
            translator.english(prompt)  # type: ignore[arg-type]


def test_a_wrong_name_is_refused() -> None:
    assert not load_translator(None).active
    with pytest.raises(ConfigError, match="There is no module nowhere for the translator nowhere:english"):
        load_translator("nowhere:english")


@pytest.mark.parametrize("prompt", ["雪地里的狐狸", "雪の中の狐", "눈 속의 여우", "ثعلب في الثلج", "a 雪地里的狐狸"])
def test_a_prompt_in_letters_that_t5_does_not_know_is_refused(prompt: str) -> None:
    """Catches a prompt that waits in the queue, to be refused by the tokenizer."""
    with pytest.raises(RequestError, match=r"^FLUX reads English, .* Write it in English\.$"):
        check_script(prompt, "FLUX")


@pytest.mark.parametrize("prompt", ["", "A fox.", "Un renard à côté d’une forêt", "лиса", "a sign that says 狐狸"])
def test_others_are_left_to_the_tokenizer(prompt: str) -> None:
    """Catches a refusal of French, which T5 reads, or of a sign with two Chinese letters."""
    check_script(prompt, "FLUX")


@pytest.mark.parametrize(
    ("prompt", "words"),
    [("A fox.", None), ("", None), ("Café à 3 € — “x”", None), ("лиса and 狐狸, fox", "лиса, 狐狸,")],
)
def test_letters_that_english_lacks_are_told_while_typing(prompt: str, words: str | None) -> None:
    """Catches a note on dashes and accents, and none on Russian, which T5 reads letter by letter."""
    note = foreign_note(prompt, "FLUX")
    assert note == (None if words is None else f"FLUX reads English. It will hardly understand: {words}.")
