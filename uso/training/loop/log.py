"""The log of a run: a line of JSON for every logged step, accelerate's trackers, and a bar with the time left.

`metrics.jsonl` is always written; TensorBoard is the default and can be switched off, Weights & Biases can be added.
"""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from accelerate import PartialState
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker
from PIL import Image
from tqdm import tqdm

from uso.errors import ConfigError
from uso.terminal import on_terminal, say
from uso.training.config import RunConfig


def check_trackers(config: RunConfig) -> None:
    """Refuse a run that wants a tracker whose package is missing.

    Raises:
        ConfigError: with the remedy.
    """
    if config.tensorboard:
        try:
            import tensorboard  # noqa: F401 - torch's writer needs it
        except ImportError as error:
            raise ConfigError(
                "TensorBoard's package is not installed: pip install -r requirements-train.txt; or write metrics.jsonl "
                "alone with tensorboard=false."
            ) from error
    if config.wandb is not None and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            "wandb needs the package wandb, which is not installed: pip install wandb; or set wandb=null."
        )


def trackers_of(config: RunConfig) -> list[str]:
    """Names of a run's trackers; Weights & Biases with its project, `wandb:PROJECT`."""
    return [*(["tensorboard"] if config.tensorboard else []), *([f"wandb:{config.wandb}"] if config.wandb else [])]


def _started(name: str, folder: Path, begun: int) -> GeneralTracker:
    PartialState()  # trackers ask it for the main process
    if name == "tensorboard":
        tracker: GeneralTracker = TensorBoardTracker("tensorboard", folder, purge_step=begun + 1)
    else:
        project = name.partition(":")[2]
        tracker = WandBTracker(project, name=folder.name, id=folder.name, dir=str(folder), resume="allow")
    tracker.start()
    return tracker


class Journal:
    """The records of one run; only the first of several processes has one.

    Args:
        folder: the run's.
        begun: the step that the run resumes from; lines of later steps, which are made again, are removed.
        steps: of the whole run.
        trackers: as `trackers_of` names them.
    """

    def __init__(self, folder: Path, begun: int, steps: int, *, trackers: Sequence[str] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "metrics.jsonl"
        self._keep_until(begun)
        self._lines = self.path.open("a", encoding="utf-8")
        self._trackers = [_started(name, folder, begun) for name in trackers]
        self._bar = tqdm(total=steps, initial=begun, unit="step", disable=not on_terminal())

    def _keep_until(self, step: int) -> None:
        if self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step_of(line) <= step]
            self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def step(self, loss: float) -> None:
        """A step is done."""
        self._bar.update()
        self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name (`loss`, `validation/style`, ...) after `step` steps."""
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        for tracker in self._trackers:
            tracker.log(dict(values), step)

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        for tracker in self._trackers:
            options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({name: np.asarray(image)[None]}, step, **options)

    def say(self, text: str) -> None:
        """A line for the person at the terminal, or for the log of a job."""
        say(text)

    def close(self) -> None:
        self._bar.close()
        self._lines.close()
        for tracker in self._trackers:
            tracker.finish()


def _step_of(line: str) -> int:
    """The step of a line; a line that was cut off belongs to none that is kept."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 2**62


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`, `2.1 days`."""
    for size, unit in ((86400, "days"), (3600, "h")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
