"""What a repository on the Hub holds: its files at one commit, and how much of each is already here."""

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import OfflineModeIsEnabled

from uso.weights.hub.cache import COMMIT, Hub

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository at one commit."""

    repo: str
    revision: str
    commit: str
    path: str
    size: int
    digest: str
    """SHA-256 of the content (LFS files), or git's SHA-1 of the blob; also its name in the cache."""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def pointer(self, hub: Hub) -> Path:
        return hub.snapshot(self.repo, self.commit) / self.path

    def blob(self, hub: Hub) -> Path:
        return hub.folder(self.repo) / "blobs" / self.digest

    def partial(self, hub: Hub) -> Path:
        return hub.folder(self.repo) / "blobs" / f"{self.digest}.uso.incomplete"

    def whole(self, hub: Hub) -> Path | None:
        """Its path, if it is here and complete."""
        places = (self.pointer(hub), self.blob(hub))
        return next((path for path in places if size_of(path) == self.size), None)

    def bytes_here(self, hub: Hub) -> int:
        """How many of its bytes need not be fetched again."""
        if self.whole(hub):
            return self.size
        arrived = size_of(self.partial(hub)) or 0
        return arrived if arrived <= self.size else 0


def list_files(repo: str, revision: str, hub: Hub) -> list[RemoteFile]:
    """Every file of a repository, at the commit that the revision points to now."""
    if hub.offline:
        raise OfflineModeIsEnabled
    hub.folder(repo)  # refuses an invalid repository name
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    info = api.model_info(repo, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    if info.sha is None or not COMMIT.fullmatch(info.sha):
        raise ValueError("it names no commit")
    files = []
    for entry in info.siblings or ():
        digest = entry.lfs.sha256 if entry.lfs else entry.blob_id
        size = entry.lfs.size if entry.lfs else entry.size
        if size is None or digest is None or not _DIGEST.fullmatch(digest):
            raise ValueError(f"it gives no size or hash of {entry.rfilename}")
        files.append(RemoteFile(repo, revision, info.sha, entry.rfilename, size, digest))
    return files


def check_access(files: list[RemoteFile], hub: Hub) -> None:
    """Request the headers of the first file: a gated repository lists its files to everyone but serves none."""
    for file in files[:1]:
        url = hf_hub_url(file.repo, file.path, revision=file.commit, endpoint=hub.endpoint)
        get_hf_file_metadata(url, token=hub.token, endpoint=hub.endpoint)


def size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
