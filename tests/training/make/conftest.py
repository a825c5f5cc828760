"""A folder of pictures to make triplets of."""

from pathlib import Path

import pytest

from tests.conftest import draw_picture


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(("one.png", "two.jpg", "deep/three.png")):
        draw_picture(120, 90, number).save(folder / name)
    (folder / "one.txt").write_text("A fox\nin the snow. ")
    return folder
