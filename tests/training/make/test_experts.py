"""Triplets by experts: real classes of diffusers and transformers at toy size, filters, reports, runs that go on."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from tests.conftest import draw_picture
from tests.evaluation.metrics.test_csd import saved
from tests.support.experts import CONFIG
from tests.support.hub_server import HubServer, Repository
from tests.support.tiny_encoders import csd_checkpoint
from uso.cli.main import REFUSED
from uso.config import ROOT
from uso.errors import ConfigError
from uso.images.pixels import open_image
from uso.training.data.check import check_rows
from uso.training.data.rows import read_rows
from uso.training.make.config import load_experts_config
from uso.training.make.experts import Experts, make_references, make_triplets, plan


class Mirror:
    """A small expert: mirrors for the style reference, softens for the content reference; counts its work."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.calls: list[tuple[str, int]] = []
        self.stop_after = stop_after

    def edit(self, picture: Image.Image, instruction: str, seed: int) -> Image.Image:
        if self.stop_after is not None and len(self.calls) >= self.stop_after:
            raise KeyboardInterrupt
        self.calls.append((instruction, seed))
        if "Show" in instruction:
            return ImageOps.mirror(picture)
        return picture.filter(ImageFilter.GaussianBlur(2)).resize((50, 50))


class Colours:
    """A small scorer: how far a picture's mean colours lie from grey."""

    def vectors(self, pictures: list[Image.Image]) -> NDArray[np.float32]:
        means = np.array([np.asarray(picture.resize((2, 2)), np.float32).reshape(-1) - 128 for picture in pictures])
        return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)


def opened(path: Path) -> Image.Image:
    return open_image(path.read_bytes())


def experts(editor: Mirror) -> Experts:
    scorer = Colours()
    return Experts(lambda: editor, lambda: editor, lambda: scorer, lambda: scorer)


def test_references_rows_and_report(pictures: Path, tmp_path: Path) -> None:
    """Catches references under each other's names, a moved layout without words, and rows the checker refuses."""
    output, editor = tmp_path / "out", Mirror()
    report = make_triplets(pictures, output, CONFIG, experts(editor))
    assert report["kept"] == 3 and report["dropped"] == 0 and report["layouts"] == {"kept": 2, "moved": 1}
    assert check_rows(output / "rows.jsonl").problems == ()
    rows = read_rows(output / "rows.jsonl")
    assert sorted(row.prompt for row in rows) == ["", "", "A fox in the snow."]
    for row in rows:
        assert set(row.labels["scores"]) == {"style", "subject", "leak"}
        target, style, content = (opened(output / str(name)) for name in (row.target, row.styles[0], row.content))
        assert target.size == (96, 64) and np.array_equal(np.asarray(ImageOps.mirror(target)), np.asarray(style))
        assert content.size == target.size
    asked = [instruction for instruction, _ in editor.calls]
    assert sorted(asked[3:]) == ["A photograph.", "A photograph.", "Elsewhere."]
    assert set(asked[:3]) <= {"Show a fox.", "Show a cup."}
    assert json.loads((output / "report.json").read_text()) == report


def test_filters_drop_with_a_reason(pictures: Path, tmp_path: Path) -> None:
    """Catches a threshold that is not applied, a wrong reason, and pictures made again for new thresholds."""
    output, editor = tmp_path / "out", Mirror()
    make_triplets(pictures, output, CONFIG, experts(editor))
    scores = json.loads((output / "scores.json").read_text())
    styles = sorted(score["style"] for score in scores.values())
    between = (styles[0] + styles[1]) / 2
    strict = CONFIG.model_copy(update={"filters": CONFIG.filters.model_copy(update={"min_style": between})})
    report = make_triplets(pictures, output, strict, experts(editor))
    assert (report["kept"], report["dropped"], report["reasons"]) == (2, 1, {"style": 1})
    ((name, why),) = report["pictures"].items()
    assert why == f"style: the style reference's CSD cosine is {styles[0]}, under {between}"
    assert f"{name}: {why}" in (output / "report.txt").read_text()
    leaky = CONFIG.model_copy(update={"filters": CONFIG.filters.model_copy(update={"max_leak": -1.0})})
    assert make_triplets(pictures, output, leaky, experts(editor))["reasons"] == {"leak": 3}
    assert len(editor.calls) == 6


