"""What can go wrong. Every message is for a person: what is wrong, what is allowed, what to do.

USOError
├── RequestError            a value of a request is out of range or contradictory (also a ValueError)
│   └── ImageError          a reference image cannot be used
├── ConfigError             a flag or configuration file is wrong, or a device is missing
├── CheckpointError         a weights file has missing, surplus, misshapen or truncated tensors
│   └── MissingWeightsError weights are not on this disk and could not be fetched
├── DeviceError             an accelerator has failed: nothing can be computed in this process
├── WorkerLost              a process, machine or connection is gone that worked for this one; another can do it
└── OutputError             a picture cannot be written or read back
"""

from collections.abc import Iterator
from contextlib import contextmanager


class USOError(Exception):
    """Base of all errors that this program raises on purpose; the message can be shown to a user as it is."""


class RequestError(USOError, ValueError):
    """A request was refused.

    Args:
        message: the sentence.
        field: the value that it is about, as `GenerationRequest` calls it; empty if it is about none in particular.
    """

    def __init__(self, message: str = "", field: str = "") -> None:
        super().__init__(message)
        self.field = field


class ImageError(RequestError):
    """A reference image cannot be used."""


@contextmanager
def about(field: str) -> Iterator[None]:
    """Refusals inside name this field, unless they name one already."""
    try:
        yield
    except RequestError as error:
        error.field = error.field or field
        raise


class ConfigError(USOError):
    """A flag or a configuration file is wrong, or requests a device that is missing."""


class CheckpointError(USOError):
    """A weights file does not hold what the model needs."""


class MissingWeightsError(CheckpointError):
    """Weights are not on this disk and could not be fetched."""


class DeviceError(USOError):
    """An accelerator has failed; the process must be restarted."""


class WorkerLost(USOError):
    """What works for this process elsewhere is gone: its process, its machine, or the connection. Another can do it."""


class OutputError(USOError):
    """A picture could not be written, or holds no request that can be read back."""
