"""How a stress program takes its arguments and says what it found."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Found = tuple[dict[str, Any], list[str]]
"""Figures by name, and a sentence for each fault."""

MOST = 50
"""Faults that are printed."""


def report(parser: argparse.ArgumentParser, play: Callable[[argparse.Namespace, Path], Found]) -> int:
    """Run `play(arguments, folder)`. Figures become one line of JSON on stdout, the first faults lines on stderr.

    Returns:
        The exit status: 1 if there are faults.
    """
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep what the run leaves in this new folder")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="uso-stress-") as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        figures, wrong = play(args, folder)
    asked = {name: value for name, value in vars(args).items() if name != "folder"}
    seconds = round(time.monotonic() - began)
    print(json.dumps({"asked": asked, "seconds": seconds, **figures, "faults": len(wrong)}))
    for sentence in wrong[:MOST]:
        print(sentence, file=sys.stderr)
    return 1 if wrong else 0
