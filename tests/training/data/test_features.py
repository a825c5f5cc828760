"""Features: what is refused before anything is encoded."""

from pathlib import Path

import pytest

from tests.support.tiny_training import (
    write_rows,
)
from uso.errors import ConfigError
from uso.training.data.features import Feature, check_pictures


def test_damaged_pictures_are_named_before_anything_is_encoded(tmp_path: Path) -> None:
    """Catches a run that ends in the middle of the encoding; a whole picture is no fault."""
    rows = write_rows(tmp_path / "rows", 2)
    whole = [path for path in sorted(rows.parent.glob("*.png")) if "content" not in path.name]
    check_pictures(Feature("latents", path=path) for path in whole)
    damaged = rows.parent / "content-1.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"content-1\.png.*python -m uso train\.data check"):
        check_pictures([Feature("latents", path=path) for path in [*whole, damaged]])
