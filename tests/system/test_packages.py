"""A package that is missing, or built for another PyTorch, is a sentence and no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from uso.config import ROOT
from uso.system.packages import import_problem


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("operator torchvision::nms does not exist"), "The package torchvision"),
        (ImportError("/x/torchvision/_C.so: undefined symbol: _ZN3c10"), "pip uninstall torchvision"),
        (ModuleNotFoundError("No module named 'tensorboardish'", name="tensorboardish"), "pip install tensorboardish"),
    ],
)
def test_it_is_named_with_its_remedy(error: BaseException, says: str) -> None:
    assert says in str(import_problem(error))


def test_the_first_cause_counts() -> None:
    """transformers wraps what it cannot import in a sentence of its own."""
    error = ModuleNotFoundError("Could not import module 'T5EncoderModel'. Are this object's requirements defined?")
    error.__cause__ = RuntimeError("operator torchvision::nms does not exist")
    assert "torchvision" in str(import_problem(error))


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), ValueError("x"), KeyError("operator")])
def test_other_errors_are_none_of_its_business(error: BaseException) -> None:
    assert import_problem(error) is None


def hidden(folder: Path, *names: str) -> dict[str, str]:
    """The environment in which these packages are not installed."""
    (folder / "sitecustomize.py").write_text(
        "import importlib.machinery as m\n"
        "find = m.PathFinder.find_spec\n"
        "m.PathFinder.find_spec = lambda name, path=None, target=None: "
        f"None if name.partition('.')[0] in {names!r} else find(name, path, target)\n"
    )
    return os.environ | {"PYTHONPATH": str(folder)}


def run(environment: dict[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *argv], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_torchvision_of_another_torch_is_named(tmp_path: Path) -> None:
    """As it is left in an image with a PyTorch of its own, once requirements.txt brought another."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    about = tmp_path / "torchvision-0.17.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.17.0\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    ran = run(environment, "uso", "generate", "--model", "demo", "--device", "cpu", "--output", str(tmp_path / "out"))
    assert "Traceback" not in ran.stderr
    assert ran.returncode == 0 or (
        ran.returncode == 2 and ran.stderr.startswith("The package torchvision 0.17.0 does not fit the PyTorch")
    )


@pytest.mark.slow
def test_a_dry_run_needs_nothing_that_draws(tmp_path: Path) -> None:
    """The trainer's, and those of the demo's stages, in one process."""
    script = """
import tools.demo.__main__ as demo, uso.cli.main as uso
assert uso.main(["train", "stage1", "--dry-run"]) == 0
for stage in ("stage1-mini", "reward-mini"):
    assert demo.main(["stage", stage, "--dry-run"]) == 0
"""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=hidden(tmp_path, "cv2", "skimage", "tensorboard"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert all(f"{config}: " in ran.stdout for config in ("stage1", "stage1-mini", "reward-mini"))


def test_a_report_says_what_brings_its_plots(tmp_path: Path) -> None:
    ran = run(hidden(tmp_path, "matplotlib"), "uso", "evaluate", "report", str(tmp_path))
    said = "The package matplotlib is not installed. Run pip install -r requirements-evaluate.txt.\n"
    assert (ran.returncode, ran.stderr) == (2, said)


def test_what_draws_says_what_brings_its_package(tmp_path: Path) -> None:
    ran = run(hidden(tmp_path, "cv2"), "tools.demo", "sheet", str(tmp_path / "sheet.png"))
    said = "The package opencv-python-headless is not installed. Run pip install -r requirements-dev.txt.\n"
    assert (ran.returncode, ran.stderr) == (2, said)
