"""Lists as the released `inference.py` reads them, whatever else they hold, and where each picture is."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import draw_picture
from uso.errors import ConfigError
from uso.evaluation.bench.entries import SEED, Bench, read_bench
from uso.evaluation.pictures import claim, read_run, results


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("dog/00.jpg", "dog/01.jpg", "cup/00.jpg", "ink.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        draw_picture(20, 16, number).save(tmp_path / name)
    return tmp_path


ROWS: list[dict[str, Any]] = [
    {"prompt": "a dog in the jungle", "image_paths": ["dog/01.jpg"], "image_tgt_path": "dog/01.jpg", "more": {"x": 1}},
    {"prompt": "", "image_paths": ["cup/00.jpg", "ink.png"], "save_dir": "kept/cup"},
    {"prompt": "the cup", "image_paths": ["cup/00.jpg", "ink.png"], "save_dir": "moved"},
    {"prompt": "a boat", "image_paths": ["", "ink.png"]},
    {"prompt": "a hill"},
]


def written(folder: Path, rows: Any, **options: Any) -> Bench:
    (folder / "list.json").write_text(json.dumps(rows))
    return read_bench(folder / "list.json", **options)


def test_upstream_s_list_is_read_as_it_is(folder: Path) -> None:
    """Catches a list that must be rewritten first, and a task that is guessed wrong."""
    bench = written(folder, ROWS, images=2)
    assert [entry.task for entry in bench.entries] == ["subject", "joint-kept", "joint-moved", "style", "text"]
    assert [entry.id for entry in bench.entries] == ["0", "kept/cup", "moved", "3", "4"]
    assert {(entry.images, entry.seed) for entry in bench.entries} == {(2, SEED)}
    assert set(bench.references) == {"dog/01.jpg", "cup/00.jpg", "ink.png"}


def test_pictures_have_upstream_s_names(folder: Path) -> None:
    """Catches another counting: `{save_dir}_{j}.png`, and the place in the list where there is no save_dir."""
    bench = written(folder, ROWS, images=2)
    names = [str(each.path) for each in results(bench, Path("out"), "upstream")]
    assert names[:4] == ["out/0_0.png", "out/0_1.png", "out/kept/cup_0.png", "out/kept/cup_1.png"]
    own = results(bench, Path("out"))[3]
    assert (str(own.path), own.seed) == (f"out/kept/cup_seed{SEED + 1}.png", SEED + 1)


def test_all_pictures_of_a_folder_may_show_the_subject(folder: Path) -> None:
    """Catches DreamBench scored by one picture of each subject, and a model that is given another one than the list
    says."""
    bench = written(folder, ROWS, siblings=True)
    assert [file.name for file in bench.references["dog"].files] == ["00.jpg", "01.jpg"]
    assert bench.entries[0].paths == ("dog/01.jpg",)


def test_a_change_makes_another_benchmark(folder: Path) -> None:
    """Catches scores that are compared although prompts or references differ."""
    digest = written(folder, ROWS).digest
    assert written(folder, ROWS).digest == digest
    assert written(folder, [{**ROWS[0], "prompt": "a dog"}, *ROWS[1:]]).digest != digest
    draw_picture(20, 16, 9).save(folder / "ink.png")
    assert written(folder, ROWS).digest != digest


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ({}, "must hold a list of entries"),
        ([{"image_paths": []}], 'entry 1: it has no "prompt"'),
        ([{"prompt": "x", "image_paths": ["none.png"]}], "entry 1: there is no picture .*none.png"),
        ([{"prompt": "x", "image_paths": ["ink.png", ""]}], "is a list of paths"),
        ([{"prompt": "x", "save_dir": "../up"}], "no name inside the folder"),
        ([{"prompt": "x", "save_dir": "/up"}], "no name inside the folder"),
        ([{"prompt": "x", "images": 0}], '"images" is 0; 1 to'),
        ([{"prompt": "x", "task": "other"}], "is one of subject, style"),
        ([{"prompt": "x", "save_dir": "a"}, {"prompt": "y", "save_dir": "a"}], "two entries have the save_dir 'a'"),
    ],
)
def test_wrong_entries_are_named(folder: Path, rows: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        written(folder, rows)


def test_a_folder_of_results_stays_what_it_is(folder: Path) -> None:
    """Catches pictures of two models, or of two benchmarks, in one folder under one name."""
    bench, out = written(folder, ROWS), folder / "out"
    claim(out, bench, {"files": {"a": "12", "b": "0"}, "steps": 5})
    claim(out, bench, {"files": {"a": "12", "b": "0"}, "steps": 4})  # nothing was made yet
    (out / "moved_seed3407.png").write_bytes(b"made")
    claim(out, bench, {"files": {"a": "12", "b": "0"}, "steps": 4})
    with pytest.raises(ConfigError, match="another run: files a was 12, is 13; steps was 4, is 5. Choose another"):
        claim(out, bench, {"files": {"a": "13", "b": "0"}, "steps": 5})
    draw_picture(20, 16, 9).save(folder / "ink.png")
    with pytest.raises(ConfigError, match="its benchmark was another"):
        claim(out, written(folder, ROWS), {"files": {"a": "12", "b": "0"}, "steps": 4})
    with pytest.raises(ConfigError, match="holds no run.json, so these pictures were made elsewhere"):
        read_run(folder)
