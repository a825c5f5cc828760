"""`python -m uso`, run as a person or a script would, with the demo model: what it makes, says and refuses."""

import getpass
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from huggingface_hub import close_session, constants
from PIL import Image, PngImagePlugin

from tests.support.hub_server import HubServer, Repository
from uso import output
from uso.cli import generate as generate_module
from uso.cli.main import main
from uso.config import ROOT, load_model_config
from uso.web.access.accounts import Accounts
from uso.weights.hub import cache, files
from uso.weights.hub.cache import Hub

SMALL = ("--model", "demo", "--width", "128", "--height", "128", "--steps", "2", "--content-size", "64")


class Ran(NamedTuple):
    status: int
    out: list[str]
    err: str

    @property
    def pictures(self) -> list[Path]:
        return [Path(line) for line in self.out]


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
    monkeypatch.setattr(generate_module, "load", lambda *_: pytest.fail("the model was loaded"))


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def request_of(path: Path) -> dict[str, Any]:
    return dict(output.read(path).record["request"])


def rerecorded(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a picture with a changed record."""
    record = output.read(path).record
    change(record)
    info = PngImagePlugin.PngInfo()
    info.add_itxt(output.CHUNK, json.dumps(record))
    target = path.with_name("rerecorded.png")
    with Image.open(path) as image:
        image.save(target, pnginfo=info)
    return target


# Making pictures.


def test_twice_with_one_seed_gives_identical_pixels(uso: Callable[..., Ran]) -> None:
    made = [uso("generate", *SMALL, "--prompt", "fox", "--seed", seed, "--output", "out") for seed in (7, 7, 8)]
    first, second, other = (pixels(run.pictures[0]) for run in made)
    assert [run.status for run in made] == [0, 0, 0]
    assert first == second != other
    assert len(list(Path("out").glob("*.png"))) == 3


def test_only_paths_are_on_stdout_and_nothing_elsewhere(uso: Callable[..., Ran]) -> None:
    """Scripts read stdout line by line; without a terminal there is nobody to read bars."""
    ran = uso("generate", *SMALL, "--images", 2, "--output", "out")
    assert sorted(ran.out) == sorted(str(path) for path in Path("out").glob("*.png"))
    assert len(ran.out) == 2 and ran.err == ""


def test_a_terminal_sees_model_size_seed_and_bars(
    uso: Callable[..., Ran], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    ran = uso("generate", *SMALL, "--seed", 5, "--images", 2)
    assert "Demo (miniature): 128 x 128, seed 5." in ran.err
    assert "Loading transformer" in ran.err and "denoise 2/2" in ran.err and "4/4" in ran.err
    assert len(ran.out) == 2


def test_pictures_of_several_are_those_of_single_runs(
    uso: Callable[..., Ran], picture_file: Callable[..., Path]
) -> None:
    """State left over from one picture, or noise drawn in one stream, would show in the second."""
    common = (*SMALL, "--prompt", "fox", "--content", picture_file("a.png"), "--style", picture_file("b.png", seed=1))
    several = uso("generate", *common, "--seed", 40, "--images", 3, "--output", "several").pictures
    singles = [uso("generate", *common, "--seed", seed, "--output", "single").pictures[0] for seed in (40, 41, 42)]
    assert [pixels(path) for path in several] == [pixels(path) for path in singles]
    assert [request_of(path)["seed"] for path in several] == [40, 41, 42]
    assert len({pixels(path) for path in several}) == 3


def test_all_flags_arrive(uso: Callable[..., Ran], picture_file: Callable[..., Path]) -> None:
    """A flag bound to another field, or dropped, would make another picture in silence."""
    files = [picture_file(f"{name}.png", seed=number) for number, name in enumerate("abcd")]
    images = ("--content", files[0], "--content", files[1], "--style", files[2], "--style", files[3])
    values = ("--steps", 3, "--guidance", 2.5, "--content-size", 80, "--seed", 9, "--schedule", 0.5, "--tiled-decode")
    size = ("--width", 144, "--height", 128)
    (path,) = uso("generate", "--model", "demo", "--prompt", "狐狸", *images, *size, *values).pictures
    request = request_of(path)
    assert [entry["name"] for entry in request.pop("content_images")] == ["a.png", "b.png"]
    assert [entry["name"] for entry in request.pop("style_images")] == ["c.png", "d.png"]
    assert request == {
        "prompt": "狐狸",
        "width": 144,
        "height": 128,
        "keep_input_size": False,
        "num_inference_steps": 3,
        "guidance_scale": 2.5,
        "content_size": 80,
        "seed": 9,
        "num_images": 1,
        "schedule": 0.5,
        "tiled_decode": True,
    }


def test_keep_size_shows_the_size_it_used(uso: Callable[..., Ran], picture_file: Callable[..., Path]) -> None:
    content = picture_file("wide.png", 300, 200)
    ran = uso("generate", "--model", "demo", "--steps", 1, "--content", content, "--keep-size", "--output", "a.png")
    assert "304 x 208" in ran.err
    with Image.open("a.png") as image:
        assert image.size == (304, 208)


def test_auto_says_which_model_runs_and_why(uso: Callable[..., Ran]) -> None:
    ran = uso("generate", "--device", "cpu", *SMALL[2:])
    assert "The CPU was requested, and FLUX.1-dev needs a GPU." in ran.err
    assert output.read(ran.pictures[0]).model["name"] == "demo"


def test_a_folder_whose_name_is_no_utf_8_is_named_by_its_bytes() -> None:
    """Catches an error after the picture is saved: a script would take it for a failure, and not learn the path."""
    name = "f\udce9e/\u30ab"
    script = f"from pathlib import Path; from uso.terminal import print_path; print_path(Path({name!a}))"
    for encoding in ("utf-8", "ascii"):
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, check=True)
        assert ran.stdout == os.fsencode(name) + b"\n"


def test_output_names_a_file_or_a_folder(uso: Callable[..., Ran]) -> None:
    assert uso("generate", *SMALL, "--output", "new/fox.png").out == ["new/fox.png"]
    assert Path(uso("generate", *SMALL, "--output", "folder.d").out[0]).parent == Path("folder.d")
    assert Path(uso("generate", *SMALL).out[0]).parent == Path("outputs")
    assert uso("generate", *SMALL, "--output", "~fox.png").out == ["~fox.png"]
    Path("folder.png").mkdir()
    assert Path(uso("generate", *SMALL, "--images", 2, "--output", "folder.png").out[0]).parent == Path("folder.png")


# Refusals.


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--model", "typo"), "There is no model 'typo'. Choose one of: demo, flux-dev"),
        (("--memory", "typo"), "There is no memory plan 'typo'. Choose one of: auto, 12gb"),
        (("--device", "tpu"), "There is no device 'tpu'. Choose"),
        (("--vae", "nowhere.safetensors"), "--vae nowhere.safetensors: there is no such file or folder."),
        (("--width", 100), "Width is 100; a whole number from 128 to 384 is allowed."),
        (("--height", 130), "Height is 130; it must be a multiple of 16 from 128 to 384."),
        (("--steps", 51), "Number of steps is 51; a whole number from 1 to 50 is allowed."),
        (("--guidance", 6), "Guidance is 6.0; a number from 1 to 5 is allowed."),
        (("--content-size", 512), "Content reference size is 512; a whole number from 64 to 256 is allowed."),
        (("--seed", 2**32), "Seed is 4294967296; 0 to 4294967295 is allowed, or -1 for a random one."),
        (("--images", 65), "Number of images is 65; a whole number from 1 to 64 is allowed."),
        (("--schedule", "karras"), "Schedule is 'karras'; 'uso', 'flux' or a number for mu from -10 to 10 is allowed."),
        (("--prompt", "a\0b"), "The prompt holds a NUL character."),
        (("--content", "nowhere.png"), "The image nowhere.png could not be read (No such file or directory)."),
        (("--style", "notes.txt"), "notes.txt is not a picture this program can read (try PNG, JPEG or WebP)."),
        (("--content", "pole.png", "--content-size", 64), "pole.png is too long and thin: 20 x 300 becomes 4 x 64"),
        (("--keep-size",), "Keep input size needs a content image. Add one, or switch it off."),
        (("--keep-size", "--content", "long.png"), "Keep input size cannot keep 60 x 450: at most 384:64 (6 to 1)"),
        (
            ("--keep-size", "--width", 128),
            "--keep-size takes the size from the content image: leave out --width and --height.",
        ),
        (("--images", 2, "--output", "a.png"), "--output a.png names one file, which cannot hold several pictures."),
        (("--output", "a.jpg"), "a.jpg does not end in .png; pictures are PNG files, which hold their request."),
        (("--output", "pole.png"), "pole.png exists already, and nothing is overwritten."),
        (("--output", "notes.txt/out"), "Pictures cannot be written to notes.txt/out (Not a directory)."),
        (("--output", "x" * 300 + ".png"), "(File name too long). Choose another"),
        (("--output", "x" * 300), "(File name too long). Choose another"),
        (("--from", "pole.png"), "pole.png holds no request: it was not made by this program"),
        (("--from", "nowhere.png"), "There is no file nowhere.png."),
        (("--batch", "nowhere.json"), "The batch file nowhere.json could not be read (No such file or directory)."),
    ],
    ids=lambda value: " ".join(map(str, value))[:40] if isinstance(value, tuple) else "",
)
def test_refusals_are_one_sentence_and_come_before_the_model(
    uso: Callable[..., Ran],
    nothing_loads: None,
    picture_file: Callable[..., Path],
    flags: tuple[object, ...],
    sentence: str,
) -> None:
    picture_file("pole.png", 20, 300)
    picture_file("long.png", 60, 450)
    Path("notes.txt").write_text("no picture")
    before = sorted(path.name for path in Path().iterdir())
    ran = uso("generate", "--model", "demo", *flags)
    assert (ran.status, ran.out) == (2, [])
    assert sentence in ran.err and ran.err.count("\n") == 1
    left = {path.name for path in Path().iterdir() if path.is_file()} - set(before)
    assert not left


def test_debug_shows_where_an_error_arose(uso: Callable[..., Ran]) -> None:
    assert "Traceback" not in uso("generate", "--model", "typo").err
    ran = uso("generate", "--model", "typo", "--debug")
    assert "Traceback" in ran.err and ran.err.splitlines()[-1].startswith("There is no model 'typo'.")


@pytest.mark.parametrize(
    "argv", [(), ("paint",), ("generate", "--seed", "x"), ("generate", "--from", "a", "--batch", "b")]
)
def test_wrong_usage_is_refused_by_the_parser(uso: Callable[..., Ran], argv: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as stopped:
        uso(*argv)
    assert stopped.value.code == 2


def test_flags_are_not_abbreviated(uso: Callable[..., Ran]) -> None:
    """`--out` in somebody's script would break when a second flag of that beginning comes."""
    with pytest.raises(SystemExit):
        uso("generate", "--out", "a.png")


def test_weights_that_are_not_here_are_named_with_the_remedy(
    uso: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(Path("empty-cache").absolute()))
    ran = uso("generate", "--model", "flux-dev", "--offline", "--device", "cpu")
    assert ran.status == 2 and "python -m uso download --model flux-dev" in ran.err


def test_ctrl_c_is_one_line_and_keeps_what_is_finished(uso: Callable[..., Ran]) -> None:
    def interrupt() -> None:
        while not list(Path("out").glob("*.png")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    ran = uso("generate", *SMALL, "--images", 64, "--output", "out")
    assert ran.status == 130
    assert ran.err == "Stopped. Pictures that were finished are kept.\n"
    assert 0 < len(list(Path("out").glob("*.png"))) < 64
    assert not list(Path("out").glob(".*"))


# Repeating.


def test_a_picture_is_repeated_to_the_bit_when_its_sources_are_gone(
    uso: Callable[..., Ran], picture_file: Callable[..., Path]
) -> None:
    files = [picture_file(name, 180, 140, seed) for seed, name in enumerate(("content.png", "s1.png", "s2.png"))]
    images = ("--content", files[0], "--style", files[1], "--style", files[2])
    values = ("--prompt", "一只狐狸", "--keep-size", "--steps", 3, "--guidance", 2, "--content-size", 96, "--seed", 11)
    model = ("--model", "demo", "--lora-scale", 0.5, "--dtype", "bfloat16", "--schedule", "flux", "--tiled-decode")
    (first,) = uso("generate", *model, *images, *values, "--output", "first").pictures
    for file in files:
        file.unlink()
    ran = uso("generate", "--from", first, "--output", "second")
    assert pixels(ran.pictures[0]) == pixels(first)
    assert request_of(ran.pictures[0]) == request_of(first)
    assert output.read(ran.pictures[0]).model == output.read(first).model
    assert "not promised" not in ran.err
    again = uso("generate", "--from", ran.pictures[0], "--output", "third")  # the copy can be repeated as well
    assert pixels(again.pictures[0]) == pixels(first)


def test_flags_beside_from_change_single_values(uso: Callable[..., Ran], picture_file: Callable[..., Path]) -> None:
    content = picture_file("a.png", 200, 150)
    values = ("--prompt", "fox", "--steps", 2, "--seed", 1, "--keep-size", "--tiled-decode")
    (first,) = uso("generate", "--model", "demo", "--content", content, *values, "--output", "first").pictures
    changed: dict[tuple[object, ...], dict[str, Any]] = {
        ("--seed", 2): {"seed": 2},
        ("--prompt", ""): {"prompt": ""},
        ("--steps", 1): {"num_inference_steps": 1},
        ("--no-tiled-decode",): {"tiled_decode": False},
        ("--width", 128): {"width": 128, "keep_input_size": False},
    }
    for flags, new in changed.items():
        (path,) = uso("generate", "--from", first, *flags).pictures
        assert request_of(path) == request_of(first) | new
    assert len(uso("generate", "--from", first, "--images", 2).pictures) == 2


def test_a_lost_reference_is_named_and_can_be_given_again(
    uso: Callable[..., Ran], picture_file: Callable[..., Path]
) -> None:
    content, style = picture_file("cat.png", seed=1), picture_file("ink.png", seed=2)
    (first,) = uso("generate", *SMALL, "--content", content, "--style", style, "--seed", 1, "--output", "out").pictures
    shutil.rmtree("out/references")
    ran = uso("generate", "--from", first)
    assert ran.status == 2 and "The content image 'cat.png'" in ran.err and "--content FILE" in ran.err
    ran = uso("generate", "--from", first, "--content", content)
    assert ran.status == 2 and "The style image 'ink.png'" in ran.err and "--style FILE" in ran.err
    ran = uso("generate", "--from", first, "--content", content, "--style", style)
    assert pixels(ran.pictures[0]) == pixels(first) and "place" not in ran.err


def test_references_are_found_in_the_output_folder_too(
    uso: Callable[..., Ran], picture_file: Callable[..., Path]
) -> None:
    (first,) = uso("generate", *SMALL, "--style", picture_file("ink.png"), "--output", "out").pictures
    Path("mailed").mkdir()
    moved = first.rename(Path("mailed") / "renamed.png")
    ran = uso("generate", "--from", moved, "--output", "out")
    assert pixels(ran.pictures[0]) == pixels(moved)


def test_another_image_takes_a_recorded_ones_place_and_that_is_said(
    uso: Callable[..., Ran], picture_file: Callable[..., Path]
) -> None:
    """Given by mistake for a lost one, it would pass for the repetition."""
    (first,) = uso("generate", *SMALL, "--content", picture_file("cat.png", seed=1), "--output", "out").pictures
    shutil.rmtree("out/references")
    ran = uso("generate", "--from", first, "--content", picture_file("dog.png", seed=2))
    assert "dog.png: not among the recorded content images; used in their place." in ran.err
    assert [entry["name"] for entry in request_of(ran.pictures[0])["content_images"]] == ["dog.png"]
    assert pixels(ran.pictures[0]) != pixels(first)


def test_what_differs_from_the_record_is_said(uso: Callable[..., Ran]) -> None:
    """Without a word, a picture from other weights or versions would pass for the repetition."""
    (first,) = uso("generate", *SMALL, "--output", "out").pictures
    ran = uso("generate", "--from", first, "--dtype", "bfloat16", "--lora-scale", 0.5)
    assert "the same bits are not promised: lora_scale was 1.0, is 0.5; dtype was float32, is bfloat16." in ran.err

    def older(record: dict[str, Any]) -> None:
        record["model"]["versions"].update(torch="2.0.0", uso="0.0.1")
        record["model"]["device"] = "cpu (riscv)"
        record["model"]["components"]["vae"]["fingerprint"] = "0" * 64
        record["model"]["components"]["lora"] = {"repo": "bytedance-research/USO", "commit": "1" * 40}

    ran = uso("generate", "--from", rerecorded(first, older))
    for words in ("torch was 2.0.0, is ", "uso was 0.0.1, is ", "device was cpu (riscv), is "):
        assert words in ran.err
    assert "the files of vae are others; the files of lora are others." in ran.err
    assert "files of transformer" not in ran.err
    assert ran.status == 0
    ran = uso(
        "generate", "--from", rerecorded(first, lambda record: record["model"].update(versions="x", components=[]))
    )
    assert ran.status == 0 and "torch was None, is " in ran.err


def test_a_guidance_scale_is_not_carried_over_to_a_model_that_takes_none(uso: Callable[..., Ran]) -> None:
    """It would be refused with "leave it out", which nobody could do."""
    picture = output.read(uso("generate", *SMALL, "--output", "out").pictures[0])
    values = generate_module.repeated_values(picture, {}, load_model_config("flux-schnell"), Path("out"))
    assert (values["guidance_scale"], picture.values()["guidance_scale"]) == (None, 2.0)


def test_recorded_device_that_is_not_here_is_refused_with_the_choice(uso: Callable[..., Ran]) -> None:
    (first,) = uso("generate", *SMALL, "--output", "out").pictures
    there = {"device": "cuda:7 (NVIDIA H200)", "compiled": True, "plan": "16gb"}
    moved = rerecorded(first, lambda record: record["model"].update(there))
    ran = uso("generate", "--from", moved)
    assert ran.status == 2 and "There is no device 'cuda:7'" in ran.err
    assert ran.err.endswith("The picture was made there; give --device auto or --device cpu.\n")
    for device in ("cpu", "auto"):  # what was so on the other device is not carried over: compiled, a plan that streams
        ran = uso("generate", "--from", moved, "--device", device)
        assert ran.status == 0 and "device was cuda:7 (NVIDIA H200), is cpu" in ran.err
        assert "plan was 16gb, is cpu; " in ran.err and "compiled was True, is False" in ran.err


def test_a_picture_of_compiled_blocks_can_be_made_uncompiled(
    uso: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an `auto` that is taken for nothing said, and a refusal of what nobody asked for."""
    (first,) = uso("generate", *SMALL, "--output", "out").pictures
    compiled = rerecorded(first, lambda record: record["model"].update(compiled=True))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    ran = uso("generate", "--from", compiled)
    assert ran.status == 2 and "--compile on: No C compiler was found" in ran.err
    assert ran.err.endswith("The picture was made with compiled blocks; give --compile off.\n")
    for choice in ("off", "auto"):
        ran = uso("generate", "--from", compiled, "--compile", choice)
        assert ran.status == 0 and "compiled was True, is False" in ran.err


def test_a_picture_of_ones_own_model_is_repeated_with_its_file(uso: Callable[..., Ran], nothing_loads: None) -> None:
    info = PngImagePlugin.PngInfo()
    record = {
        "format": output.FORMAT,
        "model": {"name": "my model"},
        "request": {"content_images": [], "style_images": []},
    }
    info.add_itxt(output.CHUNK, json.dumps(record))
    Image.new("RGB", (16, 16)).save("mine.png", pnginfo=info)
    ran = uso("generate", "--from", "mine.png")
    assert ran.status == 2 and ran.err == (
        "The picture was made with a model called 'my model', which does not come with the program. Name its file: "
        "--model FILE.yaml.\n"
    )


def test_hostile_records_are_refused_in_words(uso: Callable[..., Ran], nothing_loads: None) -> None:
    Image.new("RGB", (16, 16)).save("a.png")
    entry = {"sha256": "../../etc/passwd", "name": "a.png"}
    lost = {"sha256": "0" * 64, "name": "\x1b[31mred"}
    requests: list[tuple[dict[str, Any], str]] = [
        ({"content_images": [entry], "style_images": []}, "something other than a SHA-256"),
        ({"content_images": [], "style_images": [lost]}, r"The style image '\x1b[31mred'"),
        ({"content_images": [], "style_images": [], "width": "wide"}, "Width is 'wide'"),
        ({"content_images": [], "style_images": [], "config": 1}, "damaged request"),
    ]
    for request, sentence in requests:
        info = PngImagePlugin.PngInfo()
        model = {"name": "demo", "plan": ["x"], "lora_scale": "x"}
        record = {"format": output.FORMAT, "model": model, "request": request}
        info.add_itxt(output.CHUNK, json.dumps(record))
        Image.new("RGB", (16, 16)).save("hostile.png", pnginfo=info)
        ran = uso("generate", "--from", "hostile.png", "--memory", "full")
        assert ran.status == 2 and sentence in ran.err


# The other verbs.


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
    assert Accounts(Path("accounts"), b"key").check("alice", "correct horse")
    monkeypatch.setattr(sys, "stdin", io.StringIO("battery staple"))
    assert uso("account", "accounts", "alice").err == "alice has a new password in accounts.\n"
    assert Accounts(Path("accounts"), b"key").check("alice", "battery staple")
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
