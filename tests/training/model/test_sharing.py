"""One copy of the model for the processes of a machine: loaded once, equal in all, and changed by each for itself."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from uso.config import ROOT
from uso.training.model.sharing import _mapped, _move

SCRIPT = """
import os
import sys
from pathlib import Path

from uso.system.garbage import collect_seldom

collect_seldom()
import torch
from accelerate import PartialState

from uso import load_pipeline
from uso.errors import ConfigError
from uso.training.model.sharing import load_once

process = PartialState(cpu=True)
loads = Path(sys.argv[1])

def say(words):  # in one piece: both processes write to one pipe
    os.write(1, f"{process.process_index} {words}\\n".encode())

def load():
    (loads / str(process.process_index)).touch()
    return load_pipeline("demo", device="cpu", offline=True)

def refuse():
    raise ConfigError("There is no such model.")

try:
    load_once(refuse, process)
except ConfigError as error:
    say(error)
pipeline = load_once(load, process)
weights = pipeline.transformer.proj_out.weight
weights += process.process_index  # its own from here on
process.wait_for_everyone()
say(f"{weights.sum().item() - process.process_index * weights.numel():.4f}")
"""


class Tied(nn.Module):
    """Weights of several kinds, two of them tied, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 5)
        self.other = nn.Linear(3, 5)
        self.other.weight = self.one.weight
        self.small = nn.Parameter(torch.randn(7).bfloat16())
        self.register_buffer("table", torch.arange(4, dtype=torch.int8))
        self.register_buffer("number", torch.tensor(2.5))


def test_a_moved_module_has_its_numbers_and_its_ties() -> None:
    """Catches tensors that lie over each other, and weights that are tied in one process and not in the other."""
    module: Any = Tied().requires_grad_(False)
    numbers = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    moved = _move(module)
    assert all(tensor.numel() == 0 for tensor in module.state_dict().values())  # no second copy
    first, second = (_mapped(moved) for _ in range(2))
    os.close(moved.descriptor)
    for mapped in (first, second):
        assert all(torch.equal(tensor, numbers[name]) for name, tensor in mapped.state_dict().items())
        assert mapped.other.weight is mapped.one.weight and isinstance(mapped.small, nn.Parameter)
    first.one.weight += 1
    assert torch.equal(second.one.weight, numbers["one.weight"])


@pytest.mark.slow
def test_the_first_process_loads_for_all(tmp_path: Path, demo_pipeline: Any) -> None:
    """Catches a copy for each process, an error that leaves the others waiting, and changes that others see."""
    script = tmp_path / "load.py"
    script.write_text(SCRIPT, encoding="utf-8")
    (loads := tmp_path / "loads").mkdir()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run(
        [*launch, str(loads)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in loads.iterdir()] == ["0"]
    assert {line for line in done.stdout.splitlines() if "no such model" in line} == {
        "0 There is no such model.",
        "1 There is no such model.",
    }
    total = demo_pipeline.transformer.proj_out.weight.sum().item()
    sums = dict(re.findall(r"^(\d) (-?\d+\.\d+)$", done.stdout, re.MULTILINE))
    assert {process: float(value) for process, value in sums.items()} == {
        "0": pytest.approx(total, abs=0.02),
        "1": pytest.approx(total, abs=0.02),
    }
