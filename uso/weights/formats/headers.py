"""What a weights file holds, read from its header: names, shapes and types of its tensors. No torch, no numbers.

Safetensors and GGUF files are understood. Everything else is refused, and the message says what it is: a git-LFS
pointer, a web page, a pickle, a truncated file, an unfinished download.
"""

import functools
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from uso.errors import CheckpointError

SUFFIXES = (".safetensors", ".sft", ".gguf")
"""Endings of weights files, in lower case. The content decides what a file is."""

MAX_HEADER_BYTES = 100_000_000
"""The safetensors format's own limit."""

ZERO_TAIL_BYTES = 512
"""A weight matrix does not end in so many zeros; a file whose download was prepared and never finished does."""

_LONGEST_TAIL = 64 << 20
"""Bytes of zeros after which no more are looked at."""

_MOST_PARTS = 1000
_FEW_BYTES = 64
_LENGTH_BYTES = 8
_BLOCK = 1 << 20

SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<ending>\.\w+)", re.IGNORECASE)
"""One part of a file that was split."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Entry:
    """One tensor of a file."""

    dtype: str
    """As the format calls it: `BF16`, `F8_E4M3`, `Q8_0` ..."""
    shape: tuple[int, ...]
    begin: int
    """First byte, from the start of the file."""
    end: int


@dataclass(frozen=True)
class Header:
    """The head of one file, or of the parts of one file taken together."""

    paths: tuple[Path, ...]
    tensors: Mapping[str, Entry]
    homes: Mapping[str, Path]
    """Which file each tensor is in."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    gguf: bool = False

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.paths)


def read_headers(paths: Iterable[Path]) -> Header:
    """The heads of the parts of one component as one.

    Raises:
        CheckpointError: a file is none of the two formats, is incomplete, or repeats a tensor.
    """
    tensors: dict[str, Entry] = {}
    homes: dict[str, Path] = {}
    metadata: dict[str, str] = {}
    gguf = False
    for path in (several := tuple(paths)):
        found = read_header(path)
        for name in found.tensors:
            if name in homes:
                raise CheckpointError(f"{path} holds {name} a second time (first in {homes[name].name}).")
            homes[name] = path
        tensors |= found.tensors
        metadata |= found.metadata
        gguf = gguf or found.gguf
    return Header(several, tensors, homes, metadata, gguf)


def parts_of(path: Path) -> list[Path]:
    """The files of one component: all parts where an index or one of the parts is named, else the file itself.

    Raises:
        CheckpointError: the index cannot be read, or a part is not there.
    """
    if path.name.lower().endswith(".json"):
        try:
            names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
            parts = [path.parent / Path(name).name for name in names]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} is no index of weights: it holds no weight_map.") from error
    elif match := SHARD.fullmatch(path.name):
        count = int(match["count"])
        numbers = range(1, count + 1) if count <= _MOST_PARTS else ()
        parts = [path.with_name(f"{match['stem']}-{n:05d}-of-{match['count']}{match['ending']}") for n in numbers]
    else:
        return [path]
    absent = [part.name for part in parts if not part.is_file()]
    if absent or not parts:
        listed = ", ".join(absent[:3]) + (" ..." if len(absent) > 3 else "")
        raise CheckpointError(f"{path} is in {len(parts)} parts, and {listed} is not there. Fetch it too.")
    return parts


def read_header(path: Path) -> Header:
    """The head of one file. Heads are remembered until the file changes.

    Raises:
        CheckpointError: with what the file is instead, or what is missing of it.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise CheckpointError(f"{path} could not be read ({error.strerror}).") from error
    return _read(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=4096)
def _read(path: Path, changed: int, size: int) -> Header:
    del changed  # a key of the cache
    try:
        with path.open("rb") as file:
            begin = file.read(512)
            _refuse_other_formats(path, begin, size)
            if begin[:4] == b"GGUF":
                return _gguf(path, size)
            length = int.from_bytes(begin[:_LENGTH_BYTES], "little")
            start = _LENGTH_BYTES + length
            if not 2 <= length <= MAX_HEADER_BYTES or not begin[_LENGTH_BYTES:].lstrip().startswith(b"{"):
                raise CheckpointError(f"{path} is no safetensors or GGUF file. {_PICKLE_REMEDY}")
            if size < start:
                raise CheckpointError(f"{path} is truncated: {size} bytes, and its header alone takes {start}.")
            file.seek(_LENGTH_BYTES)
            values = json.loads(file.read(length), object_pairs_hook=_once)
        metadata = {str(key): str(value) for key, value in (values.pop("__metadata__", None) or {}).items()}
        tensors = {
            name: Entry(
                str(entry["dtype"]),
                tuple(map(int, entry["shape"])),
                start + int(entry["data_offsets"][0]),
                start + int(entry["data_offsets"][1]),
            )
            for name, entry in values.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{path} is no safetensors file that can be read ({reason}).") from error
    _check_whole(path, tensors, size)
    return Header((path,), tensors, dict.fromkeys(tensors, path), metadata)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object whose names differ.

    Raises:
        ValueError: a name is there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} is in it twice")
    return found


_PICKLE_REMEDY = "Only safetensors and GGUF weights are loaded. Convert it, or fetch a file of that kind."


def _refuse_other_formats(path: Path, begin: bytes, size: int) -> None:
    if begin.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a git-LFS pointer of {size} bytes, not the weights. Run `git lfs pull` in that folder, or "
            "download the file itself."
        )
    text = begin.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!", b"<html", b"<?xml", b"<head", b"<body", b"<script")):
        raise CheckpointError(
            f"{path} is a web page that was saved in the place of the weights. Download the file again; a gated model "
            "needs a login."
        )
    if (
        len(text) > 2 * _LENGTH_BYTES
        and not _plausible(begin)
        and all(9 <= byte <= 13 or 32 <= byte < 127 for byte in text)
    ):
        raise CheckpointError(
            f"{path} holds text, not weights: a server's answer in their place, perhaps. Download the file again; a "
            "gated model needs a login."
        )
    if begin.startswith(b"PK\x03\x04") or (path.suffix.lower() in PICKLES and not _plausible(begin)):
        raise CheckpointError(f"{path} is a PyTorch pickle, which can run code when it is loaded. {_PICKLE_REMEDY}")
    if begin[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") and not _plausible(begin):
        raise CheckpointError(f"{path} is a pickle, which can run code when it is loaded. {_PICKLE_REMEDY}")
    if size and not begin.strip(b"\0"):
        raise CheckpointError(f"{path} is an unfinished download: it begins with zeros. Fetch it again.")
    if size < _LENGTH_BYTES:
        raise CheckpointError(f"{path} is truncated: it has {size} bytes. Fetch it again.")


def _plausible(begin: bytes) -> bool:
    """Whether it begins as a safetensors file does; its first byte may be a pickle's 0x80."""
    length = int.from_bytes(begin[:_LENGTH_BYTES], "little")
    return 2 <= length <= MAX_HEADER_BYTES and begin[_LENGTH_BYTES:].lstrip().startswith(b"{")


