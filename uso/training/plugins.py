"""What a config names by `module:function`: a reward's descriptor, data sources, teachers and optimizers."""

import importlib
from typing import Any

from uso.errors import ConfigError
from uso.system.packages import import_problem


def find(what: str, name: str) -> Any:
    """The function, or class, called `module:function`.

    Args:
        what: it is, for the message.

    Raises:
        ConfigError: there is no such function.
    """
    module, colon, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        wanted = "" if colon else " Write module:function."
        problem = import_problem(error) if isinstance(error, ImportError) and error.name != module else None
        raise ConfigError(f"The {what} '{name}' was not found ({error}).{wanted} {problem or ''}".strip()) from error
