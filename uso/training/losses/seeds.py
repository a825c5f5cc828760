"""Random numbers by purpose: the seed, the purpose and the position in the run determine a generator.

No generator is kept, so there is no state to save. A resumed run, or one on more processes, draws the same numbers as
an uninterrupted run on one.
"""

import hashlib

import torch


def generator(seed: int, purpose: str, *place: int) -> torch.Generator:
    """A CPU generator for one purpose ("flow", "reward") at one place (micro-batch number, epoch, ...)."""
    text = "/".join([str(seed), purpose, *map(str, place)])
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)
