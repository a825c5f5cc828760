"""Forms of training data: every one becomes the same rows, and is refused by the same rules."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import draw_picture
from tests.support.tiny_training import tiny_config, write_rows
from uso.errors import ConfigError, RequestError
from uso.training.config import TrainingConfig
from uso.training.data.check import check_rows
from uso.training.data.readers import read_entries
from uso.training.data.samples import read_samples
from uso.training.prepare import read_data


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        draw_picture(48, 48, number).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"House {number}.\n", encoding="utf-8")
    return folder


def run(folder: Path, rows: Path, **data: Any) -> TrainingConfig:
    config = tiny_config(folder, rows, "stage1")
    return config.model_copy(update={"data": type(config.data).model_validate(config.data.model_dump() | data)})


def test_a_folder_of_pictures_is_learned_in_its_own_style(pictures: Path, tmp_path: Path) -> None:
    """Catches a picture that is its own style, and repeats that are all alike."""
    config = run(tmp_path, pictures, siblings="style", repeats=3)
    samples = read_samples(pictures, config.data, ("style",))
    pairs = [(sample.prompt, sample.target.stem, sample.styles[0].stem) for sample in samples]
    assert pairs[:3] == [("House 0.", "0", "1"), ("House 1.", "1", "2"), ("House 2.", "2", "0")]
    assert pairs[3:6] == [("House 0.", "0", "2"), ("House 1.", "1", "0"), ("House 2.", "2", "1")]
    assert pairs[6:] == pairs[:3]
    as_content = read_samples(pictures, config.data.model_copy(update={"siblings": "content"}), ("content",))
    assert as_content[0].content == pictures / "1.png" and as_content[0].moved
    assert len(read_samples(pictures, config.data, ("style", "content"), first=2)) == 2  # for validation
    with pytest.raises(ConfigError, match="In a folder, data.siblings=style takes other pictures"):
        read_samples(pictures, run(tmp_path, pictures).data, ("style",))
    assert check_rows(pictures).text() == "3 rows and 3 pictures: all can be used."
    (pictures / "1.txt").write_bytes(b"\xff\xfe\xff")
    (pictures / "2.png").write_bytes(b"")
    assert [problem.where for problem in check_rows(pictures).problems] == ["1.png", "2.png"]
    with pytest.raises(ConfigError, match=r"1\.png: its caption 1\.txt is not UTF-8"):
        read_samples(pictures, config.data, ("style",))


def test_one_picture_has_no_sibling(pictures: Path) -> None:
    for number in (1, 2):
        (pictures / f"{number}.png").unlink()
    with pytest.raises(RequestError, match="holds one picture, and none that could be its style"):
        read_entries(pictures, "style")
    (pictures / "0.png").unlink()
    with pytest.raises(RequestError, match="holds no pictures"):
        read_entries(pictures)


def test_unos_files_are_read(pictures: Path, tmp_path: Path) -> None:
    """Catches reference and target swapped, and pictures of UNO-1M that UNO itself left out."""
    pairs = [{"prompt": "A house.", "image_paths": ["0.png"], "image_tgt_path": "1.png", "meta": {"seed": 1}}]
    path = pictures / "uno.json"
    path.write_text(json.dumps([*pairs, {"prompt": "", "image_path": "1.png", "image_tgt_path": "2.png"}]))
    data = run(tmp_path, path).data
    samples = read_samples(path, data, ("content",))
    assert [(s.prompt, s.content and s.content.stem, s.target.stem, s.moved) for s in samples] == [
        ("A house.", "0", "1", True),
        ("", "1", "2", False),
    ]
    two = {"image_paths": ["0.png", "1.png"], "image_tgt_path": "2.png"}
    path.write_text(json.dumps([*pairs, two, {"prompt": "x"}]))
    assert [str(problem) for problem in check_rows(path).problems] == [
        "entry 2: It has 2 references, and one content picture is read. Leave it out.",
        'entry 3: It has no "image_tgt_path".',
    ]
    (tmp_path / "root" / "labels").mkdir(parents=True)
    pictures.rename(tmp_path / "root" / "images")
    labels = tmp_path / "root" / "labels" / "split1.json"
    names = {"img_path1": "0.png", "img_path2": "1.png"}
    captions = {"img_path1": "One.", "img_path2": "Two.", "subject": ["house"]}
    scores: list[Any] = [4.0, 3.5, 131184.7, None]
    labels.write_text(
        json.dumps([{**names, "caption": captions, "vlm_filter_cot": {"score_final": score}} for score in scores])
    )
    (sample,) = read_samples(labels, data, ("content",))
    assert (sample.prompt, sample.content) == ("Two.", tmp_path / "root" / "images" / "0.png")
    labels.write_text("{}")
    with pytest.raises(RequestError, match="is no list of entries"):
        read_entries(labels)


def test_pictures_go_to_the_largest_resolution_that_they_fill(tmp_path: Path) -> None:
    """Catches small pictures that are enlarged where that was ruled out, and large ones at the smallest size."""
    rows = write_rows(tmp_path / "rows", 4)
    for number, side in enumerate((100, 64, 40, 20)):
        draw_picture(side, side, number).save(rows.parent / f"target-{number}.png")
    said: list[str] = []
    source, _ = read_data(run(tmp_path, rows, resolution=64, smaller=[32], enlarge=False), said.append)
    assert [sample.shape.target for sample in source.samples] == [(64, 64), (64, 64), (32, 32)]
    assert said == ["1 of 4 targets have fewer pixels than 32 x 32 and are left out."]
    source, _ = read_data(run(tmp_path, rows, resolution=64, smaller=[32], repeats=2))
    assert [sample.shape.target[0] for sample in source.samples] == 2 * [64, 64, 32, 32]
    with pytest.raises(ConfigError, match=r"All targets have fewer pixels than 128 x 128"):
        read_data(run(tmp_path, rows, resolution=128, enlarge=False))
    with pytest.raises(ValueError, match="smaller must name sides under resolution"):
        run(tmp_path, rows, smaller=[64])
