"""Finished pictures on disk: a PNG that records its whole request, with the reference images beside it.

The request is JSON in an iTXt chunk. Reference images are stored once, by SHA-256, in `references/` beside the
pictures; the PNG holds the hashes. A picture appears under its name complete or not at all (`uso.files`), nothing is
overwritten, and a picture is never lost to an unusable name. No torch here.
"""

import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from PIL import PngImagePlugin

from uso import files
from uso.errors import OutputError
from uso.images.formats.contents import Refusal
from uso.images.formats.kinds import kind_of
from uso.images.formats.png import text_of
from uso.language import Text
from uso.request.references import ReferenceImage, read_reference
from uso.request.request import GenerationRequest, GenerationResult
from uso.version import __version__

logger = logging.getLogger(__name__)

CHUNK = "uso"
"""Keyword of the iTXt chunk."""

FORMAT = "uso-picture/1"
REFERENCES = "references"
TEMPORARY = "uso-outputs"
"""Beside the system's temporary files: where pictures go if their own folder fails."""
KINDS = ("content_images", "style_images")

_SHA256 = re.compile(r"[0-9a-f]{64}")


def file_stem(request: GenerationRequest) -> str:
    """`20260131-235959_seed42_a-red-fox`: time, seed, and a slug of the prompt."""
    moment = datetime.now().strftime("%Y%m%d-%H%M%S")
    return f"{moment}_seed{request.seed}_{files.slug(request.prompt)}"


