"""The parameters of `GenerationRequest.create` on the methods that pass them on, so that they are written once.

`with_values` gives them to notebooks and `help`, and `takes_values` also to type checkers and editors.
"""

import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from uso.config import ModelConfig
from uso.request.request import GenerationRequest

Method = TypeVar("Method", bound=Callable[..., Any])
Values = ParamSpec("Values")
Returned = TypeVar("Returned")


def with_values(method: Method) -> Method:
    """Set the signature and the arguments in the docstring of a method `(self, prompt, **values)`."""
    create = GenerationRequest.create
    this, own_prompt, _ = inspect.signature(method).parameters.values()
    _, prompt, *values = inspect.signature(create).parameters.values()
    prompt = prompt.replace(annotation=own_prompt.annotation)
    arguments = inspect.cleandoc(create.__doc__ or "").partition("    prompt:")[2].partition("\n\n")[0]
    text = inspect.cleandoc(method.__doc__ or "")
    method.__signature__ = inspect.signature(method).replace(  # type: ignore[attr-defined]
        parameters=[this, prompt, *values]
    )
    method.__doc__ = text.replace("\n\nRaises:", f"\n\nArgs:\n    prompt:{arguments}\n\nRaises:", 1)
    return method


def _typed_as(
    create: Callable[Concatenate[ModelConfig, Values], GenerationRequest],
) -> Callable[[Callable[..., Returned]], Callable[Concatenate[Any, Values], Returned]]:
    def decorate(method: Callable[..., Returned]) -> Callable[Concatenate[Any, Values], Returned]:
        return with_values(method)

    return decorate


takes_values = _typed_as(GenerationRequest.create)
