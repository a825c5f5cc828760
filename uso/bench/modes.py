"""The kinds of request that are measured. No torch here: the command line checks a mode before it imports any."""

from uso.errors import ConfigError

MODES = {
    "text": (0, 0),
    "content": (1, 0),
    "style": (0, 1),
    "styles": (0, 2),
    "content+style": (1, 1),
    "content+styles": (1, 2),
}
"""Mode -> (content images, style images)."""


def check_mode(mode: str) -> None:
    """Raises:
    ConfigError: there is no such mode.
    """
    if mode not in MODES:
        raise ConfigError(f"There is no mode '{mode}'. Choose one of: {', '.join(MODES)}.")
