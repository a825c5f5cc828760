"""Drawn triplets as single PNG files and a rows file, for people and for the trainer's general way in."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from tools.demo.shards.samples import text_of, ways
from tools.demo.world.triplets import Miniature, Pixels, Triplet
from uso.training.data.buckets import Size
from uso.training.data.rows import Row, write_rows

ROWS = "rows.jsonl"


def make_files(
    folder: Path,
    data: Miniature,
    count: int,
    first: int = 0,
    *,
    sizes: Sequence[Size] = (),
    every_way: bool = False,
) -> Iterator[int]:
    """Write triplets `first` to `first + count` into a folder, rows last; yields after each how many are done.

    The rows name what this call wrote; files of the same names are replaced.

    Args:
        sizes: (width, height) of the triplets in turn; without any, those of `data`.
        every_way: rows for every way of use that a run reads of a shard's triplet; else one for each triplet.
    """
    rows: list[Row] = []
    shaped = [replace(data, size=min(size), ratio=size[0] / size[1]) for size in sizes] or [data]
    for done, index in enumerate(range(first, first + count), start=1):
        triplet = shaped[index % len(shaped)].triplet(index)
        stem = f"{data.split}-{data.seed}-{index:06d}"
        pictures = {"content": triplet.content, "style": triplet.style, "target": triplet.target}
        if triplet.style_2 is not None:
            pictures["style-2"] = triplet.style_2
        names = {kind: f"pictures/{stem}-{kind}.png" for kind in pictures}
        for kind, name in names.items():
            _save(pictures[kind], folder / name)
        rows += way_rows(triplet, names, index) if every_way else [triplet_row(triplet, names)]
        yield done
    write_rows(folder / ROWS, rows)


def triplet_row(triplet: Triplet, names: Mapping[str, str]) -> Row:
    """A triplet's row, its pictures under the relative paths that `names` has for them."""
    return Row(
        prompt=triplet.prompt,
        content=names["content"],
        styles=tuple(names[kind] for kind in ("style", "style-2") if kind in names),
        target=names["target"],
        sentence=triplet.sentence,
        **{"caption": triplet.caption, **triplet.labels.as_json()},
    )


def way_rows(triplet: Triplet, names: Mapping[str, str], index: int) -> list[Row]:
    """A triplet's rows, one for each of its `ways`."""
    row, labels = triplet_row(triplet, names), triplet.labels.as_json()
    words = {"prompt": triplet.prompt, "sentence": triplet.sentence, "caption": triplet.caption, "labels": labels}
    rows = []
    for text, content, style in ways(words, index):
        left_out: dict[str, Any] = ({} if content else {"content": None}) | ({} if style else {"styles": ()})
        rows.append(row.model_copy(update={"prompt": text_of(words, text), **left_out}))
    return rows


def _save(pixels: Pixels, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    Image.fromarray(pixels).save(draft, "PNG", compress_level=4)
    draft.replace(path)
