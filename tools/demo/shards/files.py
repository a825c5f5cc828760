"""Drawn triplets as single PNG files and a rows file, for people and for the trainer's general way in."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image

from tools.demo.world.triplets import Miniature, Pixels, Triplet
from uso.training.data.rows import Row, write_rows

ROWS = "rows.jsonl"


def make_files(folder: Path, data: Miniature, count: int, first: int = 0) -> Iterator[int]:
    """Write triplets `first` to `first + count` into a folder, rows last; yields after each how many are done.

    The rows name what this call wrote; files of the same names are replaced.
    """
    rows = []
    for done, index in enumerate(range(first, first + count), start=1):
        triplet = data.triplet(index)
        stem = f"{data.split}-{data.seed}-{index:06d}"
        pictures = {"content": triplet.content, "style": triplet.style, "target": triplet.target}
        if triplet.style_2 is not None:
            pictures["style-2"] = triplet.style_2
        names = {kind: f"pictures/{stem}-{kind}.png" for kind in pictures}
        for kind, name in names.items():
            _save(pictures[kind], folder / name)
        rows.append(triplet_row(triplet, names))
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


def _save(pixels: Pixels, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    Image.fromarray(pixels).save(draft, "PNG", compress_level=4)
    draft.replace(path)
