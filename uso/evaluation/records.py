"""`scores.json`: every picture's scores with what made and measured them, read back. No torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uso.errors import ConfigError
from uso.evaluation.scores import Score
from uso.files import read_text

SCORES, FORMAT = "scores.json", "uso-scores/1"


@dataclass(frozen=True)
class Measured:
    """A `scores.json` that was read back."""

    path: Path
    record: dict[str, Any]
    scores: tuple[Score, ...]

    @property
    def name(self) -> str:
        """What tables call it."""
        return str(self.record.get("name") or self.path.parent.name)


def read_scores(place: Path) -> Measured:
    """The scores in a folder, or in a file.

    Raises:
        ConfigError: there are none, or of another form.
    """
    path = place / SCORES if place.is_dir() else place
    if not path.is_file():
        raise ConfigError(f"{path} is not there. Measure the pictures with: python -m uso evaluate score {place}")
    try:
        record = json.loads(read_text(path, "scores"))
        if record["format"] != FORMAT:
            raise ConfigError(f"{path} has the form {record['format']!r}; this program reads {FORMAT!r}.")
        return Measured(path, record, tuple(Score(**each) for each in record["scores"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({error}). Measure again.") from error
