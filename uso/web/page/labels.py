"""Texts that the browser translates: labels, hints and HTML that are on the page before anybody has asked for it.

Gradio replaces them by those of `gr.I18n` in the browser's language. What events make is told on the server.
"""

from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.i18n import I18nData

from uso.language import ALSO, ENGLISH, Text, languages, speak, spoken, told


class Static(I18nData):
    """A text in every language. Gradio sends the key to the browser."""

    def __init__(self, key: str, texts: dict[str, str]) -> None:
        super().__init__(key)
        self.texts = texts


def static(template: str, *values: Any) -> Any:
    """A label, for a component in place of a string."""
    text = Text(template, *values)
    return Static(str(text), _in_all(lambda: told(text)))


def static_html(make: Callable[[], str]) -> Any:
    """HTML that is made once in each language."""
    texts = _in_all(make)
    return Static(f"html-{hash(texts[ENGLISH]):x}", texts)


def translations(page: gr.Blocks) -> gr.I18n:
    """All texts of a page, for the browser."""
    found = [value for block in page.blocks.values() for value in vars(block).values() if isinstance(value, Static)]
    told_as = {language: language for language in languages()} | ALSO
    return gr.I18n(**{name: {text.key: text.texts[language] for text in found} for name, language in told_as.items()})


def _in_all(make: Callable[[], str]) -> dict[str, str]:
    before, texts = spoken(), {}
    for language in languages():
        speak(language)
        texts[language] = make()
    speak(before)
    return texts
