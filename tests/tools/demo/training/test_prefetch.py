"""Batches that are read during the step before."""

import threading
import time

import pytest
import torch

from tools.demo.training.prefetch import Prefetcher


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_are_those_of_their_steps(device: str) -> None:
    """From the first step or from a later one. Catches a batch that is one step off, and a thread that stays."""
    with Prefetcher(lambda step: (step, threading.current_thread().name), torch.device(device)) as batches:
        for step in (5, 6, 7, 2, 2, 3):
            number, thread = batches.take(step)
            assert number == step and thread.startswith("prefetch") == (device == "cuda")
    assert not readers()


def test_a_gpu_finds_its_next_batch_read() -> None:
    read = [threading.Event() for _ in range(3)]
    with Prefetcher(lambda step: read[step].set(), torch.device("cuda")) as batches:
        batches.take(0)
        assert read[1].wait(10) and not read[2].is_set()


def test_a_cpu_reads_nothing_before_its_time() -> None:
    seen: list[int] = []
    with Prefetcher(seen.append, torch.device("cpu")) as batches:
        batches.take(0)
        time.sleep(0.05)
    assert seen == [0]


def test_what_goes_wrong_is_said_in_its_own_step() -> None:
    def read(step: int) -> int:
        if step == 1:
            raise ValueError("shard 1")
        return step

    with Prefetcher(read, torch.device("cuda")) as batches:
        assert batches.take(0) == 0
        with pytest.raises(ValueError, match="shard 1"):
            batches.take(1)
    assert not readers()
