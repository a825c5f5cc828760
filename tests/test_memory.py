"""Every plan draws the same picture, and what visits a device leaves it."""

import pytest
import torch

from tests.golden import Case, check
from tests.test_pipeline import SMALL, references, same
from uso import USOPipeline
from uso.config import load_memory_plan
from uso.loading import load_pipeline


@pytest.mark.parametrize("plan", ["full", "offload"])
def test_every_plan_passes_the_golden_case(golden: Case, plan: str) -> None:
    pipeline = golden.load(plan=load_memory_plan(plan))
    assert [row.what for row in check(golden, pipeline) if not row.passed] == []


def test_offloading_draws_the_same_picture(demo_pipeline: USOPipeline) -> None:
    offloaded = load_pipeline("demo", device="cpu", memory="offload")
    values = SMALL | references("multi_style_subject")
    for _ in range(2):  # the second request finds what the first left behind
        assert same(demo_pipeline("A fox.", **values).images[0], offloaded("A fox.", **values).images[0])


def test_visitors_leave_the_device(golden: Case) -> None:
    """A module that visits another device is back in its own host tensors afterwards, also after an error."""
    pipeline = golden.load(plan=load_memory_plan("offload"))
    before = [p.data_ptr() for p in pipeline.vae.parameters()]
    pipeline.residency.device = torch.device("meta")
    on_device: list[bool] = []

    def fail() -> None:
        with pipeline.residency.visit(pipeline.vae):
            on_device.extend(p.is_meta for p in pipeline.vae.parameters())
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        fail()
    assert all(on_device) and on_device
    assert [p.data_ptr() for p in pipeline.vae.parameters()] == before
