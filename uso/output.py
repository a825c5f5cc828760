"""A finished picture on disk: a PNG that holds its whole request, and the references beside it.

The request is JSON in an iTXt chunk (any language). Reference images are kept once, by SHA-256, in `references/` beside
the pictures; the PNG holds the hashes. A picture appears under its name complete or not at all, nothing is overwritten,
and a name that cannot be used never costs a picture. No torch here.
"""

import json
import logging
import os
import re
import tempfile
import time
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from PIL import PngImagePlugin

from uso.errors import OutputError
from uso.image_formats.contents import Refusal
from uso.image_formats.kinds import kind_of
from uso.image_formats.png import text_of
from uso.request import GenerationRequest, GenerationResult, ReferenceImage
from uso.version import __version__

logger = logging.getLogger(__name__)

CHUNK = "uso"
"""Keyword of the iTXt chunk."""

FORMAT = "uso-picture/1"
REFERENCES = "references"
KINDS = ("content_images", "style_images")
_MAX_SLUG = 48

PART_SECONDS = 3600.0
"""Age from which a file that is still being written has been given up."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def slug(text: str) -> str:
    """A few words of `text` that are safe in any file name: lower-case ASCII letters, digits and hyphens."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_text.lower()).strip("-")
    return words[:_MAX_SLUG].strip("-") or "picture"


def file_stem(request: GenerationRequest, now: datetime | None = None) -> str:
    """`20260131-235959_seed42_a-red-fox`: time, seed, and a slug of the prompt."""
    moment = (now or datetime.now()).strftime("%Y%m%d-%H%M%S")
    return f"{moment}_seed{request.seed}_{slug(request.prompt)}"


def metadata(result: GenerationResult, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """All that the PNG records, as JSON values; `extra` is what whoever saves it adds."""
    request = result.request
    plain = {name: getattr(request, name) for name in GenerationRequest.__dataclass_fields__ if name not in KINDS}
    for name in KINDS:
        references: tuple[ReferenceImage, ...] = getattr(request, name)
        # A name that is no UTF-8 (file systems allow it) must not cost the picture.
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
        **(extra or {}),
    }


def check_folder(folder: Path) -> None:
    """Make sure that pictures can be written to `folder`, before any are made.

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
    """Make sure that a picture can be written as `path`, before it is made.

    Raises:
        OutputError: it exists, is not called .png, or cannot be created.
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
    """Write the picture and its references; returns the file that now exists.

    Args:
        folder: created if missing. If it cannot be written to, a folder beside the system's temporary files is used
            and named in a warning: a finished picture is never lost to its name or place.
        stem: file name without `.png`; by default from time, seed and prompt. A number is added if it is taken.
        extra: more entries of the record, as JSON values.

    Raises:
        OutputError: the picture could be written nowhere (all disks full, say).
    """
    text = PngImagePlugin.PngInfo()
    text.add_itxt(CHUNK, json.dumps(metadata(result, extra), ensure_ascii=False))
    attempts = [(folder, stem or file_stem(result.request)), (folder, file_stem(result.request))]
    attempts.append((Path(tempfile.gettempdir()) / "uso-outputs", file_stem(result.request)))
    failures = []
    for place, name in attempts:
        try:
            place.mkdir(parents=True, exist_ok=True)
            keep_references(result.request, place)  # first: a picture that exists can be repeated
            path = write_new(place, name, lambda file: result.image.save(file, "PNG", pnginfo=text))
        except OSError as error:
            failures.append(f"{place / name}.png: {error.strerror or error}")
            continue
        if failures:
            logger.warning("The picture was saved as %s instead (%s).", path, "; ".join(failures))
        return path
    raise OutputError(f"The picture could not be saved: {'; '.join(failures)}. Free some space and try again.")


def _write_part(folder: Path, write: Callable[[BinaryIO], object]) -> Path:
    """A complete, hidden file of its own in `folder`; nothing is left if writing fails."""
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)


def remove_parts(folder: Path) -> None:
    """Remove what processes that were killed in the middle of writing have left; what is being written now stays."""
    for part in (*folder.glob(".*.part"), *(folder / REFERENCES).glob(".*.part")):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > PART_SECONDS:
                part.unlink()


