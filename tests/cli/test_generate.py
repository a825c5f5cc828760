"""`python -m uso generate`, run as a person or a script would, with the demo model: what it makes and refuses."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from PIL import Image

from tests.support.commands import SMALL, Ran, pixels, request_of
from tests.support.scripted import until
from uso import output
from uso.config import ROOT


def test_twice_with_one_seed_gives_identical_pixels(uso: Callable[..., Ran], loaded_anew: None) -> None:
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
    uso: Callable[..., Ran], loaded_anew: None, monkeypatch: pytest.MonkeyPatch
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
    strengths = ("--style-strength", 0.5, "--style-strength", 1.5)
    (path,) = uso(
        "generate", "--model", "demo", "--prompt", "a fox, 狐狸", *images, *size, *values, *strengths
    ).pictures
    request = request_of(path)
    assert [entry["name"] for entry in request.pop("content_images")] == ["a.png", "b.png"]
    assert [entry["name"] for entry in request.pop("style_images")] == ["c.png", "d.png"]
    assert request == {
        "prompt": "a fox, 狐狸",
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
        "style_strengths": [0.5, 1.5],
    }


def test_keep_size_shows_the_size_it_used(uso: Callable[..., Ran], picture_file: Callable[..., Path]) -> None:
    content = picture_file("wide.png", 300, 200)
    ran = uso("generate", "--model", "demo", "--steps", 1, "--content", content, "--keep-size", "--output", "a.png")
    assert "256 x 176" in ran.err
    with Image.open("a.png") as image:
        assert image.size == (256, 176)


def test_auto_says_which_model_runs_and_why(uso: Callable[..., Ran]) -> None:
    ran = uso("generate", "--device", "cpu", *SMALL[2:])
    reason = "The CPU was requested, and FLUX.1-dev needs a GPU, so the demo model draws this."
    assert reason in ran.err.splitlines()
    model = output.read(ran.pictures[0]).model
    assert (model["name"], model["why"]) == ("demo", reason)
    again = uso("generate", "--from", ran.pictures[0], "--output", "again")
    assert "why" not in again.err and output.read(again.pictures[0]).model.get("why") is None


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
        (("--width", 100), "Width is 100; a whole number from 128 to 256 is allowed."),
        (("--height", 130), "Height is 130; it must be a multiple of 16 from 128 to 256."),
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
        (("--keep-size", "--content", "long.png"), "Keep input size cannot keep 60 x 450: at most 256:64 (4 to 1)"),
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


def test_a_prompt_is_translated_and_both_texts_are_recorded(
    uso: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a flag that loads the hook and does not ask it, and a typed prompt that is lost on repeating."""
    monkeypatch.syspath_prepend(str(Path.cwd()))
    Path("dictionary.py").write_text("def english(prompt):\n    return {'狐狸': 'fox'}[prompt]\n", encoding="utf-8")
    ran = uso("generate", *SMALL, "--prompt", "狐狸", "--translate", "dictionary:english", "--output", "out")
    assert ran.status == 0, ran.err
    again = uso("generate", "--from", ran.pictures[0], "--output", "again")
    for path in (*ran.pictures, *again.pictures):
        assert (request_of(path)["prompt"], output.read(path).record["typed_prompt"]) == ("fox", "狐狸")
    ran = uso("generate", *SMALL, "--prompt", "雪地里的狐狸")
    assert (ran.status, ran.out) == (2, []) and "Write it in English." in ran.err


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
        until(lambda: list(Path("out").glob("*.png")))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    ran = uso("generate", *SMALL, "--images", 64, "--output", "out")
    assert ran.status == 130
    assert ran.err == "Stopped. Pictures that were finished are kept.\n"
    assert 0 < len(list(Path("out").glob("*.png"))) < 64
    assert not list(Path("out").glob(".*"))
