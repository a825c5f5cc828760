"""Random numbers by what they are for: one seed, one purpose and one place in the run give one generator.

No generator outlives its use, so the place in the run is the whole state. A resumed run, or one on more processes,
draws what a run in one piece draws.
"""

import hashlib

import torch


def generator(seed: int, purpose: str, *place: int) -> torch.Generator:
    """A CPU generator for one purpose ("flow", "reward") at one place (micro-batch number, epoch, ...)."""
    text = "/".join([str(seed), purpose, *map(str, place)])
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)
