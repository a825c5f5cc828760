"""Output of the command line: messages, and bars on a terminal.

Only paths of finished pictures go to stdout, one per line, for scripts to read. Messages and bars go to stderr.
"""

import codecs
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uso.request.request import Progress

FAILED = 1
"""Exit status where something was done, but not all of it."""


def run_program(main: Callable[[], int]) -> int:
    """Run a program whose output may fail: a full disk, a closed stdout or an encoding without the letters raises
    nothing and costs no picture. Returns the exit status: that of `main`, or `FAILED` if stdout could not be written.
    """
    codecs.register_error(_ANY_LETTER, _any_letter)
    out, sys.stdout = _patient(sys.stdout, 1)
    _, sys.stderr = _patient(sys.stderr, 2)
    try:
        status = main()
    except SystemExit as stopped:  # argparse, after --help or a refusal
        status = stopped.code if isinstance(stopped.code, int) else FAILED if stopped.code else 0
    sys.stdout.flush()
    if out.failure is None:
        return status
    if not isinstance(out.failure, BrokenPipeError):  # its reader has seen enough, as in `... | head`
        say(f"stdout cannot be written ({out.failure.strerror}). Pictures that were made are kept.")
    return status or FAILED


class _Patient(io.FileIO):
    """A file whose writes do not fail; the first failure is kept."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            if self.failure is None:
                return super().write(data) or 0
        except BlockingIOError:
            raise
        except OSError as error:
            self.failure = error
        return memoryview(data).nbytes


def _patient(stream: Any, descriptor: int) -> tuple[_Patient, io.TextIOWrapper]:
    """In place of stdout or stderr: the same file, written patiently."""
    try:
        os.fstat(descriptor)
    except OSError:  # closed: else the next file that is opened would get this number, and the output
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != descriptor:
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
    raw = _Patient(descriptor, "w", closefd=False)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    live = raw.isatty() or descriptor == 2
    return raw, io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, _ANY_LETTER, line_buffering=live, write_through=descriptor == 2
    )


_ANY_LETTER = "uso.any_letter"


def _any_letter(error: UnicodeError) -> tuple[str | bytes, int]:
    """Bytes of file names that are not text pass through as they are; letters that the encoding lacks are escaped."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.backslashreplace_errors(error)


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
            str(path).encode(sys.stdout.encoding or "utf-8")
            print(path, flush=True)
        except UnicodeEncodeError:
            sys.stdout.flush()
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
