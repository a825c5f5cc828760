"""The command line in an empty folder, with models that stay loaded from one run to the next."""

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.commands import SMALL, Ran
from uso.cli.main import main
from uso.cli.pictures import batch
from uso.cli.pictures import generate as generate_module
from uso.config import ModelConfig
from uso.weights import loading

_load_pipeline = loading.load_pipeline


@lru_cache(4)
def _loaded(config: str, options: str) -> Any:
    return _load_pipeline(ModelConfig.model_validate_json(config), **json.loads(options))


@pytest.fixture(autouse=True)
def models_stay_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model is loaded once for the same files and flags; what it remembers of requests it forgets."""

    def load(config: ModelConfig, *, on_progress: Any = None, **options: Any) -> Any:
        pipeline = _loaded(config.model_dump_json(), json.dumps(options))
        pipeline.remembered.clear()
        return pipeline

    monkeypatch.setattr(loading, "load_pipeline", load)


@pytest.fixture
def loaded_anew(models_stay_loaded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run loads its model, as a process of its own does."""
    monkeypatch.setattr(loading, "load_pipeline", _load_pipeline)


@pytest.fixture
def uso(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """`uso("generate", ...)` runs the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: object) -> Ran:
        capsys.readouterr()
        status = main([str(part) for part in argv])
        captured = capsys.readouterr()
        return Ran(status, captured.out.splitlines(), captured.err)

    return run


@pytest.fixture
def nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test fails if the model is loaded: what it does must be refused before."""
    for module in (generate_module, batch):
        monkeypatch.setattr(module, "load", lambda *_: pytest.fail("the model was loaded"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """`run(jobs, *flags)` writes `jobs/jobs.json` in an empty folder and runs it from there."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    Path("jobs").mkdir()

    def generate(jobs: Any, *flags: object) -> Ran:
        Path("jobs/jobs.json").write_text(jobs if isinstance(jobs, str) else json.dumps(jobs), encoding="utf-8")
        capsys.readouterr()
        status = main(["generate", *SMALL, "--steps", "1", "--batch", "jobs/jobs.json", *map(str, flags)])
        captured = capsys.readouterr()
        return Ran(status, captured.out.splitlines(), captured.err)

    return generate


@pytest.fixture
def draw(run: Any, picture: Callable[..., Image.Image]) -> Callable[..., str]:
    """Draw `jobs/NAME`; returns the name."""

    def draw(name: str, width: int = 100, height: int = 80, seed: int = 0) -> str:
        picture(width, height, seed).save(Path("jobs") / name)
        return name

    return draw


@pytest.fixture
def nobodys_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's uploads in a folder of their own, and nobody's login or proxy; what the client sets ends."""
    monkeypatch.setenv("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("USO_SERVER_LOGIN", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def remote(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """`remote(server, ...)` runs `generate --server URL` in an empty folder."""

    def run(server: Any, *argv: object) -> Ran:
        capsys.readouterr()
        status = main(["generate", "--server", getattr(server, "url", server), *map(str, argv)])
        captured = capsys.readouterr()
        return Ran(status, captured.out.splitlines(), captured.err)

    return run
