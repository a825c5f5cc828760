"""`python app.py`: what is refused before anything heavy is imported, and what `auto` means without weights."""

import argparse
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from uso.config import ROOT
from uso.weights.automatic import automatic_model

HEAVY = ("torch", "gradio", "diffusers", "transformers", "fastapi")


def python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    """Catches a heavy import at the top of a module that the flags need: `--help` would take seconds."""
    script = (
        "import sys, app\n"
        "text = app.parser().format_help()\n"
        "assert '--lora-scale' in text and '--image-encoder' in text and '--root-path' in text\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = python("-c", script, folder=tmp_path)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_port_is_open_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    """Catches an import between the start of the process and its first answer: that is to come within a second."""
    script = (
        "import sys, app, uso.web.server.process, uso.web.server.starting, uso.web.server.port, uso.web.settings\n"
        f"print([name for name in {(*HEAVY, 'starlette', 'huggingface_hub')} if name in sys.modules])"
    )
    done = python("-c", script, folder=tmp_path)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_page_is_built_without_torch(tmp_path: Path) -> None:
    """Catches a page that waits for torch: only the engine's thread imports it."""
    script = (
        "import sys, app\n"
        "from uso.weights.flags import check_model_flags\n"
        "args = app.parser().parse_args(['--model', 'demo'])\n"
        "settings, port = app.server_settings(args), app.reserve('127.0.0.1', 0)\n"
        "app.build(args, check_model_flags(args), settings, {}, port)\n"
        "print('gradio' in sys.modules, 'torch' in sys.modules)"
    )
    done = python("-c", script, folder=tmp_path)
    assert done.stdout.strip() == "True False", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--model", "typo"], "There is no model 'typo'."),
        (["--memory", "typo"], "There is no memory plan 'typo'."),
        (["--device", "typo"], "There is no device 'typo'."),
        (["--dtype", "typo"], "There is no number type 'typo'."),
        (["--lora-scale", "nan"], "--lora-scale nan is not a usable number"),
        (["--text-encoder-2", "typo"], "--text-encoder-2 typo: there is no such file"),
        (["--output", "taken"], "Pictures cannot be written to taken"),
        (["--port", "65536"], "--port is 65536; 0 to 65535 is allowed"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid is no address of this machine"),
    ],
)
def test_wrong_flags_are_refused_in_a_sentence(tmp_path: Path, flags: list[str], sentence: str) -> None:
    """Catches a traceback, or a refusal that comes after a minute of loading, or with exit status 0."""
    (tmp_path / "taken").touch()
    done = python(str(ROOT / "app.py"), *flags, folder=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith(f"app.py: {sentence}"), done.stderr


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    """Catches a server that loads the model first and then cannot listen."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = python(str(ROOT / "app.py"), "--model", "demo", "--port", str(port), folder=tmp_path)
    assert done.returncode == 2
    assert f"127.0.0.1:{port} cannot be listened on (Address already in use). Choose another --port." in done.stderr


def test_a_port_in_use_is_refused_before_the_model_is_ready(tmp_path: Path) -> None:
    """Catches `--bind-when-ready` that finds out minutes later, when the model is loaded."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = python(str(ROOT / "app.py"), "--model", "demo", "--port", port, "--bind-when-ready", folder=tmp_path)
    assert done.returncode == 2 and "cannot be listened on (Address already in use)" in done.stderr


def test_auto_without_weights_is_the_demo_and_says_why() -> None:
    """Catches an `auto` that downloads, or asks torch for devices that nothing could run on."""
    args = argparse.Namespace(device="auto", **dict.fromkeys(_component_flags()))
    config, reason = automatic_model(args, "auto")
    assert config.name == "demo"
    assert reason == "The weights of FLUX.1-dev are not on this disk, so the demo model draws this."


def _component_flags() -> list[str]:
    from uso.config import COMPONENT_NAMES

    return list(COMPONENT_NAMES)


def test_windows_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """Catches a stack trace about file locks that Windows does not have."""
    script = "import sys; sys.modules['fcntl'] = None; import app; sys.platform = 'win32'; sys.exit(app.main())"
    done = python("-c", script, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("app.py: The page runs on Linux and macOS. On Windows start it in WSL 2")


def test_a_file_that_is_not_what_its_flag_says_is_refused_at_the_start(tmp_path: Path) -> None:
    """Catches a server that starts, and says minutes later that its weights are a web page."""
    (tmp_path / "ae.safetensors").write_text("<!DOCTYPE html><html>Log in</html>")
    done = python(str(ROOT / "app.py"), "--vae", str(tmp_path / "ae.safetensors"), folder=tmp_path)
    assert done.returncode == 2 and "is a web page that was saved in the place of the weights" in done.stderr
