"""The hook for the server owner's own filter: a function that checks every prompt and every finished picture.

The program brings no filter. A filter that fails, or does not answer in time, blocks the request.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from uso.errors import USOError
from uso.hooks import ANSWER_SECONDS, Hook, HookError, load_function, one_line
from uso.language import Text

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)

Filter = Callable[[str, "Image | None"], Any]
"""`function(prompt, image)`: without an image before a request is queued, with the finished picture before it is saved.
Returns None, or the reason for blocking, which the person reads. Called from several threads."""

FILTER_FAILED = Text("This server's filter could not be asked, so nothing is let through. Tell the server's owner.")
NO_ANSWER = Text("Blocked because the filter did not answer in time. Tell the server's owner.")
MAX_REASON = 300


class Blocked(USOError):
    """The server's filter blocked a prompt or a picture."""


class Safety:
    """Applies a filter; without one everything passes."""

    def __init__(self, filter_function: Filter | None = None, seconds: float = ANSWER_SECONDS) -> None:
        self._filter = Hook("filter", filter_function, seconds) if filter_function else None

    @property
    def active(self) -> bool:
        """Whether there is a filter."""
        return self._filter is not None

    def check_prompt(self, prompt: str) -> None:
        """Check a prompt, before its request is queued.

        Raises:
            Blocked: with the filter's reason; also if the filter fails.
        """
        self._check(prompt, None)

    def check_picture(self, prompt: str, image: "Image") -> None:
        """Check a finished picture, before it is saved.

        Raises:
            Blocked: with the filter's reason; also if the filter fails.
        """
        if self._filter is not None:
            self._check(prompt, image.copy())  # the filter may draw on its copy

    def _check(self, prompt: str, image: "Image | None") -> None:
        if self._filter is None:
            return
        try:
            reason = self._filter.ask("prompt" if image is None else "picture", prompt, image)
        except HookError as error:
            raise Blocked(NO_ANSWER if error.late else FILTER_FAILED) from None
        if reason is None:
            return
        if not isinstance(reason, str):
            logger.error("The filter returned %r; a reason or None is expected.", type(reason).__name__)
            raise Blocked(FILTER_FAILED)
        raise Blocked(Text("Blocked by this server's filter: {}", one_line(reason)[:MAX_REASON] or "no reason given"))


def load_safety(name: str | None) -> Safety:
    """The filter that `module:function` names; no name means no filter.

    Raises:
        ConfigError: there is no such module or function, or importing it fails.
    """
    return Safety(load_function(name, "filter", "filters:check") if name else None)
