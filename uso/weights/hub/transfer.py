"""Bring files of a repository into the cache: resumed, verified, one process at a time.

huggingface_hub 2.4 downloads to a file with a random name. It deletes that file on failure and never finds it again
after being killed; with Xet it writes the file out of order. So this module receives the bytes itself, over plain HTTP
(which serves files stored in Xet too), into a partial file with a lasting name, under huggingface_hub's own lock.
"""

import hashlib
import logging
import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import httpx2
from huggingface_hub import constants, get_session, hf_hub_url, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import are_symlinks_supported
from huggingface_hub.utils import WeakFileLock, build_hf_headers, hf_raise_for_status, tqdm

from uso.errors import CheckpointError
from uso.files import where_supported
from uso.weights.hub.cache import Hub
from uso.weights.hub.listing import RemoteFile, size_of

logger = logging.getLogger(__name__)

OnProgress = Callable[[str, float], None]

CHUNK = 1 << 20
"""Bytes written at a time, and the most that a broken connection costs."""

FRUITLESS = 5
"""Connections in a row without progress before the download fails."""

LONGEST_WAIT = 8.0
"""The longest wait between two connections, in seconds; waits start at one second."""

BUSY = (408, 429, 500, 502, 503, 504)
"""HTTP statuses that are worth another attempt."""


