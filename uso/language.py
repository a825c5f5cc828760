"""Texts in the language of whoever reads them.

`Text("Try again in {}.", "3 s")` is that sentence in English: a string like any other, for logs, records and errors. It
remembers its template and its values, so `told` can say it in the reader's language. A language is a file in
`uso/locales/`, which gives each English template in that language, and is called as Gradio calls the language: its own
texts are in that of the browser, too. `tests/test_language.py` holds the files complete.
"""

import json
import re
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

ENGLISH = "en"
ALSO = {"zh-TW": "zh-CN"}
"""Languages of Gradio's in which our texts are those of another one."""

FOLDER = Path(__file__).with_name("locales")

_current: ContextVar[str] = ContextVar("language", default=ENGLISH)


class Text(str):
    """A sentence or label in English that can be told in other languages.

    Args:
        template: a literal, for the test that finds it. With values it is a format string.
        values: by position, as in logging; a translation may change their order: `{1}`. They may be `Text`s.
    """

    template: str
    values: tuple[Any, ...]

    def __new__(cls, template: str, *values: Any) -> "Text":
        made = super().__new__(cls, template.format(*values) if values else template)
        made.template, made.values = template, values
        return made

    def __reduce__(self) -> Any:
        return str, (str(self),)


def told(text: str) -> str:
    """A text in the reader's language. A string that is no `Text`, such as one from a file, is looked up as it is."""
    translations = catalogue(_current.get())
    if not translations:
        return str(text)
    if not isinstance(text, Text):
        return translations.get(text, text)
    template = translations.get(text.template, text.template)
    if text.values:
        template = template.format(*(told(one) if isinstance(one, Text) else one for one in text.values))
    return re.sub("(?<=[。！？]) ", "", template)  # between sentences, where Chinese has none


def tr(template: str, *values: Any) -> str:
    """`told(Text(...))`: a text that is shown at once."""
    return told(Text(template, *values))


def joined(*texts: str, between: str = " ") -> Text:
    """Sentences one after another, or the items of a list; empty ones are left out."""
    said = [text for text in texts if text]
    return Text(between.join(["{}"] * len(said)), *said)


def text_of(error: BaseException) -> str:
    """An error's message, still as a `Text` if it is one; `str(error)` is English alone."""
    first = error.args[0] if error.args else ""
    return first if isinstance(first, Text) else str(error)


def spoken() -> str:
    """The reader's language."""
    return _current.get()


def speak(language: str) -> None:
    """From now on, texts are told in a language: in this task or thread."""
    _current.set(language)


def asked_for(accept_language: str | None) -> str:
    """The language for an `Accept-Language` header: the first that it names, as Gradio's own texts, or else English."""
    first = (accept_language or "").split(",")[0].split(";")[0].strip().lower()
    names = {name.lower(): name for name in languages()} | {name.lower(): as_ for name, as_ in ALSO.items()}
    return names.get(first) or names.get(first.split("-")[0], ENGLISH)


@cache
def languages() -> tuple[str, ...]:
    """All languages, English first."""
    return (ENGLISH, *sorted(path.stem for path in FOLDER.glob("*.json")))


@cache
def catalogue(language: str) -> dict[str, str]:
    """English template -> template in a language; empty for English."""
    if language == ENGLISH:
        return {}
    loaded: dict[str, str] = json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8"))
    return loaded
