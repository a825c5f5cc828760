"""The hook for the server owner's own filter: a function that checks every prompt and every finished picture.

The program brings no filter. A filter that fails, or does not answer in time, blocks the request. Each call has a
thread of its own, so that nothing it does ends or holds another one.
"""

import importlib
import logging
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uso.errors import ConfigError, USOError

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)

Filter = Callable[[str, "Image | None"], Any]
"""`function(prompt, image)`: without an image before a request is queued, with the finished picture before it is saved.
Returns None, or the reason for blocking, which the person reads. Called from several threads."""

FILTER_FAILED = "This server's filter could not be asked, so nothing is let through. Tell the server's owner."
MAX_REASON = 300

ANSWER_SECONDS = 30.0
"""Until the filter must have answered."""
NO_ANSWER = "Blocked because the filter did not answer in time. Tell the server's owner."

MOST_HANGING = 100
"""Calls that do not come back; nothing can end them. With so many, the filter is asked no more."""


class Blocked(USOError):
    """The server's filter blocked a prompt or a picture."""


class Safety:
    """Applies a filter; without one everything passes."""

    def __init__(self, filter_function: Filter | None = None, seconds: float = ANSWER_SECONDS) -> None:
        self._filter = filter_function
        self._seconds = seconds
        self._hanging = threading.Semaphore(MOST_HANGING)

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
        what = "prompt" if image is None else "picture"
        reason = self._asked(self._filter, prompt, image, what)
        if reason is None:
            return
        if not isinstance(reason, str):
            logger.error("The filter returned %r; a reason or None is expected.", type(reason).__name__)
            raise Blocked(FILTER_FAILED)
        raise Blocked(f"Blocked by this server's filter: {one_line(reason)[:MAX_REASON] or 'no reason given'}")

    def _asked(self, function: Filter, prompt: str, image: "Image | None", what: str) -> Any:
        """What the filter answers.

        Raises:
            Blocked: it fails, or does not answer.
        """
        answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put((function(prompt, image), None))
            except BaseException as error:  # SystemExit too: a filter ends no thread but this one
                answers.put((None, error))
            finally:
                self._hanging.release()

        if not self._hanging.acquire(blocking=False):
            logger.error("%d calls of the filter hang. It is asked no more; start the server again.", MOST_HANGING)
            raise Blocked(NO_ANSWER)
        threading.Thread(target=ask, name="filter", daemon=True).start()
        try:
            reason, error = answers.get(timeout=self._seconds)
        except queue.Empty:
            logger.error("The filter did not answer on a %s within %g s.", what, self._seconds)
            raise Blocked(NO_ANSWER) from None
        if error is not None:
            logger.error("The filter failed on a %s.\n%s", what, _quoted(error))
            raise Blocked(FILTER_FAILED)
        return reason


def one_line(text: str) -> str:
    """Text of the filter, without anything that could begin a line, or colour one, where it is shown or logged."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _quoted(error: BaseException) -> str:
    """An error with its traceback, every line indented: its text may hold the prompt, which must not look like a line
    of the log."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(f"    | {''.join(letter if letter.isprintable() else '?' for letter in line)}" for line in lines)


def load_safety(name: str | None) -> Safety:
    """Import the filter that `module:function` names, from the current folder or as installed; no name means no filter.

    Raises:
        ConfigError: there is no such module or function, or importing it fails.
    """
    if not name:
        return Safety()
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise ConfigError(f"The filter {name!r} has no function: `module:function` is expected, as in filters:check.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            sentence = f"There is no module {module_name} for the filter {name}, neither in {here} nor installed."
            raise ConfigError(sentence) from error
        raise ConfigError(f"The module of the filter {name} needs {error.name}, which is not installed.") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"The module of the filter {name} could not be imported: {error}") from error
    function: Any = module
    for part in function_name.split("."):
        function = getattr(function, part, None)
        if function is None:
            raise ConfigError(f"The module {module_name} has no {function_name}, which the filter {name} asks for.")
    if not callable(function):
        raise ConfigError(f"{function_name} in the module {module_name} is no function, so it cannot be the filter.")
    return Safety(function)