def _check_whole(path: Path, tensors: Mapping[str, Entry], size: int) -> None:
    """Refuse a file that was cut short.

    Raises:
        CheckpointError: with the first tensor that is not all there.
    """
    for name, entry in sorted(tensors.items(), key=lambda each: each[1].end):
        if entry.end > size:
            complete = max(each.end for each in tensors.values())
            raise CheckpointError(
                f"{path} is truncated: {name} of shape {list(entry.shape)} ends at byte {entry.end}, and the file has "
                f"{size} (complete: {complete}). Fetch it again."
            )


def check_finished(header: Header) -> None:
    """Refuse files of full size whose end was never written: some programs reserve the room before they download.

    Raises:
        CheckpointError: with the first tensor that holds zeros alone.
    """
    for path in header.paths:
        entries = sorted(
            ((entry.end, name, entry) for name, entry in header.tensors.items() if header.homes[name] == path),
            key=lambda each: each[:2],
        )
        if not entries:
            continue
        zeros_from = _zero_tail(path, entries[-1][0])
        matrices = [each for each in entries if len(each[2].shape) > 1 and _written(each[1])]
        behind = [(end - entry.begin, name) for end, name, entry in entries if entry.begin >= zeros_from]
        empty = [name for size, name in behind if size > _FEW_BYTES and _written(name)]
        torn = [name for end, name, entry in matrices if entry.begin < zeros_from <= end - ZERO_TAIL_BYTES]
        blank = [name for end, name, entry in matrices if zeros_from <= entry.begin <= end - 2 * ZERO_TAIL_BYTES]
        if torn or blank or len(empty) > 1:
            raise CheckpointError(
                f"{path} is an unfinished download: from {(torn or blank or empty)[0]} on it holds zeros alone. Fetch "
                "it again."
            )


_BEGUN = re.compile(r"(lora_up|lora_B|lora\.up|\.up|lokr_w\d\w*|lora_linear_layer\.up)(\.default)?(\.weight)?$")


def _written(name: str) -> bool:
    """Whether a tensor of this name holds more than zeros in a whole file: a LoRA's second matrix begins as zeros."""
    return _BEGUN.search(name) is None


def _zero_tail(path: Path, end: int) -> int:
    """The byte from which on a file holds zeros alone."""
    with path.open("rb") as file:
        longest = end - _LONGEST_TAIL
        while end > max(0, longest):
            begin = max(0, end - _BLOCK)
            file.seek(begin)
            kept = file.read(end - begin).rstrip(b"\0")
            if kept:
                return begin + len(kept)
            end = begin
    return end


def _gguf(path: Path, size: int) -> Header:
    """A GGUF file's head.

    Raises:
        CheckpointError: it cannot be read, or is cut short.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(os.fspath(path))
        tensors = {}
        for tensor in reader.tensors:
            shape = tuple(int(side) for side in reversed(tensor.shape.tolist()))
            if (own := reader.fields.get(f"comfy.gguf.orig_shape.{tensor.name}")) is not None:
                shape = tuple(int(side) for side in own.contents())  # stored in rows of whole blocks
            begin = int(tensor.data_offset)
            tensors[tensor.name] = Entry(tensor.tensor_type.name, shape, begin, begin + int(tensor.n_bytes))
        fields = reader.fields
        metadata = {}
        for key, value in fields.items():
            if key.startswith(("general.", "comfy.")):
                metadata[key] = str(value.contents())
    except Exception as error:  # the package raises whatever it stumbles over
        raise CheckpointError(
            f"{path} is no GGUF file that can be read, or is truncated ({type(error).__name__}). Fetch it again."
        ) from error
    _check_whole(path, tensors, size)
    return Header((path,), tensors, dict.fromkeys(tensors, path), metadata, gguf=True)
