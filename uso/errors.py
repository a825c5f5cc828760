"""What can go wrong, as a small tree. Every message is a sentence for a person: what, what is allowed, what to do.

USOError
├── RequestError            a value of a request: out of range, contradictory (also a ValueError)
│   └── ImageError          a reference image that cannot be used
├── ConfigError             a flag, a configuration file, a device that is not there
├── CheckpointError         a weights file: missing, surplus, misshapen or truncated tensors
│   └── MissingWeightsError weights that are not on this disk and could not be fetched
├── DeviceError            an accelerator that answers no more: nothing can be computed in this process
└── OutputError             a picture that cannot be written, or read back
"""


class USOError(Exception):
    """Base of every error this program raises on purpose; its text can be shown to a person as it is."""


class RequestError(USOError, ValueError):
    """A request was refused at the door."""


class ImageError(RequestError):
    """A reference image cannot be used."""


class ConfigError(USOError):
    """A flag or a configuration file is wrong, or asks for a device that is not there."""


class CheckpointError(USOError):
    """A weights file does not hold what the model needs."""


class MissingWeightsError(CheckpointError):
    """Weights are not on this disk and could not be fetched."""


class DeviceError(USOError):
    """An accelerator has failed for good; the process must be started again."""


class OutputError(USOError):
    """A picture could not be written, or holds no request that can be read back."""
