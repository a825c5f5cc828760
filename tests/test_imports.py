"""Imports run one way, and torch comes late: held by reading the sources, and by asking fresh processes."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYERS: dict[str, set[str]] = {
    "plain data": {"errors", "config", "images", "request", "output", "levels"},
    "tensors": {
        "latents",
        "schedule",
        "context",
        "stages",
        "memory",
        "pipeline",
        "conditioning",
        "pacing",
        "preview",
        "modulation",
        "exchange",
        "encoders",
        "remember",
        "streaming",
        "placement",
        "live_memory",
        "quantize",
        "fp8",
        "kernels",
        "rotary",
        "speed",
    },
    "assembly": {
        "layouts",
        "tensor_files",
        "checkpoints",
        "hub",
        "hub_cache",
        "hub_errors",
        "hub_transfer",
        "choices",
        "architectures",
        "empty_model",
        "random_model",
        "flops",
        "meta_model",
        "forecast",
        "provenance",
        "loading",
        "terminal",
    },
    "training": {"training"},
    "programs": {
        "flags",
        "generate",
        "batch",
        "remote",
        "remote_server",
        "hub_command",
        "forecast_command",
        "bench",
        "bench_command",
        "bench_training",
        "cli",
        "__main__",
        "web",
        "app",
    },
}
"""From the ground up; a layer imports from itself and from those before it. `web` is all of `uso/web/`, `training` all
of `uso/training/`."""

HEAVY = {"torch", "diffusers", "transformers", "accelerate", "gradio"}

LIGHT = sorted(
    LAYERS["plain data"]
    | {
        "hub",
        "hub_command",
        "forecast_command",
        "flags",
        "terminal",
        "generate",
        "batch",
        "remote",
        "remote_server",
        "cli",
    }
)
"""What `python -m uso --help` and the first checks of `app.py` import: nothing heavy may come along."""


def sources() -> dict[str, Path]:
    """Module name below `uso` (`web.page`), or `app`, to file."""
    found = {
        ".".join(path.relative_to(ROOT / "uso").with_suffix("").parts): path
        for path in sorted((ROOT / "uso").rglob("*.py"))
        if path != ROOT / "uso" / "__init__.py"  # the lazy front door: it names every layer and imports none
    }
    return found | {"app": ROOT / "app.py"}


def imported(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, inside functions too, in full."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from uso import hub` names a module, `from uso.hub import missing` one of its names.
            yield from [f"uso.{alias.name}" for alias in node.names] if node.module == "uso" else [str(node.module)]


def layer_of(module: str) -> int:
    top = module.split(".")[0]
    numbers = [number for number, members in enumerate(LAYERS.values()) if top in members]
    assert numbers, f"uso.{module} is in no layer: give it its place in LAYERS"
    return numbers[0]


@pytest.mark.parametrize("module", sorted(sources()))
def test_imports_run_one_way(module: str) -> None:
    """Catches the pipeline that reaches up to the loader, or plain data that needs tensors."""
    known = {top for members in LAYERS.values() for top in members}
    for name in imported(sources()[module]):
        parts = name.split(".")
        if parts[0] == "uso" and len(parts) > 1 and parts[1] in known:
            assert layer_of(parts[1]) <= layer_of(module), f"uso.{module} must not import {name}"


@pytest.mark.parametrize("module", sorted(LAYERS["plain data"]))
def test_plain_data_knows_no_heavy_library(module: str) -> None:
    """Catches a torch import hidden in a function of a module that is to be verified and tested without it."""
    assert not HEAVY & {name.split(".")[0] for name in imported(sources()[module])}


@pytest.mark.parametrize("module", sorted(name for name in sources() if name.split(".")[0] == "web"))
def test_the_page_knows_no_model(module: str) -> None:
    """The page talks to a callable: catches one that imports torch or the loader."""
    names = set(imported(sources()[module]))
    assert not (HEAVY - {"gradio"}) & {name.split(".")[0] for name in names}
    assert not {"uso.loading", "uso.pipeline", "uso.checkpoints"} & names


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_import_uso_brings_nothing_along() -> None:
    """Catches a front door that is no longer lazy: `import uso` is to take milliseconds."""
    code = "import sys; before = set(sys.modules); import uso; print(*set(sys.modules) - before)"
    assert {name.split(".")[0] for name in run_python(code).split()} <= {"uso", *sys.stdlib_module_names}


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch has it on Linux alone")
def test_memory_of_a_gpu_is_taken_in_segments_that_grow_unless_the_user_says_how(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches the gaps that leave a plan of memory without room."""
    code = "import os, uso; print(os.environ.get('PYTORCH_ALLOC_CONF'))"
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    assert run_python(code).split() == ["expandable_segments:True"]
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:128")
    assert run_python(code).split() == ["None"]


def test_the_lazy_front_door_opens() -> None:
    """Catches a name that moved away from the module the front door looks in."""
    assert run_python("import uso; print(*(getattr(uso, name).__name__ for name in uso.__all__))").split()


def test_command_line_and_server_start_without_torch() -> None:
    """Catches the one import that turns `--help` and every refusal into seconds of waiting."""
    modules = ", ".join(["app", *(f"uso.{name}" for name in LIGHT)])
    code = f"import sys, {modules}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    assert run_python(code).split() == []
