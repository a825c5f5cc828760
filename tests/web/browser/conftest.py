"""One server and one Chromium for all tests in a browser."""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, Request, Response

from tests.support.browsing import chromium, wait_for_life
from tests.support.running import Program, program

TOGETHER = ("language", "layout", "several", "pictures", "references")
"""About half of the tests by time: the others go to the second worker."""

COUNT_FRAMES = """
{
  const frame = requestAnimationFrame
  window.usoFrames = 0
  window.requestAnimationFrame = draw => (window.usoFrames++, frame(draw))
}
"""
"""In every page: how often it has asked for a frame to draw in."""


@pytest.hookimpl(tryfirst=True)  # before xdist looks for the groups, also where this folder alone is tested
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two workers of a test run have them all: each worker starts the server and the Chromium below for itself."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            half = item.path.stem.removeprefix("test_") in TOGETHER
            item.add_marker(pytest.mark.xdist_group(f"browser-{int(half)}"))


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The demo model; a picture of many steps takes its time."""
    with program(tmp_path_factory.mktemp("server"), paced=True) as made:
        made.wait_until_built()
        yield made


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="package")
def wiped() -> dict[tuple[str, str | None], list[BrowserContext]]:
    """Browsers in which tests have visited a server in a language, and of whose visits nothing is left."""
    return {}


@pytest.fixture
def visit(
    browser: Browser, wiped: dict[tuple[str, str | None], list[BrowserContext]]
) -> Generator[Callable[..., Page], None, None]:
    """`visit(server, width, height)` opens the page; what went wrong in it fails the test at its end.

    Each in a browser of its own, unless `context` names one: then it is another tab of that. One that has been wiped is
    as good as new to the page, and has compiled its programs, which is most of what it costs to open the page."""
    used: dict[BrowserContext, tuple[str, str | None]] = {}
    wrong: list[str] = []
    watches = ExitStack()

    def open_page(
        server: Program,
        width: int = 1440,
        height: int = 1000,
        context: BrowserContext | None = None,
        locale: str | None = None,
        color_scheme: Literal["light", "dark"] = "light",
        reduced_motion: Literal["no-preference", "reduce"] = "no-preference",
    ) -> Page:
        key = (server.url, locale)
        if context is not None:
            page = context.new_page()
        elif wiped.get(key):
            (page,) = wiped[key].pop().pages
        else:
            page = browser.new_context(locale=locale).new_page()
            page.context.add_init_script(COUNT_FRAMES)
        used.setdefault(page.context, key)
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=color_scheme, reduced_motion=reduced_motion)
        watches.enter_context(watched(page, server.url, wrong))
        page.goto(server.url)
        wait_for_life(page)
        return page

    with watches:
        yield open_page
    for context, key in used.items():
        if wipe(context):
            wiped.setdefault(key, []).append(context)
        else:
            context.close()
    assert not wrong, wrong


@contextmanager
def watched(page: Page, url: str, wrong: list[str]) -> Iterator[None]:
    """Note errors in the page, answers that refuse, and requests to elsewhere than the server of this address."""

    def look(request: Request) -> None:
        if not request.url.startswith((f"{url}/", "data:", "blob:")):
            wrong.append(f"request to the outside: {request.url}")

    def hear(answer: Response) -> None:
        if answer.status >= 400:
            wrong.append(f"{answer.status} {answer.url}")

    def fail(error: Error) -> None:
        wrong.append(f"error in the page: {error}")

    page.on("pageerror", fail)
    page.on("response", hear)
    page.on("request", look)
    yield
    page.remove_listener("pageerror", fail)
    page.remove_listener("response", hear)
    page.remove_listener("request", look)


def wipe(context: BrowserContext) -> bool:
    """Leave a browser with one tab, which is at none of the server's pages, and nothing stored; false if that failed,
    for one because the server has ended."""
    if not context.pages:
        return False
    page, *others = context.pages
    for other in others:
        other.close()
    try:
        page.unroute_all(behavior="ignoreErrors")
        page.goto(urljoin(page.url, "/healthz"))
        page.evaluate("localStorage.clear(); sessionStorage.clear()")
        page.mouse.move(0, 0)
    except Error:
        return False
    context.clear_cookies()
    return True
