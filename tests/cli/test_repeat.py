"""`generate --from`: a picture is made again from its record, and what differs is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from tests.support.commands import SMALL, Ran, pixels, request_of, rerecorded
from uso import output
from uso.cli.pictures import generate as generate_module
from uso.config import load_model_config


def test_a_picture_is_repeated_to_the_bit_when_its_sources_are_gone(
    uso: Callable[..., Ran], loaded_anew: None, picture_file: Callable[..., Path]
) -> None:
    files = [picture_file(name, 180, 140, seed) for seed, name in enumerate(("content.png", "s1.png", "s2.png"))]
    images = ("--content", files[0], "--style", files[1], "--style", files[2])
    values = ("--prompt", "fox 狐狸", "--keep-size", "--steps", 3, "--guidance", 2, "--content-size", 96, "--seed", 11)
    strengths = ("--style-strength", 0.5, "--style-strength", 1.5)
    model = (
        *strengths,
        "--model",
        "demo",
        "--lora-scale",
        0.5,
        "--dtype",
        "bfloat16",
        "--schedule",
        "flux",
        "--tiled-decode",
    )
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
        ("--width", 128, "--height", 128): {"width": 128, "height": 128, "keep_input_size": False},
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


def test_strengths_belong_to_their_styles(uso: Callable[..., Ran], picture_file: Callable[..., Path]) -> None:
    """Catches another image that takes over the recorded one's strength, and a strength that is not changed alone."""
    ink, oil = picture_file("ink.png", seed=1), picture_file("oil.png", seed=2)
    styled = ("--style", ink, "--style-strength", 0.5)
    (first,) = uso("generate", *SMALL, *styled, "--output", "out").pictures
    assert request_of(first)["style_strengths"] == [0.5]
    assert request_of(*uso("generate", "--from", first, "--style-strength", 2).pictures)["style_strengths"] == [2.0]
    assert request_of(*uso("generate", "--from", first, "--style", oil).pictures)["style_strengths"] == [1.0]
    older = rerecorded(first, lambda record: record["request"].pop("style_strengths"))
    assert request_of(*uso("generate", "--from", older).pictures)["style_strengths"] == [1.0]


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