class Meter:
    """Progress of a download: calls `on_progress`, and draws a bar on a terminal."""

    def __init__(self, total: int, done: int, on_progress: OnProgress | None) -> None:
        self.total = total
        self.done = done
        self.on_progress = on_progress
        self.text = ""
        self.bar = tqdm(total=total, initial=done, unit="B", unit_scale=True, disable=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def stage(self, text: str) -> None:
        self.text = text
        self.bar.set_description(text)
        self.moved(0)

    def moved(self, count: int) -> None:
        """Count `count` more bytes; negative if some have to be fetched again."""
        self.done += count
        self.bar.update(count)
        if self.on_progress is not None:
            self.on_progress(self.text, self.done / self.total if self.total else 1.0)


def fetch(file: RemoteFile, hub: Hub, meter: Meter) -> None:
    """Receive the rest of a file, verify it, and move it to the cache's blobs.

    If another process is fetching the same file, wait for it and use its result.

    Raises:
        CheckpointError: the received file is damaged; it has been removed.
        Exception: any error of network or disk; received bytes are kept.
    """
    partial, blob = file.partial(hub), file.blob(hub)
    meter.stage(f"Downloading {file.name}")
    blob.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(_lock(hub, file.repo, file.digest)):
        if file.whole(hub):
            return
        receive(file, partial, hub, meter)
        meter.stage(f"Verifying {file.name}")
        if not is_intact(partial, file):
            partial.unlink()
            raise damaged(file)
        os.replace(partial, blob)


def receive(file: RemoteFile, partial: Path, hub: Hub, meter: Meter) -> None:
    """Append to `partial` until it has the file's size, over as many connections as needed."""
    fruitless = 0
    with partial.open("ab") as target:
        if _length(target) > file.size:
            target.truncate(0)
        while (start := _length(target)) < file.size:
            reason: Exception = EOFError("the server stopped early")
            try:
                _one_connection(file, target, hub, meter)
            except httpx2.TransportError as error:
                reason = error
            except HfHubHTTPError as error:
                if error.response.status_code not in BUSY:
                    raise
                reason = error
            if (length := _length(target)) >= file.size:
                break
            fruitless = 0 if length > start else fruitless + 1
            if fruitless >= FRUITLESS:
                raise reason
            logger.info("%s: %s; going on at byte %d of %d.", file.name, reason, length, file.size)
            time.sleep(min(2.0**fruitless, LONGEST_WAIT))
        with where_supported():
            os.fsync(target.fileno())


def _length(target: BinaryIO) -> int:
    return os.fstat(target.fileno()).st_size


def _one_connection(file: RemoteFile, target: BinaryIO, hub: Hub, meter: Meter) -> None:
    """Append what one connection brings, starting at the end of `target`."""
    start = _length(target)
    url = hf_hub_url(file.repo, file.path, revision=file.commit, endpoint=hub.endpoint)
    # Always from the Hub's own address: the one it redirects to may expire before a slow download ends.
    headers = build_hf_headers(token=hub.token, headers={"Accept-Encoding": "identity"})
    if start:
        headers["Range"] = f"bytes={start}-"
    with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        hf_raise_for_status(response)
        if start and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            target.truncate(0)  # the server sends the whole file
            meter.moved(-start)
        for chunk in response.iter_bytes(CHUNK):
            target.write(chunk)
            target.flush()
            meter.moved(len(chunk))


def _lock(hub: Hub, repo: str, name: str) -> Path:
    path = hub.cache / ".locks" / hub.folder(repo).name / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def publish(files: list[RemoteFile], hub: Hub) -> None:
    """Link blobs into a snapshot under their names, then point the revision to its commit. The revision comes last, so
    an interrupted download leaves the previous snapshot in force.

    Args:
        files: all from one repository, revision and commit.
    """
    repo, revision, commit = files[0].repo, files[0].revision, files[0].commit
    with WeakFileLock(_lock(hub, repo, "names")):  # files that another process has moved are no longer stale
        stale = [file for file in files if size_of(file.pointer(hub)) != file.size]
        for file in stale:
            file.pointer(hub).unlink(missing_ok=True)
        if stale and not are_symlinks_supported(hub.cache):
            _move(stale, hub)
    if stale:
        snapshot_download(
            repo,
            revision=commit,
            cache_dir=hub.cache,
            endpoint=hub.endpoint,
            token=hub.token,
            allow_patterns=[file.path for file in files],
            tqdm_class=_NoBar,
        )
    for file in stale:
        if size_of(file.pointer(hub)) != file.size:  # snapshot_download may only warn when it fails to ask
            raise EOFError(f"{hub.endpoint} did not list the files again")
    if hub.known_commit(repo, revision) != commit:
        reference = hub.folder(repo) / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        temporary = reference.with_name(f"{reference.name}.{uuid.uuid4().hex}.tmp")
        temporary.write_text(commit, encoding="utf-8")
        os.replace(temporary, reference)


def _move(files: list[RemoteFile], hub: Hub) -> None:
    """Move blobs to their names on a disk without symbolic links, where huggingface_hub would copy them and need twice
    the space. A blob with several names is copied to all but the last."""
    left = Counter(file.blob(hub) for file in files)
    for file in files:
        blob, pointer = file.blob(hub), file.pointer(hub)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        left[blob] -= 1
        if left[blob]:
            shutil.copyfile(blob, pointer)
        else:
            os.replace(blob, pointer)


class _NoBar(tqdm):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "disable": True})


def verify_file(file: RemoteFile, hub: Hub, meter: Meter) -> None:
    """Verify a file of the cache.

    Raises:
        CheckpointError: the file is damaged; it has been removed.
    """
    pointer = file.pointer(hub)
    meter.stage(f"Verifying {file.name}")
    if not is_intact(pointer, file, meter.moved):
        pointer.resolve().unlink(missing_ok=True)
        pointer.unlink(missing_ok=True)
        raise damaged(file)


def is_intact(path: Path, file: RemoteFile, on_read: Callable[[int], None] = lambda count: None) -> bool:
    """Whether `path` has the size and hash that the Hub lists."""
    if size_of(path) != file.size:
        return False
    is_sha256 = len(file.digest) == hashlib.sha256().digest_size * 2
    digest = hashlib.sha256() if is_sha256 else hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as source:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            on_read(len(chunk))
    return digest.hexdigest() == file.digest


def damaged(file: RemoteFile) -> CheckpointError:
    return CheckpointError(
        f"{file.path} of {file.repo} is damaged: it is not the {file.size} bytes with the hash {file.digest[:12]}... "
        "that the Hub promised. It was removed from the cache; run the command again to fetch it anew."
    )
