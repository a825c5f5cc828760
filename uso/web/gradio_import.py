"""The import of Gradio 6.31 without what it does on the side. Nothing here imports it; its patches are in
`page/gradio_fit.py`.

Gradio writes a type stub beside each of its components whenever it is imported, in 1.2 of the 3 CPU seconds that its
import takes, and processes that start together write the same files.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from uso.system.network import hidden_network_settings

_WRITER = "gradio.component_meta"


class _WithoutStubs(MetaPathFinder):
    """Finds the one module that writes the stubs, and replaces its function when it is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == _WRITER else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            module.create_or_modify_pyi = lambda *arguments: None  # type: ignore[attr-defined]

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def skip_type_stubs() -> None:
    """From here on, importing Gradio writes no files."""
    sys.meta_path.insert(0, _WithoutStubs())


@contextmanager
def importing_gradio() -> Iterator[None]:
    """For Gradio's first import: no stubs, and no proxies or certificates, for it makes HTTP clients that the page does
    not use."""
    skip_type_stubs()
    with hidden_network_settings():
        yield