def test_pictures_that_cannot_be_used_are_dropped_and_named(pictures: Path, tmp_path: Path) -> None:
    """Catches one broken file that ends a run of days, and one picture that counts twice."""
    (pictures / "broken.png").write_bytes((pictures / "one.png").read_bytes()[:200])
    (pictures / "zz.png").write_bytes((pictures / "one.png").read_bytes())
    draw_picture(900, 90).save(pictures / "long.png")
    report = make_triplets(pictures, tmp_path / "out", CONFIG, experts(Mirror()))
    assert report["kept"] == 3
    assert set(report["pictures"]) == {"broken.png", "zz.png", "long.png"}
    assert report["pictures"]["zz.png"] == "the same file as one.png"
    assert report["reasons"] == {"picture": 3}


def test_copies_of_other_systems_are_skipped(pictures: Path, tmp_path: Path) -> None:
    """Catches thumbnails of notebooks, file servers and macOS that are learned from, or that fill the report."""
    for place in (".ipynb_checkpoints", "@eaDir/one.png", "deep/@eaDir", "__MACOSX", "#recycle", ".Trash-1000"):
        (pictures / place).mkdir(parents=True)
        draw_picture(120, 90, len(place)).save(pictures / place / "one-copy.png")
    for name in ("._one.png", "deep/._three.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (pictures / name).write_bytes(b"\0\5\x16\7")
    report = make_triplets(pictures, tmp_path / "out", CONFIG, experts(Mirror()))
    assert (report["kept"], report["pictures"]) == (3, {})


def test_of_duplicates_the_one_with_a_caption_stays(pictures: Path, tmp_path: Path) -> None:
    """Catches a caption that is lost because its picture lies in the folder twice."""
    (pictures / "a copy.png").write_bytes((pictures / "one.png").read_bytes())
    with Image.open(pictures / "two.jpg") as picture:
        picture.save(pictures / "two.png")
    (pictures / "two.jpg.txt").write_text("A cup.")
    draw_picture(120, 90, 7).save(pictures / "both.png")
    draw_picture(120, 90, 7).save(pictures / "both.jpg")
    (pictures / "both.txt").write_text("A boat.")
    jobs, dropped = plan(pictures, tmp_path / "out", CONFIG)
    captions = {job.name: job.caption for job in jobs if job.caption}
    assert captions == {"both.png": "A boat.", "one.png": "A fox in the snow.", "two.jpg": "A cup."}
    assert dropped == {
        "a copy.png": "the same file as one.png",
        "both.jpg": "named like both.png; rename it if it is another picture",
        "two.png": "named like two.jpg; rename it if it is another picture",
    }


@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig", "utf-16"])
def test_captions_may_have_a_mark(pictures: Path, tmp_path: Path, mark: str) -> None:
    (pictures / "one.txt").write_bytes("Ein Café\r\nim Schnee".encode(mark))
    jobs, _ = plan(pictures, tmp_path / "out", CONFIG)
    assert [job.caption for job in jobs if job.name == "one.png"] == ["Ein Café im Schnee"]


@pytest.mark.parametrize("form", ["cp1252", "utf-16-le", "utf-16-be"])
def test_a_caption_that_is_no_utf8_costs_its_row_alone(pictures: Path, tmp_path: Path, form: str) -> None:
    """Catches one text file of another machine that ends the whole run."""
    (pictures / "one.txt").write_bytes("Ein Café im Schnee".encode(form))
    report = make_triplets(pictures, tmp_path / "out", CONFIG, experts(Mirror()))
    assert report["kept"] == 2
    assert report["pictures"] == {"one.png": "its caption one.txt is not UTF-8 text; save it as UTF-8"}


def test_linked_folders_are_read_once(pictures: Path, tmp_path: Path) -> None:
    """Catches pictures on another disk that are left out in silence, and a link to its own folder that never ends."""
    outside = tmp_path / "disk"
    outside.mkdir()
    draw_picture(120, 90, 8).save(outside / "four.png")
    (pictures / "disk").symlink_to(outside)
    (pictures / "again").symlink_to(pictures)
    jobs, dropped = plan(pictures, tmp_path / "out", CONFIG)
    assert [job.name for job in jobs] == ["deep/three.png", "disk/four.png", "one.png", "two.jpg"] and dropped == {}


def test_a_stopped_run_goes_on(pictures: Path, tmp_path: Path) -> None:
    """Catches work done twice, half a picture, and another picture than an unbroken run would make."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    make_triplets(pictures, whole, CONFIG, experts(Mirror()))
    first, second = Mirror(stop_after=4), Mirror()
    with pytest.raises(KeyboardInterrupt):
        make_triplets(pictures, broken, CONFIG, experts(first))
    (broken / "content" / "leftover.png.part").write_bytes(b"half")
    make_triplets(pictures, broken, CONFIG, experts(second))
    assert len(first.calls) + len(second.calls) == 6
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert all((whole / name).read_bytes() == (broken / name).read_bytes() for name in names)


def test_what_is_asked_depends_on_the_picture_alone(pictures: Path, tmp_path: Path) -> None:
    """Catches a draw by position: one picture more would change what all others are asked for."""
    before, _ = plan(pictures, tmp_path / "a", CONFIG)
    draw_picture(100, 100, 9).save(pictures / "aaa.png")
    after, _ = plan(pictures, tmp_path / "b", CONFIG)
    assert len(after) == 4 and set(before) <= set(after)


def test_other_settings_are_refused(pictures: Path, tmp_path: Path) -> None:
    """Catches a data set that is half one thing and half another."""
    make_triplets(pictures, tmp_path / "out", CONFIG, experts(Mirror()))
    with pytest.raises(ConfigError, match="was made with another 'size'"):
        make_triplets(pictures, tmp_path / "out", CONFIG.model_copy(update={"size": 64}), experts(Mirror()))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no pictures"):
        make_triplets(tmp_path / "empty", tmp_path / "other", CONFIG, experts(Mirror()))


# Configurations


def test_the_configuration_that_ships() -> None:
    """Catches a typo in the shipped file, which would surface on somebody's rented machine."""
    config = load_experts_config("flux-kontext")
    assert config.stylization.pipeline == "FluxKontextPipeline" and config.destylization.moved


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sise": 1}, "sise: Extra inputs are not permitted"),
        ({"stylization": None}, "stylization: Input should be"),
        (
            {"stylization": {"repo": "a", "instructions": ["Show it."], "subjects": ["a"]}},
            "every instruction must hold {subject}",
        ),
    ],
)
def test_wrong_configurations_are_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    """Catches a key that is ignored, and an instruction that would show the same subject again."""
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(json.loads(CONFIG.model_dump_json()) | change))
    with pytest.raises(ConfigError) as error:
        load_experts_config(str(path))
    assert says in str(error.value)


