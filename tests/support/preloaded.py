"""What a program that tests start is forked from: most of what a start computes is the import of these.

They start no threads, which no fork survives, and read nothing that the program sets before.
"""

# ruff: noqa: E402, F401

from uso.system.garbage import collect_seldom

collect_seldom()
import torch

import uso.weights.loading
from uso.web.gradio_import import importing_gradio

with importing_gradio():
    import uso.web.page.layout
    import uso.web.server.app
