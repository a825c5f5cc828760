"""`--workers`: what it may say, and what is refused before Ray or torch is imported."""

import argparse
import importlib.util
import socket
import subprocess
import sys
from typing import Any

import pytest

from app import parser
from tests.support.running import free_port
from uso.cluster.address import Workers, model_spec, named_model, reach, workers_of
from uso.config import ROOT, load_model_config
from uso.errors import ConfigError


@pytest.fixture(autouse=True)
def ray_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as it is looked for; these tests need none of it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


def flags(*given: str) -> argparse.Namespace:
    return parser().parse_args(["--model", "demo", *given])


@pytest.mark.parametrize(
    ("given", "workers", "name"),
    [
        (("ray://head:10001",), Workers("head", 10001, None), "ray://head:10001"),
        (("ray://10.0.0.7",), Workers("10.0.0.7", 10001, None), "ray://10.0.0.7:10001"),
        (("ray://[fd00::7]:99", "--worker-count", "8"), Workers("[fd00::7]", 99, 8), "ray://[fd00::7]:99"),
        (("local-ray:2",), Workers("", 0, 2), "local-ray:2"),
    ],
)
def test_where_workers_are(given: tuple[str, ...], workers: Workers, name: str) -> None:
    found = workers_of(flags("--workers", *given))
    assert found == workers and found.name == name and found.local == (not workers.host)


def test_without_the_flag_there_are_none() -> None:
    assert workers_of(flags()) is None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("--workers", "head:10001"), "give ray://HOST:10001, or local-ray:2"),
        (("--workers", "ray://head:70000"), "70000 is no port"),
        (("--workers", "local-ray:0"), "0 workers are asked for; 1 to 1024 are allowed"),
        (("--workers", "ray://head", "--worker-count", "0"), "0 workers are asked for"),
        (("--workers", "local-ray:2", "--worker-count", "3"), "leave out --worker-count"),
        (("--worker-count", "3"), "belongs to --workers"),
        (("--workers", "local-ray:2", "--devices", "0,1"), "--workers and --devices both"),
        (("--workers", "local-ray:2", "--device", "cuda:1"), "Ray chooses the GPU"),
        (("--workers", "ray://head", "--model", "auto"), "needs a model by its name"),
        (("--workers", "ray://head", "--weights", "models"), "--weights models: each node looks"),
        (("--workers", "ray://head", "--text-encoder-2", "t5"), "--text-encoder-2 t5: each node looks"),
    ],
)
def test_what_makes_no_sense_is_refused(given: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        workers_of(flags(*given))


def test_without_ray_the_way_to_get_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a traceback of an import for those who have only installed what the README asks for."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -r requirements-ray\.txt"):
        workers_of(flags("--workers", "local-ray:1"))
    assert workers_of(flags()) is None


def test_a_head_that_does_not_answer_is_refused_in_a_sentence() -> None:
    """Catches Ray's own half a minute of silence."""
    port = free_port()
    with pytest.raises(ConfigError, match=f"Nothing answers at ray://127.0.0.1:{port}"):
        reach(Workers("127.0.0.1", port, None))
    with socket.create_server(("127.0.0.1", port)):
        reach(Workers("127.0.0.1", port, None))


def test_a_nodes_files_are_looked_for_on_the_node() -> None:
    """Catches a page that refuses weights which only its GPUs' machines have, and one that sends its own paths."""
    args = flags("--workers", "ray://head", "--weights", "/srv/models", "--add-lora", "/srv/ink.safetensors:0.5")
    workers = workers_of(args)
    assert workers is not None
    config = named_model(args, workers)
    assert config == load_model_config("demo")
    spec = model_spec(args, config, workers, {"memory": "auto"}, previews=True)
    assert spec["files"] == {"weights": ["/srv/models"], "add_lora": ["/srv/ink.safetensors:0.5"]}
    assert model_spec(args, config, Workers("", 0, 1), {}, previews=True)["files"] is None
    with pytest.raises(ConfigError, match="there is no such"):
        named_model(args, None)


def program(*given: str) -> Any:
    return subprocess.run(
        [sys.executable, "app.py", "--model", "demo", *given], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (requirements-ray.txt)")
def test_the_program_refuses_a_head_that_is_not_there(tmp_path: Any) -> None:
    """Catches a page that comes up before workers that never will."""
    done = program("--workers", f"ray://127.0.0.1:{free_port()}", "--output", str(tmp_path))
    assert done.returncode == 2 and done.stderr.startswith("app.py: Nothing answers at ray://127.0.0.1:")
    assert done.stderr.count("\n") == 1
