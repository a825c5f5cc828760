"""`python -m uso`: hands over to the command line in `uso/cli.py`."""

import sys

from uso.cli import main

if __name__ == "__main__":
    sys.exit(main())
