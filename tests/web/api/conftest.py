"""A server of a test's own pipeline, and a program that calls it."""

from collections.abc import Generator
from pathlib import Path

import pytest
from gradio_client import Client

from tests.support.offered import Offered, calling, offered
from tests.support.scripted import Script


@pytest.fixture(scope="module")
def gradio_folder(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path, None, None]:
    """Gradio's folder for what is uploaded; its table of all calls is off, as in `app.py` (its pandas code warns)."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("uploads")
        patch.setenv("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def server(gradio_folder: Path, tmp_path: Path, script: Script) -> Generator[Offered, None, None]:
    with offered(tmp_path, script) as made:
        yield made


@pytest.fixture
def client(server: Offered) -> Generator[Client, None, None]:
    with calling(server) as made:
        yield made
