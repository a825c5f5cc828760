"""Finding a model's files and fetching them, against a miniature Hub: the real huggingface_hub, nothing mocked."""

import errno
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session, constants

from tests.support.hub_server import HubServer, Repository, sha256
from uso.cli.download import run_download
from uso.config import ROOT, ComponentName, ModelConfig, Source, load_model_config
from uso.errors import CheckpointError, ConfigError, MissingWeightsError, USOError
from uso.weights.hub import files as hub
from uso.weights.hub.cache import Hub
from uso.weights.hub.errors import plain_errors

MIB = 1 << 20
BIG = 5 * MIB
REPO = "lab/flux"
STYLE = "studio/uso"


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def repository(**options: Any) -> Repository:
    """What a repository in the diffusers layout holds: things to fetch, and things that must not be."""
    files = {
        "flux1.safetensors": content(BIG),
        "flux1.bin": content(1000),
        "model_index.json": b"{}",
        "text_encoder/config.json": b'{"a": 1}',
        "text_encoder/model.safetensors": content(3000, 1),
        "text_encoder/model.fp16.safetensors": content(2000),
        "text_encoder/pytorch_model.bin": content(1000),
        "text_encoder/model.onnx": content(1000),
        "text_encoder_2/config.json": b'{"b": 2}',
        "text_encoder_2/model-00001-of-00002.safetensors": content(2500, 2),
        "text_encoder_2/model-00002-of-00002.safetensors": content(1500, 3),
        "text_encoder_2/model.safetensors.index.json": (
            b'{"weight_map": {"x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors"}}'
        ),
        "text_encoder_2/flax_model.msgpack": content(1000),
        "tokenizer/merges.txt": b"a b\n",
        "tokenizer/vocab.json": b'{"a": 0}',
        "tokenizer/tokenizer_config.json": b"{}",
        "tokenizer/README.md": b"read me",
        "tokenizer_2/spiece.model": content(500, 4),
        "tokenizer_2/tokenizer.json": b'{"c": 3}',
    }
    return Repository(files, **options)


WANTED = {
    "flux1.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder_2/config.json",
    "text_encoder_2/model-00001-of-00002.safetensors",
    "text_encoder_2/model-00002-of-00002.safetensors",
    "text_encoder_2/model.safetensors.index.json",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer_2/spiece.model",
    "tokenizer_2/tokenizer.json",
}


def model(**components: Source) -> ModelConfig:
    return load_model_config("demo").model_copy(update={"name": "tiny", "title": "Tiny", "components": components})


def remote(path: str, repo: str = REPO, **options: Any) -> Source:
    return Source(repo=repo, path=path, **options)


def everything() -> ModelConfig:
    folders: tuple[ComponentName, ...] = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    return model(
        transformer=remote("flux1.safetensors", size_gb=0.005),
        **{name: remote(name) for name in folders},
        lora=remote("v1/lora.safetensors", STYLE),
    )


