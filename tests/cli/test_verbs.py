"""The other verbs: `info`, `models`, `download`, `account`, and what starts without torch."""

import getpass
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from huggingface_hub import close_session, constants

from tests.support.commands import SMALL, Ran
from tests.support.hub_server import HubServer, Repository
from uso import output
from uso.config import ROOT
from uso.web.access.accounts import Accounts
from uso.weights.hub import cache, files
from uso.weights.hub.cache import Hub


def test_info_prints_the_record(uso: Callable[..., Ran], picture_file: Callable[..., Path]) -> None:
    style = picture_file("ink.png")
    (path,) = uso("generate", *SMALL, "--prompt", "狐狸 in ink", "--style", style, "--seed", 3).pictures
    ran = uso("info", path)
    lines = [line.strip() for line in ran.out]
    shown = {"prompt: 狐狸 in ink", "seed: 3", "name: ink.png", "content_images: none", "name: demo", "dtype: float32"}
    assert shown <= set(lines)
    ran = uso("info", path, "--json")
    assert json.loads("\n".join(ran.out)) == output.read(path).record


def test_info_refuses_other_files(uso: Callable[..., Ran], picture_file: Callable[..., Path]) -> None:
    ran = uso("info", picture_file("plain.png"))
    assert (ran.status, ran.out) == (2, []) and "plain.png holds no request" in ran.err


def test_info_shows_control_characters_instead_of_obeying_them(uso: Callable[..., Ran]) -> None:
    """A picture from a stranger must not write to one's terminal."""
    (path,) = uso("generate", *SMALL, "--prompt", "\x1b]0;owned\x07\x9b31m fox").pictures
    ran = uso("info", path)
    assert r"\x1b]0;owned\x07\x9b31m fox" in "\n".join(ran.out)


def test_models_are_listed_with_what_is_on_the_disk(uso: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(Path("empty-cache").absolute()))
    text = "\n".join(uso("models").out)
    assert "demo: Demo (miniature). " in text and "FLUX.1-schnell (experimental). " in text
    assert text.count("not on this disk: transformer, vae,") == 3
    assert "(about 37.9 GB)" in text


def test_download_of_local_models_says_there_is_nothing_to_fetch(uso: Callable[..., Ran]) -> None:
    ran = uso("download", "--model", "demo")
    assert ran.status == 0 and "needs nothing from the network" in ran.out[0]
    assert uso("download", "--model", "typo").status == 2


@pytest.fixture
def hub_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A model of one's own whose LoRA is on a Hub, and nothing of it on the disk yet."""
    values = yaml.safe_load((ROOT / "configs/models/demo.yaml").read_text())
    lora = (ROOT / values["components"]["lora"]["path"]).read_bytes()
    values["components"]["lora"] = {"repo": "someone/lora", "path": "lora.safetensors"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    with HubServer() as server:
        server.repositories["someone/lora"] = Repository({"lora.safetensors": lora})
        here = Hub(endpoint=server.url, cache=tmp_path / "hub", token=False, offline=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for user in (files, cache):
            monkeypatch.setattr(user, "Hub", lambda: here)
        yield "mine.yaml"
        close_session()


def test_download_says_the_size_first_and_a_dry_run_fetches_nothing(uso: Callable[..., Ran], hub_model: str) -> None:
    uso("download", "--model", hub_model, "--dry-run")
    ran = uso("download", "--model", hub_model, "--dry-run")
    size = re.fullmatch(r".*: (\d\S* \S+) in all, \1 to fetch\.", ran.out[-1])
    assert ran.status == 0 and size
    ran = uso("download", "--model", hub_model)
    assert ran.status == 0 and f"{size[1]} in all, {size[1]} to fetch." in "\n".join(ran.out)
    assert f"{size[1]} in all, 0" in uso("download", "--model", hub_model, "--dry-run").out[-1]


def test_a_named_model_is_fetched_and_what_it_is_made_of_recorded(uso: Callable[..., Ran], hub_model: str) -> None:
    ran = uso("generate", *SMALL, "--model", hub_model, "--offline")
    assert ran.status == 2 and "Offline mode is on, and parts of mine are not on this disk" in ran.err
    (path,) = uso("generate", *SMALL, "--model", hub_model).pictures
    origin = {"repo": "someone/lora", "revision": "main", "commit": "1" * 40, "path": "lora.safetensors"}
    assert output.read(path).model["components"]["lora"] == origin


def test_help_and_refusals_need_no_torch() -> None:
    """`--help` takes over five seconds once something imports torch at the top of a file."""
    script = """
import sys
from uso.cli.main import main
from uso.config import load_model_config
for argv in (["--help"], ["generate", "--help"], ["info", "--help"], ["download", "--help"]):
    try:
        main(argv)
    except SystemExit as stopped:
        assert stopped.code == 0
for argv in (
    ["generate", "--model", "demo", "--width", "5"],
    ["generate", "--model", "typo"],
    ["generate", "--model", "demo", "--batch", "nowhere.json"],
    ["info", "nowhere.png"],
):
    assert main(argv) == 2
heavy = {"torch", "diffusers", "transformers", "gradio", "huggingface_hub", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "--content FILE" in ran.stdout


def test_it_is_a_module_that_runs(tmp_path: Path) -> None:
    """`python -m uso`, from another folder, with a reader that stops reading."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = f"{sys.executable} -m uso generate --help | head -1"
    ran = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert ran.stdout.startswith("usage: python -m uso generate") and "Traceback" not in ran.stderr


# Accounts of the server.


def test_an_account_is_added_replaced_and_removed(uso: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a password that is not the line that was piped in, and a change that is not what it says."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse\nmore\n"))
    ran = uso("account", "accounts", "alice")
    assert (ran.status, ran.out, ran.err) == (0, [], "alice was added to accounts.\n")
    assert Accounts(Path("accounts")).check("alice", "correct horse")
    monkeypatch.setattr(sys, "stdin", io.StringIO("battery staple"))
    assert uso("account", "accounts", "alice").err == "alice has a new password in accounts.\n"
    assert Accounts(Path("accounts")).check("alice", "battery staple")
    assert uso("account", "accounts", "alice", "--remove").err == "alice is no longer in accounts.\n"
    ran = uso("account", "accounts", "alice", "--remove")
    assert (ran.status, ran.err) == (2, "There is no account alice in accounts.\n")


def test_a_terminal_is_asked_twice(uso: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a mistyped password that nobody can log in with afterwards, or one that the terminal shows."""
    said: list[str] = []
    typed = iter(["correct horse", "correct hose", "correct horse", "correct horse"])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)

    def ask(prompt: str) -> str:
        said.append(prompt)
        return next(typed)

    monkeypatch.setattr(getpass, "getpass", ask)
    ran = uso("account", "accounts", "alice")
    assert (ran.status, ran.err) == (2, "The two passwords differ. Nothing was changed.\n")
    assert not Path("accounts").exists()
    assert uso("account", "accounts", "alice").status == 0
    assert said == ["Password: ", "Repeat the password: "] * 2


@pytest.mark.parametrize(
    ("password", "sentence"),
    [
        ("", "The password has 0 characters; at least 8 are needed."),
        ("ä" * 40, "The password has 80 bytes; bcrypt takes at most 72."),
    ],
)
def test_a_password_that_would_not_do_is_refused(
    uso: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, password: str, sentence: str
) -> None:
    """Catches an empty password of a script whose secret is missing."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(password + "\n"))
    ran = uso("account", "accounts", "alice")
    assert (ran.status, ran.out, ran.err) == (2, [], sentence + "\n")
    assert not Path("accounts").exists()
