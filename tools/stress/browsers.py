"""People with the real page in front of them: tabs of one Chromium, each with cookies and an address of its own.

They generate, stop, delete, reload, close their tab and come back, drawn from a seed. What goes wrong in a page, and
every request that leaves the server, is noted.
"""

import random
import shutil
import threading
import time
from collections import Counter
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from playwright.sync_api import Error as BrowserError

from tools.stress.elsewhere import giving_way

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
"""The first of them does without the windows' frames, which cost a process for each context in the others."""

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")

STEPS = ("2", "4", "8", "50")
ACTION_MS = 15_000


class Person:
    """One browser, with a tab that is open or not."""

    def __init__(self, browser: Browser, url: str, address: str, draw: random.Random) -> None:
        self._url = url
        self._draw = draw
        self._context: BrowserContext = browser.new_context(extra_http_headers={"X-Forwarded-For": address})
        self._context.set_default_timeout(ACTION_MS)
        self.page: Page | None = None
        """The tab, if one is open."""
        self.did: Counter[str] = Counter()
        self.wrong: list[str] = []

    def act(self) -> None:
        """One thing that a person does."""
        try:
            if self.page is None:
                self._open()
                return
            verbs = (self._generate, self._stop, self._reload, self._close, self._delete)
            verb = self._draw.choices(verbs, (50, 20, 10, 8, 12))[0]
            verb(self.page)
        except BrowserError as error:
            # A page that is slow under load is no fault of its own; one that never comes is counted at the end.
            self.did[f"gave up: {error.message.splitlines()[0][:60]}"] += 1

    def leave(self) -> None:
        self._context.close()

    def _open(self) -> None:
        page = self._context.new_page()
        page.on("pageerror", lambda error: self.wrong.append(f"An error in the page: {error}"))
        page.on("response", self._look)
        page.on("request", self._watch)
        self.page = page
        page.goto(self._url)
        page.wait_for_selector("#generate:not([disabled])")
        self.did["opened"] += 1

    def _generate(self, page: Page) -> None:
        button = page.locator("#generate")
        if not button.is_enabled():
            self.did["pictures seen"] += page.locator("#picture img").count()
            return
        steps = page.locator("#steps input").first
        if not steps.is_visible():
            page.click("#advanced button")
        page.fill("#prompt textarea", "A fox")
        steps.fill(self._draw.choice(STEPS))
        steps.press("Tab")
        number = page.locator("#num-images input").first
        number.fill(self._draw.choice(("1", "1", "3")))
        number.press("Tab")
        button.click()
        self.did["generated"] += 1

    def _stop(self, page: Page) -> None:
        if page.locator("#stop").is_enabled():
            page.click("#stop", timeout=2000)
            self.did["stopped"] += 1

    def _delete(self, page: Page) -> None:
        """The picture that is shown, or now and then all; sometimes it is thought over."""
        everything = self._draw.random() < 0.2
        if everything and page.locator("#gallery-choose").is_visible():
            if not page.locator("#gallery-everything").is_visible():
                page.click("#gallery-choose", timeout=2000)
            page.click("#gallery-everything", timeout=2000)
        elif page.locator("#delete-picture").is_visible():
            page.click("#delete-picture", timeout=2000)
        if page.locator("#confirm dialog[open]").count():
            yes = self._draw.random() < 0.8
            page.click(f"#confirm button[value={'yes' if yes else 'no'}]", timeout=2000)
            self.did["deleted" if yes else "kept"] += 1

    def _reload(self, page: Page) -> None:
        page.reload()
        self.did["reloaded"] += 1

    def _close(self, page: Page) -> None:
        page.close()
        self.page = None
        self.did["closed"] += 1

    def _look(self, answer: Any) -> None:
        if answer.status >= 500:
            self.wrong.append(f"{answer.status} {answer.url}")

    def _watch(self, request: Any) -> None:
        if not request.url.startswith((f"{self._url}/", "data:", "blob:")):
            self.wrong.append(f"A request to the outside: {request.url}")


class Browsers:
    """A thread in which they live until a moment; `did` and `wrong` are theirs."""

    def __init__(self, url: str, addresses: list[str], seed: int, until: float) -> None:
        self._url, self._addresses, self._seed, self._until = url, addresses, seed, until
        self.did: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.thread = threading.Thread(target=self._live, name="browsers", daemon=True)

    def _live(self) -> None:
        draw = random.Random(self._seed)
        try:
            with sync_playwright() as playwright:
                with giving_way():
                    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
                people = [Person(browser, self._url, address, draw) for address in self._addresses]
                while time.time() < self._until:
                    draw.choice(people).act()
                    _pause(people, draw.uniform(0.1, 0.8))
                for person in people:
                    person.leave()
                    self.did += person.did
                    self.wrong += person.wrong
                browser.close()
        except Exception as error:
            self.wrong.append(f"The browsers ended with {type(error).__name__}: {error}")


def _pause(people: list[Person], seconds: float) -> None:
    """Wait, with eyes open: what happens in the pages is only noticed inside a call of the browser's."""
    page = next((person.page for person in people if person.page is not None), None)
    if page is None:
        time.sleep(seconds)
    else:
        page.wait_for_timeout(1000 * seconds)