def metadata(result: GenerationResult, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """Everything that the PNG records, as JSON values, plus the caller's `extra`."""
    request = result.request
    plain = {name: getattr(request, name) for name in GenerationRequest.__dataclass_fields__ if name not in KINDS}
    for name in KINDS:
        references: tuple[ReferenceImage, ...] = getattr(request, name)
        # A name that is not UTF-8, which file systems allow, must not fail the picture.
        plain[name] = [
            {"sha256": reference.sha256, "name": reference.name.encode("utf-8", "replace").decode()}
            for reference in references
        ]
    return {
        "format": FORMAT,
        "program": {"name": "uso", "version": __version__},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "request": plain,
        "model": result.model,
        "timings": {stage: round(seconds, 3) for stage, seconds in result.timings.items()},
        "peak_memory_gib": result.peak_memory_gib,
        **({"notes": list(result.notes)} if result.notes else {}),
        **(extra or {}),
    }


def check_folder(folder: Path) -> None:
    """Make sure that pictures can be written to `folder`, before making any.

    Raises:
        OutputError: it cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"Pictures cannot be written to {folder} ({error.strerror}). Choose another output folder."
        ) from error


def check_file(path: Path) -> None:
    """Make sure that a picture can be written as `path`, before making it.

    Raises:
        OutputError: it exists, does not end in .png, or cannot be created.
    """
    if path.suffix.lower() != ".png":
        raise OutputError(f"{path} does not end in .png; pictures are PNG files, which hold their request.")
    if os.path.lexists(path):
        raise OutputError(f"{path} exists already, and nothing is overwritten. Choose another name or remove it.")
    check_folder(path.parent)
    try:
        path.touch(exist_ok=False)
        path.unlink()
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}). Choose another name.") from error


def save(result: GenerationResult, folder: Path, stem: str | None = None, extra: dict[str, Any] | None = None) -> Path:
    """Write the picture and its references; returns the new file.

    Args:
        folder: created if missing. If it is not writable, a folder beside the system's temporary files is used, and a
            warning names it.
        stem: file name without `.png`; by default from time, seed and prompt. If it is taken, a number is added.
        extra: additional entries of the record, as JSON values.

    Raises:
        OutputError: the picture could not be written anywhere, for example because all disks are full.
    """
    text = PngImagePlugin.PngInfo()
    text.add_itxt(CHUNK, json.dumps(metadata(result, extra), ensure_ascii=False))

    def write(file: BinaryIO) -> None:
        result.image.save(file, "PNG", pnginfo=text)

    return write_somewhere(result.request, folder, stem, write, Text("Free some space and try again."))


def write_somewhere(
    request: GenerationRequest, folder: Path, stem: str | None, write: Callable[[BinaryIO], object], remedy: str
) -> Path:
    """Write a finished picture and its references to `folder`, under `stem` or else the request's own name; if that
    fails, to a folder beside the system's temporary files. Returns the file.

    Args:
        write: writes the PNG file.
        remedy: the last sentence of the error.

    Raises:
        OutputError: every attempt failed.
    """
    own = file_stem(request)
    failures = []
    for place, name in ((folder, stem or own), (folder, own), (None, own)):
        try:
            place = place or files.own_temporary_folder(TEMPORARY)
            place.mkdir(parents=True, exist_ok=True)
            keep_references(request, place)  # first: a picture that exists can be repeated
            path = files.write_new(place, f"{name}.png", write)
            keep_references(request, place)  # again: the last picture that had them may have been deleted meanwhile
        except OSError as error:
            failures.append(f"{(place or Path(tempfile.gettempdir())) / name}.png: {error.strerror or error}")
            continue
        if failures:
            logger.warning("The picture was saved as %s instead (%s).", path, "; ".join(failures))
        return path
    raise OutputError(Text("The picture could not be saved: {}. {}", "; ".join(failures), remedy))


def remove_parts(folder: Path) -> None:
    """Remove unfinished files of killed processes from a folder of pictures and its references."""
    files.remove_parts(folder)
    files.remove_parts(folder / REFERENCES)


def keep_references(request: GenerationRequest, folder: Path) -> None:
    """Store each reference image once, as `references/<sha256>`, so that the picture can be repeated.

    Nobody but this user can read them. A file's modification time is the time of its last use.
    """
    for reference in (*request.content_images, *request.style_images):
        target = folder / REFERENCES / reference.sha256
        try:
            files.private_folder(target.parent)
            if target.exists():
                os.utime(target)
                continue
            files.write_over(target, reference.data, files.PRIVATE)
        except OSError as error:
            logger.warning("The reference %s could not be kept in %s: %s", reference.name, target.parent, error)


@dataclass(frozen=True)
class SavedPicture:
    """A PNG of this program and its record."""

    path: Path
    record: dict[str, Any]

    @property
    def model(self) -> dict[str, Any]:
        return dict(self.record["model"])

    def values(self) -> dict[str, Any]:
        """The values of its request without references: arguments of `GenerationRequest.create`."""
        return {key: value for key, value in self.record["request"].items() if key not in KINDS}

    def references(
        self, folders: list[Path], given: Sequence[ReferenceImage] = (), kinds: Sequence[str] = KINDS
    ) -> dict[str, Any]:
        """The reference images, found by hash among the `given` files or in `references/` of the folders.

        Returns:
            `content_images` and `style_images` (those in `kinds`): arguments of `GenerationRequest.create`.

        Raises:
            OutputError: one is missing; the message names it.
        """
        by_hash = {reference.sha256: reference for reference in given}
        found: dict[str, Any] = {}
        for kind in kinds:
            found[kind] = [
                by_hash.get(entry["sha256"]) or self._stored(entry, kind, folders)
                for entry in self.record["request"][kind]
            ]
        return found

    def _stored(self, entry: dict[str, str], kind: str, folders: list[Path]) -> ReferenceImage:
        if not _SHA256.fullmatch(entry["sha256"]):
            raise OutputError(f"{self.path} names a reference by something other than a SHA-256.")
        for folder in folders:
            path = folder / REFERENCES / entry["sha256"]
            if path.is_file():
                found = ReferenceImage(path.read_bytes())
                if found.sha256 == entry["sha256"]:
                    return read_reference(found.data, entry["name"])
        flag = "--content" if kind == "content_images" else "--style"
        raise OutputError(
            f"The {kind.split('_')[0]} image '{entry['name']}' (SHA-256 {entry['sha256'][:12]}...) of {self.path.name} "
            f"is not in {', '.join(str(folder / REFERENCES) for folder in folders)}. Give it again with {flag} FILE."
        )


def read(path: str | Path, name: str | None = None) -> SavedPicture:
    """Read the record of a PNG of this program; its pixels are not looked at.

    Args:
        name: what errors call it, in place of its path.

    Raises:
        OutputError: there is no such file, or it is not a PNG of this program, or has a newer format.
    """
    path = Path(path)
    called = name or str(path)
    try:
        with files.open_regular(path) as file:
            data = file.read()
        kind = kind_of(data)
        text = text_of(data, CHUNK) if kind in ("", "PNG") else None
    except FileNotFoundError as error:
        raise OutputError(Text("There is no file {}.", called)) from error
    except (OSError, ValueError, Refusal) as error:  # ValueError: a NUL character in the path
        raise OutputError(Text("{} is not a picture that can be read.", called)) from error
    if text is None:
        raise OutputError(
            Text("{} holds no request: it was not made by this program, or an editor removed it.", called)
        )
    try:
        record = json.loads(text)
        form = record["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise OutputError(Text("{} holds a damaged request.", called)) from error
    if form != FORMAT:
        raise OutputError(Text("{} holds a request of the form {!r}; this program reads {!r}.", called, form, FORMAT))
    if not _is_whole(record):
        raise OutputError(Text("{} holds a damaged request.", called))
    return SavedPicture(path, record)


def _is_whole(record: dict[str, Any]) -> bool:
    """Whether a record has all parts needed to repeat it; values are verified when a request is made from it."""
    request, model = record.get("request"), record.get("model")
    if not isinstance(request, dict) or not set(KINDS) <= set(request) <= set(GenerationRequest.__dataclass_fields__):
        return False
    if not isinstance(model, dict) or not isinstance(model.get("name"), str):
        return False
    entries = [entry for kind in KINDS if isinstance(request[kind], list) for entry in request[kind]]
    return all(isinstance(request[kind], list) for kind in KINDS) and all(
        isinstance(entry, dict) and isinstance(entry.get("sha256"), str) and isinstance(entry.get("name"), str)
        for entry in entries
    )
