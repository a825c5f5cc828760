"""The small app in and without the stack, and an accounts file."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.support.accounts import CHEAP
from tests.support.behind import bare
from uso.web.access.stack import guarded
from uso.web.settings import ServerSettings


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    return tmp_path / "uploads"


@pytest.fixture(scope="package")
def built(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return bare(tmp_path_factory.mktemp("app"))


@pytest.fixture
def open_app(built: FastAPI, uploads: Path) -> FastAPI:
    """The app, built once; each test has its own folder of uploads."""
    gradio: Any
    (gradio,) = (found for route in built.routes if hasattr(found := getattr(route, "app", None), "uploaded_file_dir"))
    gradio.uploaded_file_dir = str(uploads)
    return built


@pytest.fixture
def guard(open_app: FastAPI, tmp_path: Path) -> Callable[..., Any]:
    """`guard(user_header=...)`: the app behind a guard with these settings."""

    def make(**settings: Any) -> Any:
        chosen = {"host": "0.0.0.0", "max_upload_mb": 1, **settings}  # its tests call it by any name
        return guarded(open_app, ServerSettings(output=tmp_path, **chosen))

    return make


@pytest.fixture
def client(guard: Callable[..., Any]) -> Generator[TestClient, None, None]:
    with TestClient(guard(), client=("198.51.100.7", 1)) as made:
        yield made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Alice's account, at a cost that tests can afford."""
    path = tmp_path / "accounts"
    path.write_text(f"# who may\n\nalice:{CHEAP}\n", encoding="utf-8")
    path.chmod(0o600)
    return path
