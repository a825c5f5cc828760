"""`python -m uso`: runs the command line in `uso/cli/main.py`."""

import io
import sys

from uso.cli.main import main

if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names that are not UTF-8 pass through
    sys.exit(main())
