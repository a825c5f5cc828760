"""The hook for a translator of the owner's own: prompts in other languages become English before the model reads them.

The program brings none. If the translator fails, or does not answer in time, the request is refused.
"""

import logging
from collections.abc import Callable
from typing import Any

from uso.errors import RequestError, USOError
from uso.hooks import ANSWER_SECONDS, Hook, HookError, load_function, one_line
from uso.language import Text
from uso.request.checks import check_prompt

logger = logging.getLogger(__name__)

Translate = Callable[[str], Any]
"""`function(prompt)` returns the prompt in English, or None to leave it as it is. Called from several threads."""

FAILED = Text(
    "The prompt could not be translated, so no picture is made. Try again later, or tell the one who runs this."
)


class TranslationError(USOError):
    """A prompt could not be translated."""


class Translator:
    """Translates prompts; without a function every prompt stays as it is."""

    def __init__(self, function: Translate | None = None, seconds: float = ANSWER_SECONDS) -> None:
        self._hook = Hook("translator", function, seconds) if function else None

    @property
    def active(self) -> bool:
        """Whether there is a function."""
        return self._hook is not None

    def english(self, prompt: str) -> str:
        """A prompt as the model is to read it. An empty one is not translated.

        Raises:
            RequestError: it is none.
            TranslationError: the translator fails, is late, or returns something that is no prompt.
        """
        if self._hook is None or not check_prompt(prompt).strip():
            return prompt
        try:
            answer = self._hook.ask("prompt", prompt)
            if answer is None:
                return prompt
            text = one_line(check_prompt(answer))
        except HookError:
            raise TranslationError(FAILED) from None
        except RequestError as error:
            logger.error("The translator returned what is no prompt (%s).", type(answer).__name__)
            raise TranslationError(FAILED) from error
        if not text:
            logger.error("The translator returned an empty text; None is expected where nothing is to be translated.")
            raise TranslationError(FAILED)
        return text


def load_translator(name: str | None) -> Translator:
    """The translator that `module:function` names; no name means none.

    Raises:
        ConfigError: there is no such module or function, or importing it fails.
    """
    return Translator(load_function(name, "translator", "languages:to_english") if name else None)
