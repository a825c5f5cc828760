"""What a weights file holds, read from its header: names, shapes and types of its tensors. No torch, no numbers.

Safetensors and GGUF files are understood. Everything else is refused, and the message says what it is: a git-LFS
pointer, a web page, a pickle, a truncated file, an unfinished download.
"""

import functools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from uso.errors import CheckpointError

SUFFIXES = (".safetensors", ".sft", ".gguf")
"""Endings of weights files, in lower case. The content decides what a file is."""

MAX_HEADER_BYTES = 100_000_000
"""The safetensors format's own limit."""

ZERO_TAIL_BYTES = 4096
"""A weight matrix does not end in so many zeros; a file whose download was prepared and never finished does."""

_LONGEST_TAIL = 64 << 20
"""Bytes of zeros after which no more are looked at."""

_LENGTH_BYTES = 8
_BLOCK = 1 << 20

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
            values = json.loads(file.read(length))
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{path} is no safetensors file that can be read ({error}).") from error
    _check_whole(path, tensors, size)
    return Header((path,), tensors, dict.fromkeys(tensors, path), metadata)


_PICKLE_REMEDY = "Only safetensors and GGUF weights are loaded. Convert it, or fetch a file of that kind."


def _refuse_other_formats(path: Path, begin: bytes, size: int) -> None:
    if begin.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a git-LFS pointer of {size} bytes, not the weights. Run `git lfs pull` in that folder, or "
            "download the file itself."
        )
    text = begin.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise CheckpointError(
            f"{path} is a web page that was saved in the place of the weights. Download the file again; a gated model "
            "needs a login."
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
        empty = [name for _, name, entry in entries if entry.begin >= zeros_from and entry.end - entry.begin > 64]
        torn = [name for end, name, entry in entries if entry.begin < zeros_from <= end - ZERO_TAIL_BYTES]
        if torn or len(empty) > 1:
            raise CheckpointError(
                f"{path} is an unfinished download: from {(torn or empty)[0]} on it holds zeros alone. Fetch it again."
            )


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
