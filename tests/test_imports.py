"""Imports run one way, and torch comes late: held by reading the sources, and by asking fresh processes."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYERS = (
    {"errors", "files", "arguments", "config", "language", "hooks", "version"},
    {"images"},
    {"request"},
    {"output", "terminal"},
    {"system"},
    {"transformer"},
    {"memory"},
    {"pipeline"},
    {"forecast"},
    {"weights"},
    {"cluster"},
    {"bench"},
    {"evaluation"},
    {"training", "web"},
    {"cli"},
    {"__main__", "app"},
)
"""What lies in `uso/`, from the ground up. A layer imports from those before it; packages of one layer do not know each
other, but for the modules of the first."""

PLAIN = set.union(*LAYERS[:4])
"""Plain data, without torch."""

WEB_LAYERS = ({"settings", "gradio_import"}, {"access"}, {"jobs"}, {"store"}, {"api"}, {"page"}, {"server"})
"""The same inside `uso/web/`."""

HEAVY = {"torch", "diffusers", "transformers", "accelerate", "gradio", "ray", "grpc"}


def sources() -> dict[str, Path]:
    """Module name below `uso` (`web.page`), or `app`, to file."""
    found = {
        ".".join(path.relative_to(ROOT / "uso").with_suffix("").parts): path
        for path in sorted((ROOT / "uso").rglob("*.py"))
        if path != ROOT / "uso" / "__init__.py"  # the lazy front door: it names every layer and imports none
    }
    return found | {"app": ROOT / "app.py"}


LIGHT = sorted(
    {name for name in sources() if name.split(".")[0] in PLAIN | {"system", "cli"} and not name.endswith("__init__")}
    | {"weights.flags", "weights.automatic", "weights.hub.files", "cluster.address"}
)
"""What `python -m uso --help` and the first checks of `app.py` import: nothing heavy may come along."""


def imported(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, inside functions too, in full."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from uso import output` names a module, `from uso.output import save` one of its names.
            several = node.module in ("uso", "uso.web")
            yield from [f"{node.module}.{alias.name}" for alias in node.names] if several else [str(node.module)]


def layer_of(name: str, layers: Sequence[set[str]]) -> int:
    numbers = [number for number, members in enumerate(layers) if name in members]
    assert numbers, f"{name} is in no layer: give it its place"
    return numbers[0]


def check_layers(module: str, layers: Sequence[set[str]], package: str) -> None:
    """Hold every import of a module below `package` against the layers of its rooms."""
    own = module.split(".")[0]
    for name in imported(sources()[module if package == "uso" else f"web.{module}"]):
        if name.startswith(f"{package}."):
            other = name.removeprefix(f"{package}.").split(".")[0]
            above = layer_of(other, layers) < layer_of(own, layers)
            assert other == own or above or {own, other} <= LAYERS[0], f"{module} must not import {name}"
        assert not name.startswith("tools"), f"{module} must not import {name}"


@pytest.mark.parametrize("module", sorted(sources()))
def test_imports_run_one_way(module: str) -> None:
    """Catches the pipeline that reaches up to the loader, or plain data that needs tensors."""
    check_layers(module, LAYERS, "uso")


@pytest.mark.parametrize("module", sorted(name[4:] for name in sources() if name.startswith("web.")))
def test_imports_of_the_server_run_one_way(module: str) -> None:
    """Catches the queue that knows the page, or the layers before the page that know what is behind it."""
    if module != "__init__":
        check_layers(module, WEB_LAYERS, "uso.web")


@pytest.mark.parametrize("module", sorted(name for name in sources() if name.split(".")[0] in PLAIN))
def test_plain_data_knows_no_heavy_library(module: str) -> None:
    """Catches a torch import hidden in a function of a module that is to be verified and tested without it."""
    assert not HEAVY & {name.split(".")[0] for name in imported(sources()[module])}


@pytest.mark.parametrize("module", sorted(name for name in sources() if name.split(".")[0] == "web"))
def test_the_page_knows_no_model(module: str) -> None:
    """The page talks to a callable: catches one that imports torch or the loader."""
    names = set(imported(sources()[module]))
    assert not (HEAVY - {"gradio"}) & {name.split(".")[0] for name in names}
    assert not {"uso.weights.loading", "uso.pipeline.pipeline", "uso.weights.checkpoints"} & names


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


@pytest.mark.slow
def test_the_lazy_front_door_opens() -> None:
    """Catches a name that moved away from the module the front door looks in."""
    code = "import gc, uso; gc.disable(); print(*(getattr(uso, name).__name__ for name in uso.__all__))"
    assert run_python(code).split()


def test_command_line_and_server_start_without_torch() -> None:
    """Catches the one import that turns `--help` and every refusal into seconds of waiting."""
    modules = ", ".join(["app", *(f"uso.{name}" for name in LIGHT)])
    code = f"import sys, {modules}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    assert run_python(code).split() == []