def _write_bytes(data: bytes, file: BinaryIO) -> None:
    file.write(data)


def write_new(folder: Path, stem: str, write: Callable[[BinaryIO], object]) -> Path:
    """Write to a hidden file, then give it the first free of `stem.png`, `stem-2.png`, ...: complete or absent."""
    temporary = _write_part(folder, write)
    try:
        number = 1
        while True:
            path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
            try:
                _rename_new(temporary, path)
                return path
            except FileExistsError:
                number += 1
    finally:
        temporary.unlink(missing_ok=True)


def _rename_new(source: Path, target: Path) -> None:
    """Rename without replacing: by a hard link, or, where the file system has none, by claiming the name first."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            os.replace(source, target)
        except OSError:
            target.unlink()
            raise


def keep_references(request: GenerationRequest, folder: Path) -> None:
    """Keep each reference image once, as `references/<sha256>`, so that the picture can be made again.

    Its time of change is that of its last use.
    """
    for reference in (*request.content_images, *request.style_images):
        target = folder / REFERENCES / reference.sha256
        try:
            if target.exists():
                os.utime(target)
                continue
            target.parent.mkdir(exist_ok=True)
            os.replace(_write_part(target.parent, partial(_write_bytes, reference.data)), target)
        except OSError as error:
            logger.warning("The reference %s could not be kept in %s: %s", reference.name, target.parent, error)


@dataclass(frozen=True)
class SavedPicture:
    """What a PNG made by this program says about itself."""

    path: Path
    record: dict[str, Any]

    @property
    def model(self) -> dict[str, Any]:
        return dict(self.record["model"])

    def values(self) -> dict[str, Any]:
        """The values of its request, but for the references: arguments of `GenerationRequest.create`."""
        return {key: value for key, value in self.record["request"].items() if key not in KINDS}

    def references(
        self, folders: list[Path], given: Sequence[ReferenceImage] = (), kinds: Sequence[str] = KINDS
    ) -> dict[str, Any]:
        """The reference images, found by hash in `references/` of the given folders or among `given` files.

        Returns:
            `content_images` and `style_images` (those of `kinds`), arguments of `GenerationRequest.create`.

        Raises:
            OutputError: one is missing; it is named, so that it can be given again.
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
            raise OutputError(f"{self.path} names a reference by something that is no SHA-256.")
        for folder in folders:
            path = folder / REFERENCES / entry["sha256"]
            if path.is_file():
                reference = ReferenceImage(path.read_bytes(), entry["name"])
                if reference.sha256 == entry["sha256"]:
                    return reference
        flag = "--content" if kind == "content_images" else "--style"
        raise OutputError(
            f"The {kind.split('_')[0]} image '{entry['name']}' (SHA-256 {entry['sha256'][:12]}...) of {self.path.name} "
            f"is not in {', '.join(str(folder / REFERENCES) for folder in folders)}. Give it again with {flag} FILE."
        )


def read(path: str | Path) -> SavedPicture:
    """Read what a PNG of this program records.

    Raises:
        OutputError: no such file, no PNG of this program, or one of a newer format.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        kind = kind_of(data)
        text = text_of(data, CHUNK) if kind in ("", "PNG") else None
    except FileNotFoundError as error:
        raise OutputError(f"There is no file {path}.") from error
    except (OSError, ValueError, Refusal) as error:  # ValueError: a NUL character in the path
        raise OutputError(f"{path} is not a picture that can be read.") from error
    if text is None:
        raise OutputError(f"{path} holds no request: it was not made by this program, or an editor removed it.")
    try:
        record = json.loads(text)
        form = record["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise OutputError(f"{path} holds a damaged request.") from error
    if form != FORMAT:
        raise OutputError(f"{path} holds a request of the form {form!r}; this program reads {FORMAT!r}.")
    if not _is_whole(record):
        raise OutputError(f"{path} holds a damaged request.")
    return SavedPicture(path, record)


def _is_whole(record: dict[str, Any]) -> bool:
    """Whether a record has the parts that repeating it relies on; values are verified when a request is made of it."""
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