@pytest.mark.slow
def test_a_licence_that_is_not_accepted_is_named(pictures: Path, tmp_path: Path) -> None:
    """Catches "401 Client Error." for the first thing that everybody meets who makes triplets at full size."""
    repo = load_experts_config("flux-kontext").stylization.repo
    parts = {"_class_name": "FluxKontextPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    files = {"model_index.json": json.dumps(parts).encode(), "transformer/config.json": b"{}"}
    csd = saved(tmp_path / "csd.bin", csd_checkpoint())
    command = [sys.executable, "-m", "uso", "train.data", "make", str(pictures)]
    command += ["--output", str(tmp_path / "out"), "--csd", str(csd)]
    with HubServer() as hub:
        hub.repositories[repo] = Repository(files, gated=True)
        places = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}
        done = subprocess.run(command, cwd=ROOT, env=os.environ | places, capture_output=True, text=True, check=False)
    assert done.returncode == REFUSED
    assert f"{repo} is gated, and no access token is set. Accept its licence on" in done.stderr
    assert "run `python -m uso train.data make`" in done.stderr and "Traceback" not in done.stderr


def test_shares_fill_one_folder(pictures: Path, tmp_path: Path) -> None:
    """Catches shares that overlap or leave a picture out, and a last call that makes their references again."""
    output, editors = tmp_path / "out", (Mirror(), Mirror(), Mirror())
    for part, editor in enumerate(editors[:2], start=1):
        jobs, _ = make_references(pictures, output, CONFIG, experts(editor), part=(part, 2))
        assert len(editor.calls) == 2 * len(jobs) and not (output / "rows.jsonl").exists()
    assert [len(editor.calls) for editor in editors[:2]] == [4, 2]
    assert make_triplets(pictures, output, CONFIG, experts(editors[2]))["kept"] == 3
    assert editors[2].calls == [] and not list(output.rglob("*.part"))
