"""Functions of the owner's own, named `module:function`: loaded once, and called so that they can do no harm.

Each call has a thread of its own, so that nothing it does ends or holds another one, and a time limit.
"""

import importlib
import logging
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uso.errors import ConfigError

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 30.0
"""Until a hook must have answered."""

MOST_HANGING = 100
"""Calls that do not come back; nothing can end them. With so many, the hook is asked no more."""


class HookError(Exception):
    """A hook gave no answer; the log says why."""

    def __init__(self, late: bool = False) -> None:
        super().__init__()
        self.late = late
        """Whether it did not answer in time."""


class Hook:
    """A function with a time limit. Called from several threads.

    Args:
        what: what it is, in messages: `filter`.
    """

    def __init__(self, what: str, function: Callable[..., Any], seconds: float = ANSWER_SECONDS) -> None:
        self.what = what
        self._function = function
        self._seconds = seconds
        self._hanging = threading.Semaphore(MOST_HANGING)

    def ask(self, about: str, *args: Any) -> Any:
        """What the function answers.

        Args:
            about: what it is asked about, for the log: `prompt`.

        Raises:
            HookError: it fails, or does not answer.
        """
        answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def call() -> None:
            try:
                answers.put((self._function(*args), None))
            except BaseException as error:  # SystemExit too: a hook ends no thread but this one
                answers.put((None, error))
            finally:
                self._hanging.release()

        if not self._hanging.acquire(blocking=False):
            logger.error("%d calls of the %s hang. It is asked no more; start again.", MOST_HANGING, self.what)
            raise HookError(late=True)
        threading.Thread(target=call, name=self.what, daemon=True).start()
        try:
            answer, error = answers.get(timeout=self._seconds)
        except queue.Empty:
            logger.error("The %s did not answer on a %s within %g s.", self.what, about, self._seconds)
            raise HookError(late=True) from None
        if error is not None:
            logger.error("The %s failed on a %s.\n%s", self.what, about, _quoted(error))
            raise HookError
        return answer


def one_line(text: str) -> str:
    """Text of a hook, without anything that could begin a line, or colour one, where it is shown or logged."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _quoted(error: BaseException) -> str:
    """An error with its traceback, every line indented: its text may hold the prompt, which must not look like a line
    of the log."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(f"    | {''.join(letter if letter.isprintable() else '?' for letter in line)}" for line in lines)


def load_function(name: str, what: str, example: str) -> Callable[..., Any]:
    """Import what `module:function` names, from the current folder or as installed.

    Args:
        what: what it is to be, in messages: `filter`.
        example: a name as it should be.

    Raises:
        ConfigError: there is no such module or function, or importing it fails.
    """
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise ConfigError(f"The {what} {name!r} has no function: `module:function` is expected, as in {example}.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            sentence = f"There is no module {module_name} for the {what} {name}, neither in {here} nor installed."
            raise ConfigError(sentence) from error
        raise ConfigError(f"The module of the {what} {name} needs {error.name}, which is not installed.") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"The module of the {what} {name} could not be imported: {error}") from error
    function: Any = module
    for part in function_name.split("."):
        function = getattr(function, part, None)
        if function is None:
            raise ConfigError(f"The module {module_name} has no {function_name}, which the {what} {name} asks for.")
    if not callable(function):
        raise ConfigError(f"{function_name} in the module {module_name} is no function, so it cannot be the {what}.")
    loaded: Callable[..., Any] = function
    return loaded
