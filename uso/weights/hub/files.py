"""A model's files on this disk and on the Hugging Face Hub: `locate`, `missing`, `plan_download`, `download`.

Only safetensors weights and tokenizer files are ever fetched. Cached files are used as they are, without the network: a
revision like `main` stands for the commit that was last fetched, until `download` checks again. Reads no weights into
memory, imports no torch.
"""

import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from uso.config import ComponentName, ModelConfig, Source
from uso.errors import MissingWeightsError
from uso.system.network import check_network
from uso.weights.hub.cache import (
    TOKENIZERS,
    Found,
    Hub,
    choose_weights,
    find,
    local_origin,
    name_in,
    split_path,
    tokenizer_names,
)
from uso.weights.hub.errors import plain_errors
from uso.weights.hub.listing import RemoteFile, check_access, list_files
from uso.weights.hub.transfer import Meter, OnProgress, fetch, publish, verify_file

logger = logging.getLogger(__name__)

UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


@dataclass(frozen=True)
class Located:
    """One component's files on this disk."""

    name: ComponentName
    path: Path
    """The component's file or folder."""
    files: tuple[Path, ...]
    """Its safetensors files, sorted by name, or its tokenizer files."""
    origin: dict[str, Any]
    """For every picture's record: repository, revision, commit and path; or base name, size and fingerprint."""


@dataclass(frozen=True)
class DownloadPlan:
    """All files of a model that come from the Hub, and how much of them is already here."""

    files: tuple[RemoteFile, ...]
    bytes_here: int

    @property
    def total_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def bytes_to_fetch(self) -> int:
        return self.total_bytes - self.bytes_here

    def bytes_here_now(self, hub: Hub) -> int:
        return sum(file.bytes_here(hub) for file in self.files)


def command(config: ModelConfig) -> str:
    """The command that fetches a model."""
    return f"python -m uso download --model {config.name}"


def size_text(count: int) -> str:
    """Bytes in readable units: "23.8 GB", "12.4 MB", "0.7 kB"."""
    unit, name = next(((size, name) for size, name in UNITS if count >= size), UNITS[-1])
    return f"{count / unit:.1f} {name}"


def missing(config: ModelConfig, *, hub: Hub | None = None) -> list[ComponentName]:
    """The components that are not, or not completely, on this disk. Does not use the network."""
    hub = hub or Hub()
    return [name for name, found in _found(config, hub).items() if found.absent]


def locate(
    config: ModelConfig,
    *,
    offline: bool = False,
    download: bool = False,
    on_progress: OnProgress | None = None,
    hub: Hub | None = None,
) -> dict[ComponentName, Located]:
    """Find all files of a model, without the network if they are all on this disk.

    Args:
        offline: never fetch, as with HF_HUB_OFFLINE=1.
        download: fetch missing files.
        on_progress: called while fetching with a stage and the share of bytes that is here, 0 to 1.

    Raises:
        MissingWeightsError: files are missing and may not or cannot be fetched; names them and the remedy.
        CheckpointError: files are damaged or not safetensors.
    """
    hub = hub or Hub()
    absent = {name: found for name, found in _found(config, hub).items() if found.absent}
    _refuse_missing_paths(config, absent)
    if absent and (offline or hub.offline or not download):
        raise MissingWeightsError(_not_here(config, absent, offline or hub.offline))
    if absent:
        plan = plan_download(config, hub=hub)
        logger.info(
            "Fetching %s of %s for %s.", size_text(plan.bytes_to_fetch), size_text(plan.total_bytes), config.name
        )
        _download(config, plan, on_progress, hub)
    return _located(config, hub)


def plan_download(config: ModelConfig, *, hub: Hub | None = None) -> DownloadPlan:
    """Ask the Hub which files a model needs, how large they are, and whether access is granted.

    Raises:
        ConfigError: the environment names a proxy or certificates that cannot be used.
        MissingWeightsError: no connection, a gated or unknown repository, an unknown revision, or no such files.
    """
    hub = hub or Hub()
    if not hub.offline:
        check_network(httpx2.Client)
    files: dict[tuple[str, str, str], RemoteFile] = {}
    repositories: dict[tuple[str, str], list[RemoteFile]] = {}
    for name, source in config.components.items():
        if source.repo is None:
            continue
        key = (source.repo, source.revision)
        if key not in repositories:
            with plain_errors(*key, hub, command(config)):
                repositories[key] = list_files(*key, hub)
        for file in _needed(name, source, repositories[key]):
            files[file.repo, file.commit, file.path] = file
    for key in repositories:
        wanted = [file for file in files.values() if (file.repo, file.revision) == key and not file.whole(hub)]
        with plain_errors(*key, hub, command(config)):
            check_access(wanted, hub)
    return DownloadPlan(tuple(files.values()), sum(file.bytes_here(hub) for file in files.values()))


def download(
    config: ModelConfig,
    plan: DownloadPlan,
    *,
    on_progress: OnProgress | None = None,
    verify: bool = True,
    hub: Hub | None = None,
) -> dict[ComponentName, Located]:
    """Fetch the missing files of a plan. Everything is verified before it enters the cache.

    Args:
        on_progress: called with a stage and the share of bytes that is here, 0 to 1.
        verify: also verify files that were already in the cache.

    Raises:
        MissingWeightsError: too little disk space, or the download failed; received bytes are kept.
        CheckpointError: a file is damaged; it has been removed from the cache.
    """
    hub = hub or Hub()
    before = [file for file in plan.files if file.whole(hub)]
    _download(config, plan, on_progress, hub)
    if before and verify:
        with Meter(sum(file.size for file in before), 0, on_progress) as meter:
            for file in before:
                with plain_errors(file.repo, file.revision, hub, command(config)):
                    verify_file(file, hub, meter)
    return _located(config, hub)


