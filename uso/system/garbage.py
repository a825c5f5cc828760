"""Python's garbage collector, kept off what a program holds for all its life.

torch, diffusers and Gradio are half a million objects. The collector goes through them again and again while they are
imported, in a quarter of the processor time of that, and at each full collection afterwards. That stops every thread:
for up to a second on a busy machine.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0


@contextmanager
def uncollected() -> Iterator[None]:
    """Nothing is collected inside, and what is there at the end never is. For imports and what is built once.

    Several threads may be inside: the last one to leave turns the collector on again.
    """
    global _inside
    with _lock:
        _inside += 1
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                gc.freeze()
                gc.enable()


def keep_what_is_there() -> None:
    """Collect once, and never go again through what is left. For the moment when everything has been loaded."""
    gc.collect()
    gc.freeze()
