"""Which samples go together, and what each loses."""

from collections import Counter
from pathlib import Path

from tests.support.tiny_training import tiny_batches, tiny_config, training_pipeline, write_rows
from tests.training.data.test_samples import changed
from uso.training.config import DropoutConfig, load_training_config
from uso.training.data.buckets import Draw, Shape, epoch_batches

SIDE = 1024


def test_one_sample_in_four_loses_style_or_content() -> None:
    """Catches two draws, by which 43.7 % lose at least one of them and 6.2 % both; measured over 40,000 samples."""
    count = 40_000
    shapes = [Shape((SIDE, SIDE), (512, 512), 1)] * count
    batches = epoch_batches(shapes, load_training_config("joint").dropout, micro_batch=8, seed=0, epoch=0)
    draws = [draw for batch in batches for draw in batch]
    assert sorted(draw.index for draw in draws) == list(range(count))
    shares = {key: number / count for key, number in Counter((draw.style, draw.content) for draw in draws).items()}
    assert shares.keys() == {(True, True), (False, True), (True, False)}  # none loses both
    assert abs(shares[True, True] - 0.75) < 0.008
    assert abs(shares[False, True] - 0.125) < 0.006 and abs(shares[True, False] - 0.125) < 0.006
    assert abs(sum(not draw.text for draw in draws) / count - 0.1) < 0.006


def test_every_sample_comes_once_an_epoch_in_batches_that_are_alike() -> None:
    """Catches samples that are left out because their bucket's last batch is short."""
    shapes = [Shape((SIDE, SIDE), None, index % 2) for index in range(10)] + [Shape((SIDE, SIDE), None, 0)] * 4
    batches = epoch_batches(shapes, DropoutConfig(), micro_batch=4, seed=0, epoch=0)
    assert sorted(map(len, batches)) == [1, 1, 4, 4, 4]
    assert sorted(draw.index for batch in batches for draw in batch) == list(range(14))
    assert all(len({shapes[draw.index] for draw in batch}) == 1 for batch in batches)


def test_an_empty_prompt_never_stands_for_a_moved_layout(tmp_path: Path) -> None:
    """Catches a dropout of text that teaches "move" where the network is asked to keep the layout; without the content
    picture there is no layout to keep."""
    rows = write_rows(tmp_path / "rows", 3)
    changed(rows, 0, layout="moved")
    changed(rows, 1, layout="kept", prompt="Paint it in ink.")
    pipeline = training_pipeline()
    batches = tiny_batches(pipeline, tiny_config(tmp_path, rows, dropout={"text": 1.0}))
    empty = batches.features.stacked([batches.features.empty_prompt])["pooled"][0]
    for content, silent in ((True, [False, True, False]), (False, [True, True, True])):
        draws = [Draw(index, text=False, style=True, content=content) for index in range(3)]
        pooled = batches.collate(draws, 0).pooled
        assert [bool((vector == empty).all()) for vector in pooled] == silent  # row 2 says nothing of its layout
    batches.close()
