"""Texts that the browser translates: those of the components that are on the page before anybody has asked for it.

Gradio replaces them by those of `gr.I18n` in the browser's language. What events make is told on the server.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import gradio as gr
from gradio.i18n import I18nData

from uso.language import ALSO, ENGLISH, Text, catalogue, languages, speak, spoken, told


class Static(I18nData):
    """A text in every language. Gradio sends the key to the browser."""

    def __init__(self, key: str, texts: dict[str, str]) -> None:
        super().__init__(key)
        self.texts = texts


def static_html(make: Callable[[], str]) -> Any:
    """HTML that is made once in each language."""
    texts = _in_all(make)
    return Static(f"html-{hash(texts[ENGLISH]):x}", texts)


def translate(page: gr.Blocks) -> None:
    """Let the browser translate every label, hint and button of a page. Call it last, inside the page's `with`."""
    for block in page.blocks.values():
        for name in ("label", "info", "placeholder", "value"):
            text = getattr(block, name, None)
            if isinstance(text, str) and (isinstance(text, Text) or text in _known()):  # Gradio makes strings of values
                setattr(block, name, Static(str(text), _in_all(partial(told, text))))
    found = [value for block in page.blocks.values() for value in vars(block).values() if isinstance(value, Static)]
    told_as = {language: language for language in languages()} | ALSO
    page.i18n_instance = gr.I18n(
        **{name: {text.key: text.texts[language] for text in found} for name, language in told_as.items()}
    )


def _known() -> set[str]:
    return {template for language in languages() for template in catalogue(language)}


def _in_all(make: Callable[[], str]) -> dict[str, str]:
    before, texts = spoken(), {}
    for language in languages():
        speak(language)
        texts[language] = make()
    speak(before)
    return texts
