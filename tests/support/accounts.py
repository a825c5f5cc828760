"""What an accounts file of the tests holds."""

import os
import time
from pathlib import Path

import bcrypt

PASSWORD = "correct horse"
CHEAP = bcrypt.hashpw(PASSWORD.encode(), b"$2b$04$abcdefghijklmnopqrstuu").decode()
"""Always the same: it is in the names of tests."""


def change(file: Path, text: str) -> None:
    """Write a file so that its time differs, on coarse clocks too."""
    file.write_text(text, encoding="utf-8")
    later = time.time_ns() + 10**9
    os.utime(file, ns=(later, later))
