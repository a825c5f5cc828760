"""How blocks are run: one graph per kind of block and shape, the same numbers, kernels that outlive the process.

Most tests count the graphs that are traced and leave code generation out (backend `eager`): whether something is
compiled again does not depend on it.
"""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.config as dynamo
from torch._dynamo.utils import counters

from tests.support.tiny_flux import tiny_request, tiny_steps, tiny_transformer
from uso.config import ROOT
from uso.errors import ConfigError
from uso.memory.streaming import BlockStream
from uso.pipeline import preview
from uso.transformer import compile
from uso.transformer.fp8 import fp8_blocks
from uso.transformer.int8 import quantize_blocks
from uso.transformer.modulation import Modulation

KINDS = 2
"""Double and single blocks: graphs for each shape."""


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def compiled() -> Any:
    """A transformer whose blocks are traced as they would be compiled."""
    transformer = tiny_transformer()
    compile.compile_blocks(transformer, None, backend="eager")
    return transformer


def graphs(transformer: Any, **request: Any) -> int:
    """Graphs that a request traces."""
    before = counters["stats"]["unique_graphs"]
    tiny_steps(transformer, **request)
    return counters["stats"]["unique_graphs"] - before


def test_blocks_run_as_they_are_for_a_while(compiled: Any) -> None:
    """Catches a plain way that is compiled after all, and blocks that stay uncompiled afterwards."""
    blocks = [*compiled.transformer_blocks, *compiled.single_transformer_blocks]
    with compile.uncompiled(compiled):
        assert graphs(compiled, seed=0) == 0
    assert all("forward" in block.__dict__ for block in blocks)
    assert graphs(compiled, seed=0) == KINDS


def test_one_graph_for_each_kind_of_block(compiled: Any) -> None:
    """Not one for each block, and none more for other words, guidance, seeds, or a second step."""
    assert graphs(compiled, seed=0) == KINDS
    assert graphs(compiled, seed=1) == 0
    assert graphs(compiled, seed=2, num_steps=5) == 0


@pytest.mark.slow
def test_a_new_shape_is_compiled_once(compiled: Any) -> None:
    """Sizes and numbers of styles (context tokens), each at its first use: as many as there are, dynamic ones none.

    With dynamic shapes the second size would make graphs that serve all further ones, and a picture would depend on
    what was asked for before it.
    """
    shapes: list[dict[str, int]] = [
        {},
        {"height": 6},
        {"width": 8},
        {"context": 9},
        {"context": 12, "height": 6},
    ]
    assert [graphs(compiled, **shape) for shape in shapes] == [KINDS] * len(shapes)
    assert [graphs(compiled, **shape, seed=3) for shape in shapes] == [0] * len(shapes)


@pytest.mark.slow
def test_more_shapes_than_pytorch_allows(compiled: Any) -> None:
    """Its limits (8 graphs of one kind, 256 in all; made small here) would end the request with an error."""

    def many() -> None:
        dynamo.recompile_limit, dynamo.accumulated_recompile_limit = 2, 3
        counts.extend(graphs(compiled, context=context) for context in range(2, 7))

    counts: list[int] = []
    thread = threading.Thread(target=many)  # settings are a thread's own, and the page's requests run in another one
    thread.start()
    thread.join()
    assert counts == [KINDS] * 5


def test_weights_that_move_compile_nothing() -> None:
    """Streamed blocks and the modulation table, in the same graphs."""
    transformer = tiny_transformer()
    modulation = Modulation(transformer)
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    stream = BlockStream(blocks, torch.device("cpu"), slots=2, permanent=1)
    compile.compile_blocks(transformer, None, backend="eager")

    def step(**inputs: Any) -> Any:
        row = torch.randn(1, modulation.width, generator=torch.Generator().manual_seed(0)) * inputs["timestep"]
        modulation.set_row(row)
        return transformer(**inputs)

    assert graphs(transformer, step=step) == KINDS
    assert graphs(transformer, step=step, seed=1, num_steps=8) == 0
    stream.set_resident(4)
    assert graphs(transformer, step=step, seed=2) == 0
    stream.set_resident(1)
    assert graphs(transformer, step=step, seed=3) == 0


@pytest.mark.parametrize("quantize", [quantize_blocks, fp8_blocks])
def test_quantized_blocks_are_traced_whole(quantize: Any) -> None:
    """`fullgraph`: catches anything in an int8 or fp8 layer that the compiler cannot see through."""
    transformer = tiny_transformer(torch.bfloat16)
    quantize(transformer)
    eager = tiny_steps(transformer)
    compile.compile_blocks(transformer, None, backend="eager")
    assert graphs(transformer) == KINDS
    assert torch.equal(tiny_steps(transformer), eager)


def test_slices_and_whole_tensors_are_one_shape() -> None:
    tokens = torch.arange(24.0).reshape(1, 6, 4)
    cut = compile._plain(tokens[:, 2:])
    assert cut.stride() == torch.empty(1, 4, 4).stride() and torch.equal(cut, tokens[:, 2:])
    assert cut.data_ptr() == tokens[:, 2:].data_ptr()


SECOND_PROCESS = """
import sys
from pathlib import Path
from uso.system.garbage import collect_seldom
collect_seldom()
import torch
from torch._dynamo.utils import counters
from tests.support.tiny_flux import tiny_steps, tiny_transformer
from uso.transformer.compile import compile_blocks
transformer = tiny_transformer()
eager = tiny_steps(transformer)
compile_blocks(transformer, Path(sys.argv[1]))
first = tiny_steps(transformer)
tiny_steps(transformer, height=6)
assert torch.equal(tiny_steps(transformer), first), "the picture depends on the request before it"
error = float((first - eager).norm() / eager.norm())
print(counters["inductor"]["fxgraph_cache_hit"], counters["inductor"]["fxgraph_cache_miss"], error, first.sum().item())
"""


