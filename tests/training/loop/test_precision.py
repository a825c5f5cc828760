"""What makes steps fast: number formats and compiled blocks, only where they are right."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from tools.demo.parts.autoencoder import AutoencoderLoss, autoencoder_config
from tools.demo.shards.arrays import to_pixels
from tools.demo.training.config import load_part_config
from tools.demo.training.muon import orthogonal
from uso.training.loop.precision import (
    autocast,
    avoid_faulty_kernels,
    compile_residuals,
    compiling,
    multiplies_bfloat16,
)


def test_bfloat16_only_where_it_is_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without instructions for it would be many times slower than in float32, and no more exact."""
    for name, found in (("amx_bf16", True), ("avx2", False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=name: {name: True})
        multiplies_bfloat16.cache_clear()
        with autocast("cpu", "auto"):
            assert torch.is_autocast_enabled("cpu") == found
            product = torch.ones(2, 2) @ torch.ones(2, 2)
            assert product.dtype == (torch.bfloat16 if found else torch.float32)
        assert orthogonal(torch.eye(3)).dtype == torch.float32
    for precision, wanted in (("bfloat16", True), ("float32", False)):
        with autocast("cpu", precision):  # type: ignore[arg-type]
            assert torch.is_autocast_enabled("cpu") == wanted
    multiplies_bfloat16.cache_clear()


def test_without_a_compiler_a_run_goes_uncompiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a run of minutes that ends in a compiler's traceback."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    config = load_part_config("base")
    assert config.compile and not compiling(config, "cpu").compile
    assert "compile=false: No C compiler was found" in caplog.text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of what torch's own compiler imports and traces
def test_compiled_blocks_have_the_gradients_of_eager_ones() -> None:
    """Catches a compiler that loses gradients, as a whole compiled autoencoder did: theirs would be zero."""
    torch.manual_seed(0)
    vae: Any = AutoencoderKL.from_config(autoencoder_config({"widths": [32, 32], "blocks": 1, "groups": 8}))
    vae = vae.to(memory_format=torch.channels_last)
    pixels = to_pixels((np.random.default_rng(0).random((2, 32, 32, 3)) * 255).astype(np.uint8))
    noise = torch.randn(2, 16, 16, 16)

    def gradients() -> dict[str, torch.Tensor]:
        vae.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            squared, _, _ = AutoencoderLoss(vae)(pixels, noise)
        squared.mean().backward()
        return {name: p.grad.float().clone() for name, p in vae.named_parameters() if p.grad is not None}

    eager = gradients()
    compile_residuals(vae)
    compiled = gradients()
    for name in ("encoder.conv_in.weight", "decoder.conv_in.weight", "decoder.conv_out.weight"):
        assert float((eager[name] - compiled[name]).norm() / eager[name].norm()) < 0.2


def test_gradients_on_a_gpu_do_without_attention_of_cudnn() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        avoid_faulty_kernels("cpu")
        assert torch.backends.cuda.cudnn_sdp_enabled()
        avoid_faulty_kernels("cuda:0")
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.flash_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