def _found(config: ModelConfig, hub: Hub) -> dict[ComponentName, Found]:
    return {name: find(name, source, hub) for name, source in config.components.items()}


def _located(config: ModelConfig, hub: Hub) -> dict[ComponentName, Located]:
    located: dict[ComponentName, Located] = {}
    for name, found in _found(config, hub).items():
        source = config.components[name]
        if found.absent:
            raise MissingWeightsError(_not_here(config, {name: found}, hub.offline))
        origin = _origin(source, found, hub)
        located[name] = Located(name, found.path, found.files, origin)
        level = logging.DEBUG if source.repo is None else logging.INFO
        logger.log(level, "%s: %s", name, ", ".join(f"{key} {value}" for key, value in origin.items()))
    return located


def _origin(source: Source, found: Found, hub: Hub) -> dict[str, Any]:
    if source.repo is None:
        return local_origin(found)
    commit = hub.known_commit(source.repo, source.revision)
    return {"repo": source.repo, "revision": source.revision, "commit": commit, "path": source.path}


def _refuse_missing_paths(config: ModelConfig, absent: dict[ComponentName, Found]) -> None:
    """Refuse local sources that are missing or incomplete, which no download can fix."""
    for name, found in absent.items():
        source = config.components[name]
        if source.repo is not None:
            continue
        if not found.path.exists():
            raise MissingWeightsError(
                f"The {name} of {config.name} should be at {source.path}, and there is no such file or folder. Correct "
                f"the path in the model's configuration, or name another with --{name.replace('_', '-')}."
            )
        raise MissingWeightsError(
            f"The {name} of {config.name} in {source.path} is not complete: {', '.join(found.absent)} is not there."
        )


def _not_here(config: ModelConfig, absent: dict[ComponentName, Found], offline: bool) -> str:
    """A message that names every missing component and file, and the command that fetches them."""
    by_repository: dict[str, list[str]] = {}
    for name, found in absent.items():
        source = config.components[name]
        files = by_repository.setdefault(f"{source.repo} (revision {source.revision})", [])
        files.append(f"{name} ({', '.join(found.absent)})")
    parts = [f"of {repository} {', '.join(files)}" for repository, files in by_repository.items()]
    size_gb = sum(config.components[name].size_gb or 0.0 for name in absent)
    size = f" (about {size_text(round(size_gb * 10**9))})" if size_gb else ""
    return (
        f"{'Offline mode is on, and parts' if offline else 'Parts'} of {config.name} are not on this disk: "
        f"{'; '.join(parts)}. Fetch them with `{command(config)}`{size}{', with a connection' if offline else ''}."
    )


def _needed(name: ComponentName, source: Source, listing: Iterable[RemoteFile]) -> list[RemoteFile]:
    """The files of a repository that make up a component.

    Raises:
        MissingWeightsError: there are none.
    """
    folder, single = split_path(name, source)
    children = {child: file for file in listing if (child := name_in(folder, file.path)) is not None}
    if single:
        names = [single] if single in children else []
    elif name in TOKENIZERS:
        names = tokenizer_names(children)
    else:
        names, index = choose_weights(list(children), f"{source.path} of {source.repo}")
        names = [*names, *(beside for beside in (index, "config.json") if names and beside in children)]
    if not names:
        kind = "tokenizer" if name in TOKENIZERS else "safetensors"
        raise MissingWeightsError(
            f"{source.repo} has no {kind} file at '{source.path}' (revision {source.revision}). Correct the {name} in "
            "the model's configuration; weights are loaded from .safetensors files only."
        )
    return [children[child] for child in names]


def _download(config: ModelConfig, plan: DownloadPlan, on_progress: OnProgress | None, hub: Hub) -> None:
    _check_space(plan, hub)
    absent = [file for file in plan.files if file.whole(hub) is None]
    if absent:
        with Meter(plan.total_bytes, plan.bytes_here_now(hub), on_progress) as meter:
            for file in absent:
                with plain_errors(file.repo, file.revision, hub, command(config)):
                    fetch(file, hub, meter)
                    meter.moved(plan.bytes_here_now(hub) - meter.done)  # equal files arrive together; others may help
    for repo, revision in dict.fromkeys((file.repo, file.revision) for file in plan.files):
        files = [file for file in plan.files if (file.repo, file.revision) == (repo, revision)]
        with plain_errors(repo, revision, hub, command(config)):
            publish(files, hub)


def _check_space(plan: DownloadPlan, hub: Hub) -> None:
    """Refuse a download that does not fit the disk, before it starts."""
    needed = plan.total_bytes - plan.bytes_here_now(hub)
    folder = next(path for path in (hub.cache, *hub.cache.parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise MissingWeightsError(
            f"The download needs {size_text(needed)}, and the disk that holds {hub.cache} has {size_text(free)} free. "
            "Free some space, or set HF_HOME to a folder on another disk."
        )
