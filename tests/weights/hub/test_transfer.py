"""One file on its way: broken, resumed, shared, damaged. Against a miniature Hub; huggingface_hub is real."""

import shutil
from typing import Any

import pytest
from huggingface_hub import constants

from tests.support.hub_server import HubServer, sha256
from tests.support.tiny_hub import (
    BIG,
    MIB,
    REPO,
    STYLE,
    Child,
    content,
    everything,
    fetch,
    model,
    remote,
    repository,
    transformer,
    wait_for,
)
from uso.errors import CheckpointError, MissingWeightsError
from uso.weights.hub.cache import Hub
from uso.weights.hub.files import download, locate, missing, plan_download


@pytest.mark.parametrize("reset", [False, True], ids=["ends early", "reset"])
@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
def test_broken_connection_goes_on_where_it_stopped(server: HubServer, here: Hub, reset: bool, xet: bool) -> None:
    """All 24 GB once more after a hiccup. (huggingface_hub does not retry a reset, nor resume from Xet storage.)"""
    server.repositories[REPO] = repository(xet=xet)
    plan = plan_download(transformer(), hub=here)
    server.cuts, server.reset = {"flux1.safetensors": 3 * MIB}, reset
    server.before_cut = lambda: wait_for(lambda: plan.files[0].bytes_here(here) == 3 * MIB)
    located = download(transformer(), plan, hub=here)
    assert located["transformer"].path.read_bytes() == server.repositories[REPO].files["flux1.safetensors"]
    assert [request.range for request in server.requests if request.storage] == [None, f"bytes={3 * MIB}-"]
    assert server.bytes_sent == BIG


def test_killed_process_is_resumed(server: HubServer, here: Hub, child: Child) -> None:
    """A partial file under a random name, which nobody finds again: what huggingface_hub 2.4 does by itself."""
    server.holds = {"flux1.safetensors": 4 * MIB}
    process = child(transformer())
    assert server.holding.wait(60)
    file = plan_download(transformer(), hub=here).files[0]
    wait_for(lambda: file.bytes_here(here) >= 3 * MIB)
    process.kill()
    process.wait()
    server.forget()
    plan = plan_download(transformer(), hub=here)
    assert 3 * MIB <= plan.bytes_here < BIG
    assert plan.bytes_to_fetch == BIG - plan.bytes_here
    download(transformer(), plan, hub=here)
    assert [request.range for request in server.requests if request.storage] == [f"bytes={plan.bytes_here}-"]
    assert server.bytes_sent == plan.bytes_to_fetch
    assert not file.partial(here).exists()


def test_busy_server_is_asked_again(server: HubServer, here: Hub) -> None:
    """An hour's download given up for one 503."""
    server.busy = {"flux1.safetensors": 3}
    fetch(transformer(), here)
    server.repositories[REPO].files["flux1.safetensors"] = content(BIG, 7)
    server.repositories[REPO].commit = "7" * 40
    server.busy = {"flux1.safetensors": 99}
    with pytest.raises(MissingWeightsError, match=r"refused lab/flux with status 503 .*again later"):
        fetch(transformer(), here)


def test_failure_after_the_transfer_keeps_what_arrived(server: HubServer, here: Hub) -> None:
    """Everything fetched twice, because the last small request failed."""
    server.closed = {"/tree/"}
    with pytest.raises(MissingWeightsError, match="status 403"):
        fetch(everything(), here)
    for repo, commit in ((REPO, "1" * 40), (STYLE, "2" * 40)):
        here.snapshot(repo, commit).mkdir(parents=True)  # as others leave it: now huggingface_hub only warns
    with pytest.raises(MissingWeightsError, match="did not list the files again"):
        fetch(everything(), here)
    server.closed = set()
    server.forget()
    fetch(everything(), here)
    assert server.bytes_sent == 0


