"""Fixtures shared by the tests: pictures to give, the golden case, and the demo model loaded once."""

import gc
import os
import secrets
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from uso.system.garbage import collect_seldom
from uso.web.gradio_import import skip_type_stubs

# Read when huggingface_hub is imported: the tests neither reach a hub nor find anyone's downloaded weights.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_CACHE"] = str(Path(tempfile.gettempdir()) / "uso-tests-no-weights")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# What the program keeps between runs (fitted previews, compiled kernels): not in the home of whoever runs the tests.
os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir()) / "uso-tests-cache")

# A cluster of this machine asks for a token. Ray reads it when it is imported, and some tests import it before.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

# A shell's background job ignores Ctrl-C, and what it starts inherits that: tests send that signal and mean it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

skip_type_stubs()  # as the server does, and without a race of the workers of a test run

collect_seldom()  # as the program does, before everything is imported

TESTS = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, so that no worker begins one when the others have finished."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """The garbage collector goes through what tests make, and not through what has been imported."""
    gc.freeze()


def draw_picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth, asymmetric RGB picture: gradients and a few discs."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    pixels = np.stack([rows, columns, 1 - rows], axis=-1)
    for _ in range(5):
        row, column, radius = random.random(3) * (height, width, min(height, width) / 3) / max(height, width)
        pixels[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = random.random(3)
    return Image.fromarray((pixels * 255).astype(np.uint8), "RGB")


@pytest.fixture(scope="session")
def picture() -> Callable[..., Image.Image]:
    """`picture(width, height, seed)` draws one."""
    return draw_picture


@pytest.fixture
def image(picture: Callable[..., Image.Image]) -> Image.Image:
    """One of them."""
    return picture(256, 256, 3)


@pytest.fixture
def picture_file(tmp_path: Path) -> Callable[..., Path]:
    """`picture_file(name, width, height, seed)` draws one to a file."""

    def draw(name: str, width: int = 200, height: int = 150, seed: int = 0) -> Path:
        path = tmp_path / name
        draw_picture(width, height, seed).save(path)
        return path

    return draw


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return TESTS / "golden" / "case-a"


@pytest.fixture(scope="session")
def golden(golden_folder: Path) -> Any:
    """The golden case: its files and numbers."""
    from tests.golden import Case

    return Case(golden_folder)


@pytest.fixture(scope="session")
def golden_pipeline(golden: Any) -> Any:
    """The golden case's files as a pipeline (float32, CPU, no text encoders). Do not change it."""
    return golden.load()


@pytest.fixture(scope="session")
def demo_config() -> Any:
    from uso.config import load_model_config

    return load_model_config("demo")


@pytest.fixture(scope="session")
def demo_pipeline(demo_config: Any) -> Any:
    """The demo model on the CPU. Do not change it."""
    from uso.weights.loading import load_pipeline

    return load_pipeline(demo_config, device="cpu", memory="full")
