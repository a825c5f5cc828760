"""Vectors are computed once for each picture, whatever it is called, and never for one that changed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_picture
from uso.errors import ConfigError, ImageError
from uso.evaluation import features
from uso.evaluation.features import Store, compute, missing
from uso.evaluation.metrics import Vectors
from uso.evaluation.pictures import file_hash
from uso.system.launcher import Process

ALONE = Process(0, 1, 0)


class Counting:
    """The mean colour of a picture, and how many were asked for; may stop in the middle."""

    def __init__(self, stops_after: int | None = None) -> None:
        self.seen, self.stops_after = 0, stops_after

    def vectors(self, pictures: Sequence[Image.Image]) -> Vectors:
        if self.stops_after is not None and self.seen >= self.stops_after:
            raise KeyboardInterrupt
        self.seen += len(pictures)
        return np.stack([np.asarray(each.resize((1, 1)), np.float32)[0, 0] for each in pictures])


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    paths = [tmp_path / f"{number}.png" for number in range(7)]
    for number, path in enumerate(paths):
        draw_picture(20, 16, number).save(path)
    return {file_hash(path): path for path in paths}


def opened(folder: Path, key: str = "weights") -> Store:
    store = Store(folder, "clip", key)
    store.read()
    return store


def test_nothing_is_computed_twice(tmp_path: Path, files: dict[str, Path]) -> None:
    """Catches a second run that starts over."""
    encoder = Counting()
    assert compute(opened(tmp_path), encoder, files, 3, ALONE) == 7
    again = opened(tmp_path)
    assert compute(again, encoder, files, 3, ALONE) == 0
    assert encoder.seen == 7
    assert set(again.known) == set(files)


def test_a_killed_run_goes_on_where_it_was(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches vectors that are only kept at the end."""
    monkeypatch.setattr(features, "CHUNK", 2)
    with pytest.raises(KeyboardInterrupt):
        compute(opened(tmp_path), Counting(stops_after=4), files, 2, ALONE)
    encoder = Counting()
    assert compute(opened(tmp_path), encoder, files, 2, ALONE) == 3


def test_a_picture_that_changed_is_computed_again(tmp_path: Path, files: dict[str, Path]) -> None:
    """Catches a cache that goes by names: the picture has the same one, and another content."""
    compute(opened(tmp_path), Counting(), files, 3, ALONE)
    path = next(iter(files.values()))
    draw_picture(20, 16, 99).save(path)
    changed = {file_hash(each): each for each in files.values()}
    store, encoder = opened(tmp_path), Counting()
    assert compute(store, encoder, changed, 3, ALONE) == 1
    np.testing.assert_allclose(store.known[file_hash(path)], Counting().vectors([Image.open(path)])[0])
    with pytest.raises(ConfigError, match="changed while it was measured"):
        compute(opened(tmp_path, "other"), Counting(), files, 3, ALONE)


def test_another_encoder_computes_its_own(tmp_path: Path, files: dict[str, Path]) -> None:
    """Catches vectors of other weights, or of another way to prepare, that are taken for these."""
    compute(opened(tmp_path), Counting(), files, 3, ALONE)
    assert missing(opened(tmp_path, "other weights"), files) == 7


def test_processes_share_the_work_whatever_each_knows(tmp_path: Path, files: dict[str, Path]) -> None:
    """Catches pictures that two processes take or none does, where one starts when the other has already kept some."""
    counts = []
    for rank in range(3):
        store, encoder = opened(tmp_path), Counting()
        compute(store, encoder, files, 2, Process(rank, 3, rank))
        counts.append(encoder.seen)
        assert (missing(opened(tmp_path), files) == 0) == (rank == 2)
    assert sum(counts) == 7


def test_a_lost_file_is_computed_again_and_a_damaged_one_too(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a last shard whose loss would leave means over fewer pictures."""
    monkeypatch.setattr(features, "CHUNK", 3)
    compute(opened(tmp_path), Counting(), files, 3, ALONE)
    kept = sorted((tmp_path / features.FOLDER).glob("*.safetensors"))
    assert len(kept) == 3
    kept[0].unlink()
    kept[1].write_bytes(kept[1].read_bytes()[:40])
    lost = missing(opened(tmp_path), files)
    assert 0 < lost < 7
    assert compute(opened(tmp_path), Counting(), files, 3, ALONE) == lost
    assert missing(opened(tmp_path), files) == 0


def test_a_picture_that_is_none_is_named(tmp_path: Path) -> None:
    """Catches a run that stops without saying at which of a thousand files."""
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.png"):
        compute(opened(tmp_path), Counting(), {file_hash(path): path}, 3, ALONE)
