"""The garbage collector and what stays."""

import gc
import subprocess
import sys
import weakref

from uso.config import ROOT
from uso.system.garbage import keep_what_is_there


class Thing:
    """In a circle with itself: only the collector can remove it."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_garbage_when_all_is_loaded_goes_first() -> None:
    """Catches memory that loading needed for a moment and the program keeps for ever."""
    seen = weakref.ref(Thing())
    keep_what_is_there()
    assert seen() is None and gc.get_freeze_count()


def test_a_program_imports_without_collecting_all_again_and_again() -> None:
    """Catches a collector that goes through what was just imported: at Python's own pace, nine times in full. And one
    that is off, under which circles stay for ever."""
    script = """if True:
        import gc
        from uso.cli.main import main
        main(["models"])
        import torch, diffusers
        print(gc.isenabled(), gc.get_stats()[2]["collections"])
    """
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "True 0"
