"""Failures of the Hub, the network and the disk, as sentences with a remedy."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub import get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from uso.errors import MissingWeightsError
from uso.weights.hub.cache import Hub


@contextmanager
def plain_errors(repo: str, revision: str, hub: Hub, command: str) -> Iterator[None]:
    """Turn what goes wrong with a repository into a sentence.

    Args:
        command: the command to run once the cause is gone.

    Raises:
        MissingWeightsError: replaces errors of huggingface_hub, the network or the disk.
    """
    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, EOFError, ValueError) as error:
        known = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
        raise MissingWeightsError(explained(known, repo, revision, hub, command)) from error


def beneath(error: BaseException) -> BaseException | None:
    """The failure of Hub or network that caused another library's error; None if there is none."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, HfHubHTTPError | OfflineModeIsEnabled | httpx2.HTTPError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def explained(error: BaseException, repo: str, revision: str, hub: Hub, command: str) -> str:
    """One failure as a sentence; arguments as in `plain_errors`."""
    # The order matters: many of these errors are OSErrors too.
    if isinstance(error, HfHubHTTPError):
        return _refusal(error, repo, revision, hub, command)
    if isinstance(error, OfflineModeIsEnabled):
        return f"Offline mode is on (HF_HUB_OFFLINE), so nothing can be fetched. Switch it off and run `{command}`."
    if isinstance(error, OSError) and not isinstance(error, LocalEntryNotFoundError):
        return _disk_trouble(error, hub, command)
    if isinstance(error, ValueError):
        return f"{hub.endpoint} does not answer as a Hub does ({error}). Check HF_ENDPOINT."
    return (
        f"The connection to {hub.endpoint} failed ({error}). Run `{command}` when it is back: what has arrived is "
        "kept, and the download goes on from there."
    )


def _refusal(error: HfHubHTTPError, repo: str, revision: str, hub: Hub, command: str) -> str:
    """What a refusal by the Hub means, and what to do."""
    has_token = bool(get_token() if hub.token is None else hub.token)
    token = "the access token in use does not open it" if has_token else "no access token is set"
    if isinstance(error, GatedRepoError):
        return (
            f"{repo} is gated, and {token}. Accept its licence on https://huggingface.co/{repo}, set HF_TOKEN to a "
            f"read token of that account (or run `hf auth login`), and run `{command}`."
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"There is no repository {repo} at {hub.endpoint}, or it is private and {token}. Correct `repo` in the "
            "model's configuration, or set HF_TOKEN."
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} has no revision '{revision}'. Correct `revision` in the model's configuration."
    if isinstance(error, RemoteEntryNotFoundError):
        return f"{repo} no longer has a file that it listed ({error.request.url}). Run `{command}` to look again."
    status = error.response.status_code
    if status == 401:
        return f"{hub.endpoint} does not accept the access token. Set HF_TOKEN to one that is valid, or to none."
    reason = error.server_message or error.response.reason_phrase
    return f"{hub.endpoint} refused {repo} with status {status} ({reason}). Try `{command}` again later."


def _disk_trouble(error: OSError, hub: Hub, command: str) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk that holds {hub.cache} is full. Free some space and run `{command}` to go on, or set HF_HOME to "
            "a folder on another disk."
        )
    return (
        f"The cache {hub.cache} cannot be used ({error.strerror or error}). Make it writable, or set HF_HOME to a "
        f"folder that is, and run `{command}`."
    )