def test_server_that_ignores_ranges(server: HubServer, here: Hub) -> None:
    """The beginning appended to the beginning, and a progress over 100 %."""
    server.cuts, server.ignores_range = {"flux1.safetensors": 3 * MIB}, True
    shares: list[float] = []
    located = fetch(transformer(), here, on_progress=lambda _, share: shares.append(share))
    assert located["transformer"].path.read_bytes() == server.repositories[REPO].files["flux1.safetensors"]
    assert max(shares) == shares[-1] == 1.0


def test_two_processes_at_once_share_one_download(server: HubServer, here: Hub, child: Child) -> None:
    """Two processes that write into one file, or fetch everything twice."""
    server.holds = {"flux1.safetensors": MIB}
    processes = [child(everything()) for _ in range(2)]
    assert server.holding.wait(60)
    wait_for(lambda: len(server.asked("/api/models/studio")) == 2)
    server.release.set()
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert server.sent["flux1.safetensors"] == BIG
    located = locate(everything(), offline=True, hub=here)
    assert sha256(located["transformer"].path.read_bytes()) == sha256(content(BIG))


@pytest.mark.parametrize("path", ["flux1.safetensors", "tokenizer/vocab.json"], ids=["LFS", "git"])
def test_flipped_byte_on_the_way_is_caught(server: HubServer, here: Hub, path: str) -> None:
    """Damaged weights that load and draw noise. Nothing of them may stay in the cache."""
    server.damaged = {path}
    with pytest.raises(CheckpointError, match=f"{path} of lab/flux is damaged.*run the command again"):
        fetch(everything(), here, verify=False)
    assert not [file for file in here.cache.rglob("*") if file.is_file() and "incomplete" in file.name]
    assert missing(everything(), hub=here)
    server.damaged = set()
    fetch(everything(), here)


def test_damage_in_the_cache_is_caught_and_repaired(server: HubServer, here: Hub) -> None:
    """A bad disk: the size is right, the content is not. `verify=False` leaves it alone."""
    path = fetch(transformer(), here)["transformer"].path
    data = bytearray(path.read_bytes())
    data[1234] ^= 1
    path.write_bytes(data)
    fetch(transformer(), here, verify=False)
    with pytest.raises(CheckpointError, match="flux1.safetensors of lab/flux is damaged"):
        fetch(transformer(), here)
    assert missing(transformer(), hub=here) == ["transformer"]
    fetch(transformer(), here)
    assert path.read_bytes() == content(BIG)


def test_branch_that_moved(server: HubServer, here: Hub) -> None:
    """A new commit half fetched that takes the old, complete one out of use; or a commit that is recorded wrongly."""
    fetch(transformer(), here)
    moved = repository(commit="3" * 40)
    moved.files["flux1.safetensors"] = content(BIG, 9)
    server.repositories[REPO] = moved
    server.damaged = {"flux1.safetensors"}
    with pytest.raises(CheckpointError):
        fetch(transformer(), here)
    assert locate(transformer(), offline=True, hub=here)["transformer"].origin["commit"] == "1" * 40
    server.damaged = set()
    assert fetch(transformer(), here)["transformer"].origin["commit"] == "3" * 40
    (here.folder(REPO) / "refs/main").write_text("")
    assert missing(transformer(), hub=here) == ["transformer"]
    pinned = model(transformer=remote("flux1.safetensors", revision="1" * 40))
    assert locate(pinned, offline=True, hub=here)["transformer"].path.read_bytes() == content(BIG)


def test_disk_without_symbolic_links(server: HubServer, here: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file kept twice, in the end or for a moment: the disk has to hold what the plan says, not double."""

    def copied(*_: Any, **__: Any) -> None:
        raise AssertionError("a file was copied")

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    monkeypatch.setattr(shutil, "copyfile", copied)
    path = fetch(transformer(), here)["transformer"].path
    assert path.is_file() and not path.is_symlink()
    assert list((here.folder(REPO) / "blobs").iterdir()) == []
    assert plan_download(transformer(), hub=here).bytes_to_fetch == 0
