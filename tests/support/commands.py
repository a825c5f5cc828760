"""The command line run in this process, and what its pictures hold."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, PngImagePlugin

from uso import output

SMALL = ("--model", "demo", "--width", "128", "--height", "128", "--steps", "2", "--content-size", "64")


class Ran(NamedTuple):
    status: int
    out: list[str]
    err: str

    @property
    def pictures(self) -> list[Path]:
        return [Path(line) for line in self.out]


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def request_of(path: Path) -> dict[str, Any]:
    return dict(output.read(path).record["request"])


def rerecorded(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a picture with a changed record."""
    record = output.read(path).record
    change(record)
    info = PngImagePlugin.PngInfo()
    info.add_itxt(output.CHUNK, json.dumps(record))
    target = path.with_name("rerecorded.png")
    with Image.open(path) as image:
        image.save(target, pnginfo=info)
    return target


def made(folder: str | Path = "outputs") -> dict[str, bytes]:
    """Name and pixels of every picture in a folder."""
    pictures = {}
    for path in sorted(Path(folder).glob("*.png")):
        with Image.open(path) as image:
            pictures[path.name] = image.tobytes()
    return pictures


def requests(folder: str | Path = "outputs") -> list[dict[str, Any]]:
    return [output.read(path).record["request"] for path in sorted(Path(folder).glob("*.png"))]


def refused(ran: Ran) -> list[str]:
    assert (ran.status, ran.out) == (2, [])
    return ran.err.splitlines()


def save(jobs: Any) -> Path:
    """Write `jobs/jobs.json`."""
    Path("jobs/jobs.json").write_text(json.dumps(jobs))
    return Path("jobs/jobs.json")
