"""One server and one Chromium for all tests in a browser."""

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, BrowserContext, Page

from tests.support.browsing import chromium, wait_for_life
from tests.support.running import Program, program
from uso.config import CONFIGS

TOGETHER = ("language", "layout", "several", "pictures", "references")
"""About half of the tests by time: all that need the server `demo`, and some more."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two workers of a test run have them all: each worker starts the servers and the Chromium below for itself."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            half = item.path.stem.removeprefix("test_") in TOGETHER
            item.add_marker(pytest.mark.xdist_group(f"browser-{int(half)}"))


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The demo model with all the sizes of its limits on the page, as a model has that draws them well; a picture of
    many steps takes its time."""
    folder = tmp_path_factory.mktemp("server")
    values = yaml.safe_load((CONFIGS / "models" / "demo.yaml").read_text(encoding="utf-8"))
    del values["limits"]["trained_size"]
    (folder / "demo.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with program(folder, "--model", str(folder / "demo.yaml"), paced=True) as made:
        made.wait_until_built()
        yield made


@pytest.fixture(scope="package")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The demo model as it is, but that a picture of many steps takes its time."""
    with program(tmp_path_factory.mktemp("demo"), paced=True) as made:
        made.wait_until_built()
        yield made


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@pytest.fixture
def visit(browser: Browser) -> Generator[Callable[..., Page], None, None]:
    """`visit(server, width, height)` opens the page; what went wrong in it fails the test at its end.

    Each in a browser of its own, unless `context` names one: then it is another tab of that."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def open_page(
        server: Program, width: int = 1440, height: int = 1000, context: BrowserContext | None = None, **options: Any
    ) -> Page:
        if context is None:
            size = {"width": width, "height": height}
            context = browser.new_context(viewport=size, accept_downloads=True, **options)  # type: ignore[arg-type]
            contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"error in the page: {error}"))
        page.on(
            "response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None
        )

        def watch(request: Any) -> None:
            if not request.url.startswith((f"{server.url}/", "data:", "blob:")):
                wrong.append(f"request to the outside: {request.url}")

        page.on("request", watch)
        page.goto(server.url)
        wait_for_life(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong, wrong
