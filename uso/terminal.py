"""Output of the command line: messages, and bars on a terminal.

Only paths of finished pictures go to stdout, one per line, for scripts to read. Messages and bars go to stderr.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from uso.request import Progress


def printable(text: str) -> str:
    """`text` with control characters escaped, since records may come from strangers."""
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)


def say(text: str) -> None:
    """Print a message for the user to stderr, which scripts do not read."""
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        print(printable(text), file=sys.stderr, flush=True)


class _Saying(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def log_to_terminal(level: int) -> None:
    """Show this program's log records from `level` up, and other libraries' warnings."""
    logging.basicConfig(handlers=[_Saying()], format="%(message)s", level=logging.WARNING)
    logging.getLogger("uso").setLevel(level)


def on_terminal() -> bool:
    return sys.stderr.isatty()


def print_path(path: Path) -> None:
    """Print the path of a finished picture to stdout; as raw bytes if stdout cannot encode it."""
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stdout):
        try:
            print(path, flush=True)
        except UnicodeEncodeError:  # raised before anything is written
            sys.stdout.buffer.write(os.fsencode(path) + b"\n")
            sys.stdout.flush()


@contextmanager
def loading_bar() -> Iterator[Callable[[str, float], None]]:
    """A bar for `load_pipeline(on_progress=...)`, from stage and share, 0 to 1."""
    from tqdm import tqdm

    form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}"
    with tqdm(total=100, bar_format=form, leave=False, disable=not on_terminal()) as bar:

        def show(stage: str, share: float) -> None:
            bar.set_description_str(stage, refresh=False)
            bar.n = round(100 * share)
            bar.refresh()

        yield show


@contextmanager
def step_bar(label: str = "") -> Iterator[Callable[[Progress], None]]:
    """A bar for the `Progress` events of one request; counts denoising steps over all its pictures."""
    from tqdm import tqdm

    with tqdm(unit="step", leave=False, disable=not on_terminal()) as bar:

        def show(progress: Progress) -> None:
            several = f" {progress.image_index + 1}/{progress.num_images}" if progress.num_images > 1 else ""
            bar.set_description_str(f"{label}{progress.stage}{several}", refresh=False)
            if progress.stage == "denoise":
                bar.total = progress.num_steps * progress.num_images
                bar.n = progress.num_steps * progress.image_index + progress.step
            bar.refresh()

        yield show
