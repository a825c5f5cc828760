"""The endpoints as tools for assistants (Model Context Protocol): the package they need, and words for their images.

The tools' own descriptions are those of `endpoints.py`; `page/gradio_fit.py` fits Gradio's MCP server to this one.
Importing this needs neither Gradio nor the `mcp` package.
"""

from importlib import metadata

from uso.errors import ConfigError
from uso.web.access.asgi import MCP_BYTES

PACKAGE = "mcp==1.30.0"
"""Gradio 6.31 works with version 1 from 1.21 on. Its extra `gradio[mcp]` would downgrade pydantic."""

OLDEST, TOO_NEW = (1, 21), (2,)

GIVE_A_DATA_URL = (
    f"a data URL with the image file in Base64, such as data:image/png;base64,... ({MCP_BYTES / 1e6:g} MB in one call)"
)
IMAGES_SENTENCE = f" Each image is given as {GIVE_A_DATA_URL}"


def check_mcp() -> None:
    """Check that tools can be offered, before anything heavy is imported.

    Raises:
        ConfigError: the package is not installed, or is of a version that Gradio cannot use.
    """
    try:
        version = metadata.version("mcp")
    except metadata.PackageNotFoundError:
        raise ConfigError(f"--mcp needs a package that is not installed. Run: pip install '{PACKAGE}'") from None
    if not OLDEST <= tuple(map(int, version.split(".")[:2])) < TOO_NEW:
        raise ConfigError(f"--mcp cannot use version {version} of the package mcp. Run: pip install '{PACKAGE}'")