@pytest.mark.slow
def test_compiled_blocks_agree_and_are_kept_on_disk(tmp_path: Path) -> None:
    """Real kernels: eager's numbers within 1e-5; a second process finds them on disk and computes the same bits."""
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    runs = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", SECOND_PROCESS, str(tmp_path / "kernels")],
            cwd=ROOT,
            env=environment | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        hits, misses, error, total = done.stdout.split()
        assert float(error) < 1e-5
        runs.append((int(hits), int(misses), total))
    assert runs[0][:2] == (0, 2 * KINDS)
    assert runs[1] == (2 * KINDS, 0, runs[0][2])
    assert list((tmp_path / "kernels").iterdir())


def test_no_compiler_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert "compiler" in (compile.can_compile("cpu") or "")
    with pytest.raises(ConfigError, match="--compile on: No C compiler"):
        compile.choose_compile("on", "cpu")


def test_a_compiler_that_fails_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is installed may still not work: found out by trying, never an exception."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compile, "_trial", _untraceable)
    assert (compile.can_compile("cpu") or "").startswith("A trial compilation failed (")


def test_auto_falls_back_with_a_sentence(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A GPU without Triton: eager, and the log says why."""
    monkeypatch.setitem(sys.modules, "triton", None)
    with caplog.at_level(logging.WARNING):
        assert compile.choose_compile("auto", "cuda") is False
    assert "uncompiled" in caplog.text and "Triton" in caplog.text


@pytest.mark.parametrize(("choice", "device"), [("off", "cuda"), ("auto", "cpu"), ("auto", "mps")])
def test_where_nothing_is_compiled(choice: Any, device: str, caplog: pytest.LogCaptureFixture) -> None:
    assert compile.choose_compile(choice, device) is False
    assert not caplog.records


def test_the_kernels_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set when asked for, made if need be; the user's own choice and a folder that cannot be made are left alone."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    compile.use_cache_folder(None)
    (tmp_path / "file").write_text("")
    compile.use_cache_folder(tmp_path / "file" / "kernels")
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", compile.default_cache_dir())  # as PyTorch does when it has looked
    compile.use_cache_folder(tmp_path / "kernels")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "kernels") and (tmp_path / "kernels").is_dir()
    compile.use_cache_folder(tmp_path / "others")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "kernels")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compile.cache_folder() == tmp_path / "uso" / "compiled"


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_without_a_home_there_is_no_kernels_folder(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    """Catches a container's user, who is in no list of users, for whom no model loads."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", no_home)
    assert compile.cache_folder() is None
    assert preview.cache_folder() is None


def test_several_pipelines_leave_attention_that_switches_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches threads that switch each other's kernels off: cuDNN's attention is asked for by flags of the process."""
    monkeypatch.setattr(compile, "_cudnn_works", lambda transformer, device: True)
    assert compile.choose_attention(tiny_transformer(), "cpu", alone=False) == "native"


def test_attention_on_a_cpu(caplog: pytest.LogCaptureFixture) -> None:
    """PyTorch's own, set on every block, and no warning of diffusers' that the user can do nothing about."""
    transformer = tiny_transformer()
    assert compile.choose_attention(transformer, "cpu") == "native"
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    assert {block.attn.processor._attention_backend.value for block in blocks} == {"native"}
    assert not caplog.records


def test_cudnn_attention_is_a_backend_that_can_be_compiled() -> None:
    """Its name exists in diffusers, and the way it picks PyTorch's kernel is one that `fullgraph` sees through."""
    transformer = tiny_transformer()
    transformer.set_attention_backend(compile.CUDNN)
    transformer.set_attention_backend("_native_math")  # written in the same way, and at home on a CPU
    compile.compile_blocks(transformer, None, backend="eager")
    try:
        assert graphs(transformer) == KINDS
    finally:
        transformer.set_attention_backend(compile.NATIVE)


def test_inductor_knows_the_options() -> None:
    """Catches an option that a new PyTorch has renamed: on a GPU only, the first picture would fail."""
    from torch._inductor import config

    for option in (*compile._SAME_EVERYWHERE, *compile._TUNED_INT8):
        assert option in config.get_config_copy(), option


def test_error_is_a_share_of_the_way() -> None:
    noise, exact = torch.zeros(1, 4, 2), torch.ones(1, 4, 2)
    assert compile.speed_error(exact, exact, noise) == 0
    assert compile.speed_error(exact * 1.1, exact, noise) == pytest.approx(0.1)
    assert compile.speed_error(noise, exact, noise) == 1
    with pytest.raises(ValueError, match="Shapes differ"):
        compile.speed_error(exact[:, :1], exact, noise)


def test_requests_of_the_tests_differ() -> None:
    """The tests above mean nothing if seeds, sizes or steps gave the same tensors."""
    transformer = tiny_transformer()
    noise, inputs = tiny_request(transformer, seed=0)
    other, others = tiny_request(transformer, seed=1)
    assert not torch.equal(noise, other)
    assert not torch.equal(inputs["encoder_hidden_states"], others["encoder_hidden_states"])


def _untraceable(values: torch.Tensor) -> torch.Tensor:
    """A step that no graph can hold."""
    sys.stdout.write("")
    return values if os.getpid() else -values
