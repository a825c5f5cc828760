"""Which process this is among those that `torchrun` or `accelerate launch` started, as their variables say it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from uso.errors import ConfigError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
MEETING = ("MASTER_ADDR", "MASTER_PORT")
"""Where processes that talk to each other find each other."""


@dataclass(frozen=True)
class Process:
    """This process among several."""

    rank: int
    world: int
    local_rank: int


def this_process(*, meets: bool = False) -> Process:
    """From RANK, WORLD_SIZE and LOCAL_RANK; a single process if they are not set.

    Args:
        meets: the processes talk to each other, so the variables must say where.

    Raises:
        ConfigError: they are incomplete or make no sense, as they may where an earlier launcher or a container left
            them behind.
    """
    texts = {name: os.environ[name] for name in (*VARIABLES, *MEETING) if os.environ.get(name)}
    own = {name: text for name, text in texts.items() if name in VARIABLES}
    if not own or own.items() <= {("RANK", "0"), ("WORLD_SIZE", "1")}:
        return Process(0, 1, 0)
    missing = [name for name in (*VARIABLES, *(MEETING if meets else ())) if name not in texts]
    if missing:
        raise _refusal(own, f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not set")
    wrong = [name for name in (*VARIABLES, *(MEETING[1:] if meets else ())) if not texts[name].isdecimal()]
    if wrong:
        raise _refusal(own | {name: texts[name] for name in wrong}, f"{wrong[0]} is no number")
    rank, world, local_rank = (int(texts[name]) for name in VARIABLES)
    if rank >= world:
        raise _refusal(own, "RANK must be below WORLD_SIZE")
    if local_rank > rank:
        raise _refusal(own, "LOCAL_RANK must not be above RANK")
    return Process(rank, world, local_rank)


def _refusal(values: dict[str, str], why: str) -> ConfigError:
    return ConfigError(
        f"{_listed([f'{name}={text}' for name, text in values.items()])} in the environment: {why}, so it is unclear "
        f"which process this is. Start it with accelerate launch, or unset {_listed(list(values))}."
    )


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words)
