"""Fixtures for tests of the server: where uploads go."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gradio's folder for what is uploaded; its table of all calls is off, as in `app.py` (its pandas code warns)."""
    monkeypatch.setenv("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


@pytest.fixture
def upload(uploads: Path, picture: Callable[..., Image.Image]) -> Callable[..., dict[str, Any]]:
    """`upload(name, width, height)`: an image as the browser names it after uploading."""

    def put(name: str = "image.png", width: int = 200, height: int = 150) -> dict[str, Any]:
        picture(width, height).save(uploads / name)
        return {"path": str(uploads / name), "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    return put
