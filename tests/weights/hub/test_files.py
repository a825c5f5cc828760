"""A model's files: what is planned, fetched, found and missing, against a miniature Hub; huggingface_hub is real."""

import logging
import os
import signal

import pytest

from tests.support.hub_server import HubServer
from tests.support.tiny_hub import BIG, COMMAND, MIB, REPO, WANTED, Child, everything, fetch, repository, transformer
from uso.cli.download import run_download
from uso.errors import MissingWeightsError
from uso.weights.hub.cache import Hub
from uso.weights.hub.files import download, locate, missing, plan_download


def test_plan_tells_the_size_first_and_asks_for_no_content(server: HubServer, here: Hub) -> None:
    """A plan that forgets files, counts wrong ones, or already downloads."""
    plan = plan_download(everything(), hub=here)
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
    plan = plan_download(everything(), hub=here)
    assert plan.bytes_to_fetch == 0
    download(everything(), plan, hub=here)
    assert server.bytes_sent == 0
    server.forget()
    assert missing(everything(), hub=here) == []
    assert locate(everything(), offline=True, hub=here) == locate(everything(), download=True, hub=here)
    assert server.requests == []


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


def test_truncated_file_in_the_cache_counts_as_missing(server: HubServer, here: Hub) -> None:
    """A file cut short by a full disk, found complete because its name is there."""
    path = fetch(transformer(), here)["transformer"].path
    os.truncate(path, 1000)
    assert missing(transformer(), hub=here) == ["transformer"]
    assert locate(transformer(), download=True, hub=here)["transformer"].path.stat().st_size == BIG


def test_incomplete_tokenizer_is_noticed_without_a_network(server: HubServer, here: Hub) -> None:
    """A download that was killed between two small files: the folder is there, one of its files is not."""
    fetch(everything(), here)
    (here.snapshot(REPO, "1" * 40) / "tokenizer/tokenizer_config.json").unlink()
    server.forget()
    with pytest.raises(MissingWeightsError, match=r"of lab/flux .* tokenizer \(tokenizer/tokenizer_config.json\)"):
        locate(everything(), hub=here)
    assert server.requests == []


def test_without_permission_nothing_is_fetched(server: HubServer, here: Hub) -> None:
    """`auto` and plain starts that download 38 GB, or a refusal that does not say how to get them."""
    with pytest.raises(MissingWeightsError) as refusal:
        locate(everything(), hub=here)
    assert "of lab/flux (revision main) transformer (flux1.safetensors)" in str(refusal.value)
    assert "of studio/uso (revision main) lora (v1/lora.safetensors)" in str(refusal.value)
    assert "`python -m uso download --model tiny` (about 5.0 MB)" in str(refusal.value)
    assert server.requests == []
    assert len(missing(everything(), hub=here)) == 6


def test_offline_names_what_is_not_here(server: HubServer, here: Hub) -> None:
    """Offline mode that asks the network all the same, or says only that something failed."""
    fetch(transformer(), here)
    server.forget()
    sentence = r"Offline mode is on, and parts of tiny are not on this disk: of lab/flux .* text_encoder \(text_.*"
    with pytest.raises(MissingWeightsError, match=f"{sentence}`python -m uso download --model tiny`") as refusal:
        locate(everything(), offline=True, download=True, hub=here)
    assert "transformer" not in str(refusal.value)
    switched_off = Hub(here.endpoint, here.cache, False, offline=True)
    with pytest.raises(MissingWeightsError, match="Offline mode is on, and parts of tiny"):
        locate(everything(), download=True, hub=switched_off)
    with pytest.raises(MissingWeightsError, match="Offline mode is on .HF_HUB_OFFLINE."):
        plan_download(everything(), hub=switched_off)
    assert server.requests == []


def test_environment_is_heeded(server: HubServer, here: Hub, child: Child) -> None:
    """HF_ENDPOINT, HF_HOME, HF_TOKEN or HF_HUB_OFFLINE that is read from nowhere."""
    server.repositories[REPO] = repository(gated=True, readers=("hf_good",))
    offline = child(transformer(), HF_HUB_OFFLINE="1", HF_TOKEN="hf_good")
    assert "Offline mode is on" in offline.communicate(timeout=60)[1]
    assert server.requests == []
    online = child(transformer(), HF_TOKEN="hf_good")
    assert online.communicate(timeout=60) == (None, "")
    assert not missing(transformer(), hub=here)


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
