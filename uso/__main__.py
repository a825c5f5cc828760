"""`python -m uso`: runs the command line in `uso/cli/main.py`."""

import sys

from uso.cli.main import main
from uso.terminal import run_program

if __name__ == "__main__":
    sys.exit(run_program(main))
