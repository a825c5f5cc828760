"""Importing Gradio writes nothing."""

import subprocess
import sys

from uso.config import ROOT

SCRIPT = """
import sys
from uso.web.gradio_import import importing_gradio

touched = []
sys.addaudithook(lambda event, args: event == "open" and str(args[0]).endswith(".pyi") and touched.append(args[0]))
with importing_gradio():
    import gradio
assert not touched, touched
"""


def test_no_stubs_are_written() -> None:
    """Catches a patch that no longer fits. Without it this finds hundreds of files."""
    ran = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
