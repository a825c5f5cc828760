"""What a program that tests start is forked from: half of what a start computes is the import of these.

They start no threads, which no fork survives, and read nothing that the program sets before.
"""

# ruff: noqa: E402, F401

from uso.system.garbage import collect_seldom

collect_seldom()
import torch

import uso.weights.loading
