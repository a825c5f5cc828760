"""`python -m uso`: hands over to the command line in `uso/cli/main.py`."""

import io
import sys

from uso.cli.main import main

if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names that are no UTF-8 leave as they came
    sys.exit(main())