def transformer() -> ModelConfig:
    return model(transformer=remote("flux1.safetensors"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("uso.weights.hub.transfer.LONGEST_WAIT", 0.01)
    with HubServer() as running:
        running.repositories[REPO] = repository()
        running.repositories[STYLE] = Repository({"v1/lora.safetensors": content(700, 5)}, commit="2" * 40)
        yield running
        close_session()


@pytest.fixture
def here(server: HubServer, tmp_path: Path) -> Hub:
    """An empty cache for the server's files."""
    return Hub(endpoint=server.url, cache=tmp_path / "hub", token=False, offline=False)


def fetch(config: ModelConfig, here: Hub, **options: Any) -> dict[ComponentName, hub.Located]:
    return hub.download(config, hub.plan_download(config, hub=here), hub=here, **options)


def wait_for(condition: Callable[[], bool]) -> None:
    """A minute at most."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise TimeoutError("It never came to be.")


LOCATE = """
import sys
from uso import hub
from uso.config import ModelConfig
from uso.errors import USOError
try:
    hub.locate(ModelConfig.model_validate_json(sys.argv[1]), download=True)
except USOError as error:
    sys.exit(str(error))
"""
COMMAND = """
import sys
from uso.config import ModelConfig
from uso.hub_command import run_download
from uso.hub_errors import plain_errors
sys.exit(run_download(ModelConfig.model_validate_json(sys.argv[1]), sys.stderr.write))
"""
Child = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def child(server: HubServer, tmp_path: Path) -> Iterator[Child]:
    """`locate(download=True)` in a process of its own, which knows the Hub from its environment only."""
    processes = []

    def start(config: ModelConfig, code: str = LOCATE, **settings: str) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path), **settings}
        command = [sys.executable, "-c", code, config.model_dump_json()]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_plan_tells_the_size_first_and_asks_for_no_content(server: HubServer, here: Hub) -> None:
    """A plan that forgets files, counts wrong ones, or already downloads."""
    plan = hub.plan_download(everything(), hub=here)
    sizes = {path: len(data) for path, data in server.repositories[REPO].files.items() if path in WANTED}
    assert {file.path: file.size for file in plan.files} == {**sizes, "v1/lora.safetensors": 700}
    assert plan.total_bytes == plan.bytes_to_fetch == sum(sizes.values()) + 700
    assert server.bytes_sent == 0


def test_fetches_just_what_is_needed(server: HubServer, here: Hub, caplog: pytest.LogCaptureFixture) -> None:
    """Pickles, ONNX, fp16 variants or a README being fetched; wrong files handed to the loader; no commit recorded."""
    caplog.set_level(logging.INFO, "uso.weights.hub.files")
    located = fetch(everything(), here)
    assert set(server.sent) == WANTED | {"v1/lora.safetensors"}
    for text in (".bin", ".onnx", ".msgpack", "fp16", "README", "model_index"):
        assert not server.asked(text)
    files = {name: [path.name for path in part.files] for name, part in located.items()}
    assert files == {
        "transformer": ["flux1.safetensors"],
        "text_encoder": ["model.safetensors"],
        "text_encoder_2": ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        "tokenizer": ["merges.txt", "tokenizer_config.json", "vocab.json"],
        "tokenizer_2": ["spiece.model", "tokenizer.json"],
        "lora": ["lora.safetensors"],
    }
    for part in located.values():
        source = everything().components[part.name]
        commit = server.repositories[str(source.repo)].commit
        assert part.path == here.snapshot(str(source.repo), commit) / source.path
        assert part.origin == {"repo": source.repo, "revision": "main", "commit": commit, "path": source.path}
        assert f"commit {commit}" in caplog.text
    assert located["transformer"].path.read_bytes() == server.repositories[REPO].files["flux1.safetensors"]


def test_progress_is_the_share_of_bytes(server: HubServer, here: Hub) -> None:
    """A bar that jumps, runs backwards, or never fills, as where two files are the same."""
    server.repositories[REPO].files["tokenizer/special_tokens_map.json"] = b"{}"
    seen: list[tuple[str, float]] = []
    fetch(everything(), here, on_progress=lambda stage, share: seen.append((stage, share)))
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert sum(0.1 < share < 0.9 for share in shares) >= 4
    assert ("Downloading flux1.safetensors", pytest.approx(1 / 5, abs=0.01)) in seen


def test_second_run_asks_for_no_content_and_locate_for_nothing(server: HubServer, here: Hub) -> None:
    """Files fetched again, or a start of the program that hangs without a network."""
    fetch(everything(), here)
    server.forget()
    plan = hub.plan_download(everything(), hub=here)
    assert plan.bytes_to_fetch == 0
    hub.download(everything(), plan, hub=here)
    assert server.bytes_sent == 0
    server.forget()
    assert hub.missing(everything(), hub=here) == []
    assert hub.locate(everything(), offline=True, hub=here) == hub.locate(everything(), download=True, hub=here)
    assert server.requests == []


@pytest.mark.parametrize("reset", [False, True], ids=["ends early", "reset"])
@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
def test_broken_connection_goes_on_where_it_stopped(server: HubServer, here: Hub, reset: bool, xet: bool) -> None:
    """All 24 GB once more after a hiccup. (huggingface_hub does not retry a reset, nor resume from Xet storage.)"""
    server.repositories[REPO] = repository(xet=xet)
    plan = hub.plan_download(transformer(), hub=here)
    server.cuts, server.reset = {"flux1.safetensors": 3 * MIB}, reset
    server.before_cut = lambda: wait_for(lambda: plan.files[0].bytes_here(here) == 3 * MIB)
    located = hub.download(transformer(), plan, hub=here)
    assert located["transformer"].path.read_bytes() == server.repositories[REPO].files["flux1.safetensors"]
    assert [request.range for request in server.requests if request.storage] == [None, f"bytes={3 * MIB}-"]
    assert server.bytes_sent == BIG


def test_killed_process_is_resumed(server: HubServer, here: Hub, child: Child) -> None:
    """A partial file under a random name, which nobody finds again: what huggingface_hub 2.4 does by itself."""
    server.holds = {"flux1.safetensors": 4 * MIB}
    process = child(transformer())
    assert server.holding.wait(60)
    file = hub.plan_download(transformer(), hub=here).files[0]
    wait_for(lambda: file.bytes_here(here) >= 3 * MIB)
    process.kill()
    process.wait()
    server.forget()
    plan = hub.plan_download(transformer(), hub=here)
    assert 3 * MIB <= plan.bytes_here < BIG
    assert plan.bytes_to_fetch == BIG - plan.bytes_here
    hub.download(transformer(), plan, hub=here)
    assert [request.range for request in server.requests if request.storage] == [f"bytes={plan.bytes_here}-"]
    assert server.bytes_sent == plan.bytes_to_fetch
    assert not file.partial(here).exists()


def test_interrupted_command_says_how_to_go_on(server: HubServer, child: Child) -> None:
    """Ctrl-C answered with a stack trace."""
    server.holds = {"flux1.safetensors": 4 * MIB}
    process = child(transformer(), COMMAND)
    assert server.holding.wait(60)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "Interrupted. Received data is kept: run `python -m uso download --model tiny` to go on." in said
    assert "Traceback" not in said
    assert process.returncode == 130


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
    located = hub.locate(everything(), offline=True, hub=here)
    assert sha256(located["transformer"].path.read_bytes()) == sha256(content(BIG))


@pytest.mark.parametrize("path", ["flux1.safetensors", "tokenizer/vocab.json"], ids=["LFS", "git"])
def test_flipped_byte_on_the_way_is_caught(server: HubServer, here: Hub, path: str) -> None:
    """Damaged weights that load and draw noise. Nothing of them may stay in the cache."""
    server.damaged = {path}
    with pytest.raises(CheckpointError, match=f"{path} of lab/flux is damaged.*run the command again"):
        fetch(everything(), here, verify=False)
    assert not [file for file in here.cache.rglob("*") if file.is_file() and "incomplete" in file.name]
    assert hub.missing(everything(), hub=here)
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
    assert hub.missing(transformer(), hub=here) == ["transformer"]
    fetch(transformer(), here)
    assert path.read_bytes() == content(BIG)


def test_truncated_file_in_the_cache_counts_as_missing(server: HubServer, here: Hub) -> None:
    """A file cut short by a full disk, found complete because its name is there."""
    path = fetch(transformer(), here)["transformer"].path
    os.truncate(path, 1000)
    assert hub.missing(transformer(), hub=here) == ["transformer"]
    assert hub.locate(transformer(), download=True, hub=here)["transformer"].path.stat().st_size == BIG


def test_incomplete_tokenizer_is_noticed_without_a_network(server: HubServer, here: Hub) -> None:
    """A download that was killed between two small files: the folder is there, one of its files is not."""
    fetch(everything(), here)
    (here.snapshot(REPO, "1" * 40) / "tokenizer/tokenizer_config.json").unlink()
    server.forget()
    with pytest.raises(MissingWeightsError, match=r"of lab/flux .* tokenizer \(tokenizer/tokenizer_config.json\)"):
        hub.locate(everything(), hub=here)
    assert server.requests == []


def test_without_permission_nothing_is_fetched(server: HubServer, here: Hub) -> None:
    """`auto` and plain starts that download 38 GB, or a refusal that does not say how to get them."""
    with pytest.raises(MissingWeightsError) as refusal:
        hub.locate(everything(), hub=here)
    assert "of lab/flux (revision main) transformer (flux1.safetensors)" in str(refusal.value)
    assert "of studio/uso (revision main) lora (v1/lora.safetensors)" in str(refusal.value)
    assert "`python -m uso download --model tiny` (about 5.0 MB)" in str(refusal.value)
    assert server.requests == []
    assert len(hub.missing(everything(), hub=here)) == 6


def test_offline_names_what_is_not_here(server: HubServer, here: Hub) -> None:
    """Offline mode that asks the network all the same, or says only that something failed."""
    fetch(transformer(), here)
    server.forget()
    sentence = r"Offline mode is on, and parts of tiny are not on this disk: of lab/flux .* text_encoder \(text_.*"
    with pytest.raises(MissingWeightsError, match=f"{sentence}`python -m uso download --model tiny`") as refusal:
        hub.locate(everything(), offline=True, download=True, hub=here)
    assert "transformer" not in str(refusal.value)
    switched_off = Hub(here.endpoint, here.cache, False, offline=True)
    with pytest.raises(MissingWeightsError, match="Offline mode is on, and parts of tiny"):
        hub.locate(everything(), download=True, hub=switched_off)
    with pytest.raises(MissingWeightsError, match="Offline mode is on .HF_HUB_OFFLINE."):
        hub.plan_download(everything(), hub=switched_off)
    assert server.requests == []


def test_environment_is_heeded(server: HubServer, here: Hub, child: Child) -> None:
    """HF_ENDPOINT, HF_HOME, HF_TOKEN or HF_HUB_OFFLINE that is read from nowhere."""
    server.repositories[REPO] = repository(gated=True, readers=("hf_good",))
    offline = child(transformer(), HF_HUB_OFFLINE="1", HF_TOKEN="hf_good")
    assert "Offline mode is on" in offline.communicate(timeout=60)[1]
    assert server.requests == []
    online = child(transformer(), HF_TOKEN="hf_good")
    assert online.communicate(timeout=60) == (None, "")
    assert not hub.missing(transformer(), hub=here)


def test_gated_repository(server: HubServer, here: Hub) -> None:
    """A bare 401 after an hour of other downloads; a token handed to the storage server."""
    server.repositories[REPO] = repository(gated=True, readers=("hf_good",))
    for token, state in ((False, "no access token is set"), ("hf_bad", "the access token in use does not open it")):
        with pytest.raises(MissingWeightsError) as refusal:
            hub.plan_download(everything(), hub=Hub(here.endpoint, here.cache, token, offline=False))
        assert str(refusal.value) == (
            f"lab/flux is gated, and {state}. Accept its licence on https://huggingface.co/lab/flux, set HF_TOKEN to a "
            "read token of that account (or run `hf auth login`), and run `python -m uso download --model tiny`."
        )
    assert server.bytes_sent == 0
    fetch(everything(), Hub(here.endpoint, here.cache, "hf_good", offline=False))
    assert {request.authorization for request in server.requests if request.storage} == {None}


def test_expired_token(server: HubServer, here: Hub) -> None:
    """ "There is no such repository", said of one that is public, because HF_TOKEN is out of date."""
    server.expired = {"hf_old"}
    with pytest.raises(MissingWeightsError, match="does not accept the access token. Set HF_TOKEN"):
        hub.plan_download(transformer(), hub=Hub(here.endpoint, here.cache, "hf_old", offline=False))


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (remote("a.safetensors", "lab/nothing"), "There is no repository lab/nothing at http.*no access token is set"),
        (remote("flux1.safetensors", revision="v9"), "lab/flux has no revision 'v9'. Correct `revision`"),
        (remote("flux2.safetensors"), "lab/flux has no safetensors file at 'flux2.safetensors'"),
        (remote("flux1.bin"), "no safetensors file at 'flux1.bin'.*only"),
        (remote("tokenizer"), "no safetensors file at 'tokenizer'"),
        (remote("a.safetensors", "lab/flux/extra"), "'lab/flux/extra' is not a repository name"),
    ],
)
def test_wrong_sources_are_refused_in_words(here: Hub, source: Source, sentence: str) -> None:
    """huggingface_hub's own error of six lines with a request id."""
    with pytest.raises(USOError, match=sentence):
        hub.plan_download(model(transformer=source), hub=here)
    if source.repo == "lab/flux/extra":
        with pytest.raises(ConfigError, match=sentence):
            hub.missing(model(transformer=source), hub=here)


def test_no_connection(server: HubServer, here: Hub) -> None:
    """A stack trace, or a wait without end."""
    plan = hub.plan_download(transformer(), hub=here)
    server.stop()
    close_session()
    with pytest.raises(MissingWeightsError, match=r"connection to http.* failed .*Run `python -m uso download"):
        hub.plan_download(transformer(), hub=here)
    with pytest.raises(MissingWeightsError, match="what has arrived is kept"):
        hub.download(transformer(), plan, hub=here)


def test_something_else_than_a_hub_answers(server: HubServer, here: Hub) -> None:
    """A mirror that is not there any more under HF_ENDPOINT."""
    wrong = Hub(f"{server.url}/elsewhere", here.cache, False, offline=False)
    with pytest.raises(MissingWeightsError, match="elsewhere refused lab/flux with status 404"):
        hub.plan_download(transformer(), hub=wrong)


def test_login_page_answers(server: HubServer, here: Hub) -> None:
    """A hotel's network that answers everything with status 200 and a page."""
    server.says = b"<html>Welcome!</html>"
    with pytest.raises(MissingWeightsError, match="does not answer as a Hub does .*Check HF_ENDPOINT"):
        hub.plan_download(transformer(), hub=here)


def test_full_disk_is_noticed_before_the_start(server: HubServer, here: Hub) -> None:
    """A download that fills the disk and fails hours later."""
    server.repositories[REPO].listed_sizes["flux1.safetensors"] = 10**18
    plan = hub.plan_download(transformer(), hub=here)
    server.forget()
    with pytest.raises(MissingWeightsError, match=r"needs 1000000000.0 GB, and the disk that holds .* GB free"):
        hub.download(transformer(), plan, hub=here)
    assert server.requests == []


def test_disk_that_fills_up_on_the_way(here: Hub) -> None:
    """`OSError: [Errno 28]`: another program took the space."""
    with (
        pytest.raises(MissingWeightsError, match="The disk that holds .* is full. Free some space and run `again`"),
        plain_errors(REPO, "main", here, "again"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_cache_that_cannot_be_written(server: HubServer, here: Hub, tmp_path: Path) -> None:
    """A stack trace where the cache is a read-only mount."""
    (tmp_path / "file").write_text("in the way")
    blocked = Hub(here.endpoint, tmp_path / "file" / "hub", False, offline=False)
    with pytest.raises(MissingWeightsError, match=r"cannot be used \(Not a directory\).*set HF_HOME"):
        fetch(transformer(), blocked)


def test_branch_that_moved(server: HubServer, here: Hub) -> None:
    """A new commit half fetched that takes the old, complete one out of use; or a commit that is recorded wrongly."""
    fetch(transformer(), here)
    moved = repository(commit="3" * 40)
    moved.files["flux1.safetensors"] = content(BIG, 9)
    server.repositories[REPO] = moved
    server.damaged = {"flux1.safetensors"}
    with pytest.raises(CheckpointError):
        fetch(transformer(), here)
    assert hub.locate(transformer(), offline=True, hub=here)["transformer"].origin["commit"] == "1" * 40
    server.damaged = set()
    assert fetch(transformer(), here)["transformer"].origin["commit"] == "3" * 40
    (here.folder(REPO) / "refs/main").write_text("")
    assert hub.missing(transformer(), hub=here) == ["transformer"]
    pinned = model(transformer=remote("flux1.safetensors", revision="1" * 40))
    assert hub.locate(pinned, offline=True, hub=here)["transformer"].path.read_bytes() == content(BIG)


def test_disk_without_symbolic_links(server: HubServer, here: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file kept twice, in the end or for a moment: the disk has to hold what the plan says, not double."""

    def copied(*_: Any, **__: Any) -> None:
        raise AssertionError("a file was copied")

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    monkeypatch.setattr(shutil, "copyfile", copied)
    path = fetch(transformer(), here)["transformer"].path
    assert path.is_file() and not path.is_symlink()
    assert list((here.folder(REPO) / "blobs").iterdir()) == []
    assert hub.plan_download(transformer(), hub=here).bytes_to_fetch == 0


def test_command_says_size_state_and_commit(here: Hub) -> None:
    """A download that starts without a word about its size, or a model that cannot be pinned afterwards."""
    said: list[str] = []
    assert run_download(everything(), said.append, hub=here) == 0
    assert "Tiny: 5.3 MB in all, 5.3 MB to fetch." in said
    assert said[-3:] == [
        f"lab/flux  main  commit {'1' * 40}",
        f"studio/uso  main  commit {'2' * 40}",
        "All 6 components of tiny are here and verified.",
    ]
    assert run_download(everything(), said.append, hub=here) == 0
    assert "Tiny: 5.3 MB in all, 0.0 kB to fetch." in said
