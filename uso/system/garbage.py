"""Python's garbage collector, kept off what a program holds for all its life.

torch, diffusers and Gradio are half a million objects. At Python's own pace the collector goes through them again and
again while they are imported, in a quarter of the processor time of that, and at each full collection afterwards. That
stops every thread: for up to a second on a busy machine.
"""

import gc

SELDOM = 50_000
"""Objects that are made, and not yet removed, from one collection of young ones to the next; Python's own is 700."""


def collect_seldom() -> None:
    """To be called first, before large packages are imported."""
    gc.set_threshold(SELDOM)


def keep_what_is_there() -> None:
    """Collect once, and never go again through what is left. For the moment when everything has been loaded."""
    gc.collect()
    gc.freeze()
