"""Which model, device, dtype and plan are chosen, and the sentence that says why."""

from pathlib import Path

import pytest
import torch

from uso.errors import ConfigError
from uso.memory.plan import GIB
from uso.weights import choices
from uso.weights.choices import choose_device, choose_dtype, choose_model, choose_plan
from uso.weights.hub import files as hub_files

DEMO = ", so the demo model draws this."


def test_auto_runs_the_demo_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(hub_files, "missing", lambda _: [])
    for version, words in (("12.8", "here"), (None, "here (this PyTorch is built without CUDA)")):
        monkeypatch.setattr(torch.version, "cuda", version)
        config, reason = choose_model("auto")
        assert config.name == "demo"
        assert reason == f"PyTorch finds no GPU {words}, and FLUX.1-dev needs one{DEMO}"


def test_auto_runs_the_demo_where_the_processor_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches "PyTorch finds no GPU here" beside a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config, reason = choose_model("auto", device="cpu")
    assert (config.name, reason) == ("demo", f"The CPU was requested, and FLUX.1-dev needs a GPU{DEMO}")


@pytest.mark.parametrize(
    ("absent", "free", "name", "says"),
    [
        (["transformer", "lora"], 24, "demo", "not on this disk (transformer, lora missing)"),
        ([], 7, "demo", "needs 7.5 GiB of free GPU memory, and 7.0 GiB are free"),
        ([], 24, "flux-dev", "on this disk, and the GPU can hold it"),
    ],
)
def test_auto_goes_by_the_weights_and_the_memory(
    monkeypatch: pytest.MonkeyPatch, absent: list[str], free: int, name: str, says: str
) -> None:
    monkeypatch.setattr(choices, "choose_device", lambda _: torch.device("cuda:0"))
    monkeypatch.setattr(hub_files, "missing", lambda _: absent)
    monkeypatch.setattr(choices, "free_device_bytes", lambda _: free * GIB)
    config, reason = choose_model("auto")
    assert config.name == name
    assert says in reason


@pytest.mark.parametrize(("free", "name"), [(37, "demo"), (38, "flux-dev")])
def test_auto_asks_on_a_mac_for_all_of_the_weights(free: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches 32 GiB loaded into the memory of a small Mac because a plan that streams would need 7.5."""
    monkeypatch.setattr(choices, "choose_device", lambda _: torch.device("mps"))
    monkeypatch.setattr(hub_files, "missing", lambda _: [])
    monkeypatch.setattr(choices, "free_device_bytes", lambda _: free * GIB)
    config, reason = choose_model("auto")
    assert config.name == name
    assert name == "flux-dev" or "needs 37.4 GiB of free GPU memory, and 37.0 GiB are free" in reason


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="There is no model 'typo'. Choose one of: demo, flux-dev"):
        choose_model("typo")
    with pytest.raises(ConfigError, match="There is no device 'tpux'"):
        choose_device("tpux")
    with pytest.raises(ConfigError, match=r"'cuda:99': this machine shows \d+ CUDA devices"):
        choose_device("cuda:99")
    with pytest.raises(ConfigError, match="no dtype 'float8'. Choose one of: auto, bfloat16, float32"):
        choose_dtype("float8", torch.device("cpu"))
    with pytest.raises(ConfigError, match="There is no memory plan 'tiny'"):
        choose_plan("tiny", torch.device("cpu"), 0)


def test_dtype_and_plan_follow_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, cpu = torch.device("cuda:0"), torch.device("cpu")
    assert choose_dtype("auto", cuda) == torch.bfloat16
    assert choose_dtype("auto", cpu) == torch.float32
    assert choose_plan("auto", cpu, 30 * GIB).name == "cpu"
    assert choose_plan("auto", torch.device("mps"), 30 * GIB).name == "mps"
    for free, weights, name in ((24, 33, "24gb"), (24, 18, "full"), (17, 33, "16gb"), (80, 33, "full"), (8, 33, "8gb")):
        monkeypatch.setattr(choices, "free_device_bytes", lambda _, free=free: free * GIB)
        assert choose_plan("auto", cuda, weights * GIB).name == name
    monkeypatch.setattr(choices, "free_device_bytes", lambda _: 5 * GIB)
    with pytest.raises(ConfigError, match="5.0 GiB of GPU memory are free, and the leanest memory plan wants 7.5"):
        choose_plan("auto", cuda, 33 * GIB)
    with pytest.raises(ConfigError, match="on MPS both are one. Choose 'mps'"):
        choose_plan("8gb", torch.device("mps"), 0)


def test_files_that_auto_would_leave_unused_are_refused(monkeypatch: pytest.MonkeyPatch, golden_folder: Path) -> None:
    """Falling back to the demo must not drop `--vae FILE` in silence."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="The demo has no use for --vae. Name the model: --model flux-dev"):
        choose_model("auto", files={"vae": str(golden_folder / "ae.safetensors")})
