"""Contact sheets."""

import numpy as np
import pytest

from tests.support.judging import colour
from uso.errors import ConfigError
from uso.evaluation.sheet import ROWS, SheetRow, contact_sheet


def test_contact_sheet_shows_every_picture_under_its_name() -> None:
    """Catches columns that change places, and the row that falls off the bottom."""
    rows = [
        SheetRow({"content": None, "style": colour(10), "result": colour(20 + n), "truth": colour(60)}, f"row {n}")
        for n in range(ROWS)
    ]
    sheet = np.asarray(contact_sheet(rows))
    assert sheet.shape[1] == 3 * 24 - 4  # no content anywhere, so no column
    middles = sheet[:, [10, 34, 58], 0]
    places = [int(np.flatnonzero(middles[:, 1] == 20 + n)[10]) for n in range(ROWS)]
    assert places == sorted(places) and len(places) == ROWS
    assert all(middles[place].tolist() == [10, 20 + n, 60] for n, place in enumerate(places))


@pytest.mark.parametrize("count", [0, ROWS + 1])
def test_contact_sheet_refuses_what_does_not_fit(count: int) -> None:
    with pytest.raises(ConfigError, match="1 to 12 rows"):
        contact_sheet([SheetRow({"truth": colour(1)})] * count)
