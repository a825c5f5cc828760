"""What Gradio keeps of every tab and every call: bounded, however many come."""

from pathlib import Path
from typing import Any

import pytest

from tests.scripted import Script
from tests.test_page import served, uploads
from uso.config import ModelConfig
from uso.web.engine import Engine
from uso.web.server import MAX_SESSIONS
from uso.web.settings import ServerSettings

__all__ = ["uploads"]  # a fixture


@pytest.mark.usefixtures("uploads")
def test_sessions_that_are_over_go(demo_config: ModelConfig, tmp_path: Path) -> None:
    """Catches a server that grows with every call of a program: 0.1 MB each, up to a gigabyte."""
    engine = Engine(lambda _: Script(), ServerSettings(output=tmp_path))
    with served(demo_config, engine) as client:
        (mounted,) = (found for route in client.app.routes if (found := _gradio(route)) is not None)  # type: ignore[attr-defined]
        for number in range(MAX_SESSIONS + 10):
            _ = mounted.state_holder[f"tab {number}"]
        kept = mounted.state_holder.session_data
        assert len(kept) == MAX_SESSIONS and "tab 9" not in kept and f"tab {MAX_SESSIONS + 9}" in kept


def _gradio(route: Any) -> Any:
    app = getattr(route, "app", None)
    return app if hasattr(app, "state_holder") else None
