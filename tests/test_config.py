"""Models and memory plans from `configs/`: all that ship are valid, and nothing is understood by accident."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from uso import config as config_module
from uso.config import (
    COMPONENT_NAMES,
    Source,
    from_home,
    load_memory_plan,
    load_model_config,
    memory_names,
    model_names,
    with_local_files,
)
from uso.errors import ConfigError


def test_the_models_that_ship() -> None:
    assert model_names() == ["demo", "flux-dev", "flux-krea-dev", "flux-schnell"]
    assert {"full", "24gb", "8gb", "cpu", "mps"} <= set(memory_names())


@pytest.mark.parametrize("name", model_names())
def test_every_model_is_whole(name: str) -> None:
    """A typo in a shipped file would surface at a user's first start."""
    config = load_model_config(name)
    assert config.name == name
    assert set(config.components) == set(COMPONENT_NAMES)
    assert config.architecture_folder.is_dir()
    assert config.limits.min_size <= config.defaults.width <= config.limits.max_size
    assert config.limits.min_content_size <= config.defaults.content_size <= config.limits.max_content_size
    assert config.defaults.num_inference_steps <= config.limits.max_steps


@pytest.mark.parametrize("name", memory_names())
def test_every_memory_plan_is_valid(name: str) -> None:
    assert load_memory_plan(name).name == name


def test_the_real_models_have_the_ranges_of_the_page() -> None:
    for name in ("flux-dev", "flux-krea-dev", "flux-schnell"):
        limits = load_model_config(name).limits
        assert (limits.min_size, limits.max_size, limits.max_steps) == (512, 1536, 50)
        assert (limits.min_content_size, limits.max_content_size) == (256, 1024)
        assert (limits.min_guidance, limits.max_guidance) == (1.0, 5.0)


def test_extended_models_change_only_what_they_say() -> None:
    """A shallow merge would drop the other components, or the base's revision of one."""
    dev, schnell, krea = (load_model_config(name) for name in ("flux-dev", "flux-schnell", "flux-krea-dev"))
    assert schnell.components["lora"] == dev.components["lora"]
    assert schnell.components["transformer"].repo == "black-forest-labs/FLUX.1-schnell"
    assert (schnell.guidance, schnell.defaults.num_inference_steps, schnell.experimental) == (False, 4, True)
    assert schnell.defaults.width == dev.defaults.width
    assert krea.components["vae"] == dev.components["vae"]
    assert krea.guidance and not krea.experimental
    assert schnell.licence_notice == "" and "Krea" in krea.licence_notice


def test_the_demo_needs_no_network() -> None:
    assert all(source.repo is None for source in load_model_config("demo").components.values())


def test_unknown_model_and_plan_are_refused_with_the_choice() -> None:
    choice = "demo, flux-dev, flux-krea-dev, flux-schnell"
    with pytest.raises(ConfigError, match=f"^There is no model 'flux'. Choose one of: {choice}, or name a YAML file.$"):
        load_model_config("flux")
    with pytest.raises(ConfigError, match=r"^There is no memory plan 'tiny'\. Choose one of: auto, 12gb, .*full"):
        load_memory_plan("tiny")


def own_model(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load((config_module.CONFIGS / "models/demo.yaml").read_text()) | changes))
    return str(path)


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    assert load_model_config(own_model(tmp_path, title="Mine")).title == "Mine"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"titel": "typo"}, r"mine\.yaml: titel: Extra inputs are not permitted\."),
        ({"guidance": None}, r"mine\.yaml: guidance: "),
        ({"components": {"unet": {"path": "a"}}}, r"mine\.yaml: components\.unet"),
        ({"components": {"vae": {"path": "a", "sha": "b"}}}, r"mine\.yaml: components\.vae\.sha: Extra inputs"),
        (
            {"limits": dict(load_model_config("demo").limits) | {"min_size": 100}},
            r"mine\.yaml: limits: .*multiples of 16",
        ),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(tmp_path: Path, changes: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_model_config(own_model(tmp_path, **changes))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("a: [", r"broken\.yaml could not be read"), ("- 1", r"broken\.yaml must hold names and values\.")],
)
def test_files_that_are_no_configuration(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        load_model_config(str(tmp_path / "broken.yaml"))


def test_a_mark_at_its_beginning_does_not_matter(tmp_path: Path) -> None:
    """Windows' Notepad writes it: catches a first key that nobody knows."""
    path = Path(own_model(tmp_path))
    plain = load_model_config(str(path))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_model_config(str(path)) == plain
    path.write_bytes(path.read_text(encoding="utf-8-sig").encode("utf-16"))
    with pytest.raises(ConfigError, match=r"is not UTF-8 text\. Save it as UTF-8\."):
        load_model_config(str(path))


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("title: Malerei für mich".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml is not UTF-8 text\. Save it as UTF-8\."):
        load_model_config(str(tmp_path / "latin.yaml"))


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ("a", "a", r"a\.yaml: extends: 'a' extends this file in turn\. Name another, or leave it out\."),
        ("b", "a", r"b\.yaml: extends: 'a' extends this file in turn\."),
        ("../b", "a", r"a\.yaml: extends: '\.\./b' is not a file beside this one\."),
    ],
)
def test_a_file_that_extends_itself_is_refused(tmp_path: Path, first: str, second: str, sentence: str) -> None:
    """Catches a RecursionError."""
    (tmp_path / "a.yaml").write_text(f"extends: {first}")
    (tmp_path / "b.yaml").write_text(f"extends: {second}")
    with pytest.raises(ConfigError, match=sentence):
        load_model_config(str(tmp_path / "a.yaml"))


# Files of one's own in place of a model's.


@pytest.mark.parametrize(
    ("path", "there"),
    [("~", "/home/me"), ("~/a.png", "/home/me/a.png"), ("~nobody", "~nobody"), ("~cat.jpg", "~cat.jpg"),
     ("~nobody/a", "~nobody/a"), ("b/~", "b/~"), ("/a", "/a"), ("", ".")],
)  # fmt: skip
def test_only_ones_own_home_is_meant_by_a_tilde(monkeypatch: pytest.MonkeyPatch, path: str, there: str) -> None:
    """Catches a RuntimeError for a file whose name begins like another person's home."""
    monkeypatch.setenv("HOME", "/home/me")
    assert from_home(path) == Path(there)


def test_files_whose_name_begins_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("~vae").touch()
    found = with_local_files(load_model_config("demo"), {"vae": "~vae"}).components["vae"]
    assert found.local_path == tmp_path / "~vae"
    assert Source(path="~nobody/vae").local_path == config_module.ROOT / "~nobody/vae"


def test_local_files_replace_components(tmp_path: Path) -> None:
    """The path counts from where the command was started, not from the program's folder."""
    file = tmp_path / "flux1.safetensors"
    file.write_bytes(b"")
    config = with_local_files(load_model_config("flux-dev"), {"transformer": str(file)})
    assert config.components["transformer"].repo is None
    assert config.components["transformer"].local_path == file
    assert config.components["vae"] == load_model_config("flux-dev").components["vae"]


def test_local_files_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--text-encoder-2 /nowhere/t5: there is no such file or folder\.$"):
        with_local_files(load_model_config("flux-dev"), {"text_encoder_2": "/nowhere/t5"})
    with pytest.raises(ConfigError, match=r"^'unet' is not a component\. The components are: transformer, vae"):
        with_local_files(load_model_config("flux-dev"), {"unet": "/"})
