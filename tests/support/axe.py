"""What axe finds in a page, in both themes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Page

from tests.support.browsing import PATIENCE_MS, shoot

GRADIO_FAULTS = {
    ("aria-prohibited-attr", ".empty"): "the empty frame of an Image is a div with a label",
}
"""What axe finds in Gradio's own parts, which cannot be changed from here."""

COLOURS = ["color-contrast", "link-in-text-block"]
"""The rules that look at colours, which are all that differs between the themes."""


def faults(page: Page, **options: Any) -> list[str]:
    """What axe finds in the page but for the above.

    Args:
        options: of `axe.run`.
    """
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(Axe().axe_script)
    asked = {"resultTypes": ["violations"], **options}
    return [
        f"{violation['id']} at {node['target']}: {node['html'][:200]}"
        for violation in page.evaluate("options => axe.run(options)", asked)["violations"]
        for node in violation["nodes"]
        if (violation["id"], *node["target"]) not in GRADIO_FAULTS
    ]


def faults_in_both_themes(page: Page, name: str) -> list[str]:
    """`faults`, and those of the colours in the dark theme. Keeps a picture of each, as `shoot` does."""
    found = faults(page)
    shoot(page, f"{name}-light")
    with dark(page):
        found += [f"in the dark: {fault}" for fault in faults(page, runOnly=COLOURS)]
        shoot(page, f"{name}-dark")
    return found


@contextmanager
def dark(page: Page) -> Iterator[None]:
    """The page as at night, when it has changed its colours."""
    _turn(page, "dark")
    yield
    _turn(page, "light")


def _turn(page: Page, scheme: Literal["dark", "light"]) -> None:
    page.emulate_media(color_scheme=scheme)
    settled = "!document.getAnimations().some(one => one instanceof CSSTransition)"
    turned = f"dark => document.body.classList.contains('dark') === dark && {settled}"
    page.wait_for_function(turned, arg=scheme == "dark", timeout=PATIENCE_MS)
