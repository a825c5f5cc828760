"""Configurations of runs: what ships, what is refused, and what overrides reach."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from uso.cli.main import REFUSED, main
from uso.errors import ConfigError
from uso.training.config import load_training_config

GIB = 2**30


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["train", *arguments]) == REFUSED
    return capsys.readouterr().err


def test_shipped_configs_are_the_papers() -> None:
    """Catches a typing error in the numbers of arXiv 2508.18966."""
    stage1, stage2, joint = (load_training_config(name) for name in ("stage1", "stage2", "joint"))
    assert (stage1.steps, stage1.batch, stage1.data.resolution, stage1.reward.start_step) == (23000, 16, 768, 16000)
    assert (stage2.steps, stage2.batch, stage2.data.resolution, stage2.reward.start_step) == (21000, 64, 1024, 18000)
    assert stage1.optimizer.lr == stage2.optimizer.lr == 8e-5
    assert (stage1.learns, stage1.reads) == (("projector",), ("style",))
    assert (stage2.learns, stage2.reads, stage2.lora.rank) == (("lora",), ("style", "content"), 128)
    assert (joint.learns, joint.dropout.style + joint.dropout.content) == (("projector", "lora"), 0.25)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimizer.lrr=1"], "There is no key optimizer.lrr. Did you mean optimizer.lr? Known here: optimizer.betas"),
        (["optimiser.lr=1"], "There is no key optimiser. Did you mean optimizer?"),
        (["steps.x=1"], "There is no key steps"),
        (["optimizer.lr"], "is no override. Write key=value"),
        (["optimizer.lr=-1"], "optimizer.lr: Input should be greater than 0"),
        (["learns=[]"], "learns must name at least one"),
        (["learns=[projector, lorra]"], "learns.1"),
        (["learns=[lora, transformer]", "start.projector=x"], "two ways to change one thing"),
        (["reads=[]"], "reads must name style where the projector learns"),
        (["learns=[lora]"], "start.projector must name a file"),
        (["precision=float32"], "base must be float32"),
        (["dropout.style=0.1"], "dropout.style must be 0 where the projector learns alone"),
        (["shard=true"], "shard must be false where there is a reward or a teacher"),
        (["reward.last=30"], "last must be at most steps"),
        (["dropout.content=0.6", "dropout.style=0.5"], "must add up to at most 1"),
        (["flow.sampling=uno", "flow.shift=uso"], "shift must be flux where sampling is uno"),
    ],
)
def test_wrong_values_are_refused_in_words(overrides: Sequence[str], said: str) -> None:
    """Catches an override that is dropped in silence: the run would be another one than was asked for."""
    with pytest.raises(ConfigError) as error:
        load_training_config("stage1", overrides)
    assert said in str(error.value)


def test_overrides_reach_their_place(tmp_path: Path) -> None:
    """Catches an override that replaces its whole section, and a file's unknown key that is let through."""
    config = load_training_config("stage1", ["optimizer.lr=1e-4", "ema=null", "data.aspects=['1:1']"])
    assert (config.optimizer.lr, config.optimizer.warm_up, config.ema) == (1e-4, 500, None)
    assert (config.data.aspects, config.data.resolution) == (("1:1",), 768)
    path = tmp_path / "own.yaml"
    path.write_text("descriptio: x\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="there is no key descriptio. Did you mean description"):
        load_training_config(str(path))
    with pytest.raises(ConfigError, match="Choose one of: finetune, .*stage2"):
        load_training_config("stage3")


def test_batch_does_not_depend_on_processes() -> None:
    """Catches a batch that grows with the number of cards, and one that cannot be cut up."""
    config = load_training_config("stage2")
    assert [config.accumulation(processes) for processes in (1, 8)] == [64, 8]
    with pytest.raises(ConfigError, match="batch 64 is no multiple of micro_batch 1 times 7 processes"):
        config.accumulation(7)
