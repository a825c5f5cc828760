"""The released rule, FLUX's rule, and a number; exact values are held by the golden case."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from uso.pipeline.schedule import flux_mu, schedule_mu, schedule_sigmas, set_schedule


def test_named_rules() -> None:
    """Figures of the design: mu 0.4675 where FLUX has 1.15, so sigma 0.516 and not 0.678 at step 15 of 25."""
    assert schedule_mu("uso", 1024, 1024) == pytest.approx(0.4675)
    assert schedule_mu("flux", 1024, 1024) == pytest.approx(1.15)
    assert schedule_sigmas("uso", 25, 1024, 1024)[15] == pytest.approx(0.516, abs=5e-4)
    assert schedule_sigmas("flux", 25, 1024, 1024)[15] == pytest.approx(0.678, abs=5e-4)


def test_flux_rule_is_the_one_diffusers_has() -> None:
    """FLUX.1's own scheduler settings with dynamic shifting give the same sigmas."""
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0, max_shift=1.15, base_shift=0.5)
    linear = torch.linspace(1, 0, 21)[:-1].tolist()
    scheduler.set_timesteps(sigmas=linear, mu=flux_mu(64 * 48))
    ours = schedule_sigmas("flux", 20, 64 * 16, 48 * 16)
    assert torch.allclose(scheduler.sigmas[:-1], torch.tensor(ours), atol=1e-6)


def test_a_number_is_mu_and_zero_is_no_shift() -> None:
    assert schedule_mu(0.75, 512, 768) == 0.75
    assert schedule_sigmas(0.0, 4, 512, 512) == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert schedule_sigmas(math.log(3), 4, 512, 512)[2] == pytest.approx(0.75)


def test_schedule_ends_at_a_clean_picture() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)
    for steps in (1, 4, 50):
        sigmas = set_schedule(scheduler, "uso", steps, 512, 768)
        assert len(sigmas) == steps + 1 and sigmas[0] == 1.0 and sigmas[-1] == 0.0
        assert all(high > low for high, low in pairwise(sigmas.tolist()))
