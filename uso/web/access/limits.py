"""How fast one caller may go, and how many streams one may hold open: far beyond what a page needs, short of a flood.

How many pictures one may ask for is said in `door.py`, how much one may upload in `uploads.py`.
"""

import re
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from uso.web.access.asgi import path_of, refuse
from uso.web.access.bodies import API
from uso.web.access.identity import asker_in

A_SECOND, AT_ONCE = 20.0, 200.0
"""Events of one person: steadily, and after a quiet time. A page sends about ten for one thing that is done on it."""

OPEN_STREAMS = 100
"""Of one person at the same time; a page has two, a program one for each job."""

REMEMBERED_PEOPLE = 10_000
"""The one who was quiet for longest is forgotten first."""

STREAM = re.compile(rf"{API}/(?:queue/data|heartbeat/|call/|upload_progress)")
"""Answers without an end, when they are asked for with GET."""


class RateWindow:
    """A bucket of events for each person: it holds `most`, and fills at `rate` a second."""

    def __init__(
        self, rate: float = A_SECOND, most: float = AT_ONCE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._most, self._clock = rate, most, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """What a person had left, and when."""

    def wait(self, person: str) -> float:
        """Take one event out; or the seconds until there is one, where there is none."""
        now = self._clock()
        left, then = self._left.get(person, (self._most, now))
        left = min(self._most, left + (now - then) * self._rate)
        if left < 1:
            return (1 - left) / self._rate
        self._left[person] = (left - 1, now)
        self._left.move_to_end(person)
        while len(self._left) > REMEMBERED_PEOPLE:
            self._left.popitem(last=False)
        return 0.0


class RateLimits:
    """A layer that answers 429 itself, and passes everything else on. Who asks is known before it."""

    def __init__(self, inner: ASGIApp, window: RateWindow | None = None, most_open: int = OPEN_STREAMS) -> None:
        self._inner = inner
        self._window = window or RateWindow()
        self._most_open = most_open
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = path_of(scope), scope["method"]
        stream = method == "GET" and STREAM.match(path) is not None
        if not stream and not (method == "POST" and path.startswith(API + "/")):
            return await self._inner(scope, receive, send)
        asker = asker_in(scope)
        person = asker.person if asker is not None else ""
        if self._window.wait(person):
            sentence = f"More than {A_SECOND:g} requests a second came from you. Wait a moment, then try again."
            return await refuse(scope, send, 429, sentence, [("retry-after", "1")])
        if not stream:
            return await self._inner(scope, receive, send)
        if self._open[person] >= self._most_open:
            sentence = f"{self._most_open} streams of yours are open, and no more can be. Close pages or programs."
            return await refuse(scope, send, 429, sentence, [("retry-after", "5")])
        self._open[person] += 1
        try:
            return await self._inner(scope, receive, send)
        finally:
            self._open[person] -= 1
            if not self._open[person]:
                del self._open[person]


def duration(seconds: float) -> str:
    """In words, to the second or to the minute."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"
