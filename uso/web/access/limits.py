"""How much one person may do: the window that every limit counts with, and the limits on requests and open streams.

The others that count with it: wrong passwords (`login.py`), uploads (`uploads.py`), and requests for pictures
(`jobs/admission.py`).
"""

import re
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from hashlib import sha256

from starlette.types import ASGIApp, Receive, Scope, Send

from uso.language import Text
from uso.web.access.asgi import API, path_of, refuse
from uso.web.access.identity import asker_in

A_SECOND, AT_ONCE = 20, 200
"""Requests of one person: steadily, and after a quiet time. A page sends about ten for each thing done on it."""

OPEN_STREAMS = 100
"""Of one person at the same time; a page has two, a program one for each job."""

REMEMBERED_KEYS = 10_000
"""People, addresses or names that a window remembers; the one that was quiet for longest is forgotten first."""

STREAM = re.compile(rf"{API}/(?:queue/data|heartbeat/|call/|upload_progress)")
"""Routes that answer a GET without an end."""


class Window:
    """What each key used lately, and how long it must wait for more. For one thread.

    What is used counts for `seconds`. With `steady` it comes back bit by bit, `most` within `seconds` (a token bucket).
    Memory is bounded: digests of the latest `keys` keys, and of each no more than fills its window.

    Args:
        most: what one key may use.
        step: seconds within which uses are counted as one; 0 keeps every use.
    """

    def __init__(
        self,
        most: float,
        seconds: float,
        *,
        steady: bool = False,
        step: float = 0.0,
        keys: int = REMEMBERED_KEYS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most, self.seconds = most, seconds
        self._steady, self._step, self._keys, self._clock = steady, step, keys, clock
        self._used: OrderedDict[bytes, dict[float, float]] = OrderedDict()
        """Of each key: until when it counts, to how much; earliest first."""

    def wait(self, key: str, amount: float = 1) -> float:
        """Seconds until a key may try to use `amount` again; 0 if it may use it now. Counts nothing."""
        now = self._clock()
        used = self._counting(_digest(key), now)
        return next(iter(used)) - now if used and sum(used.values()) + amount > self.most else 0.0

    def count(self, key: str, amount: float = 1) -> float:
        """Count what a key uses now; returns until when it counts."""
        digest, now = _digest(key), self._clock()
        used = self._counting(digest, now)
        if self._steady:
            until = max([now, *used]) + amount * self.seconds / self.most
        else:
            until = (now // self._step * self._step if self._step else now) + self.seconds
        used[until] = used.get(until, 0) + amount
        while sum(used.values()) - used[first := next(iter(used))] >= self.most:
            del used[first]  # the later ones fill the window without it
        self._used[digest] = used
        self._used.move_to_end(digest)
        while len(self._used) > self._keys:
            self._used.popitem(last=False)
        return until

    def take(self, key: str, amount: float = 1) -> float:
        """Count `amount` if the key may use it now, and return 0; otherwise the seconds until it may."""
        wait = self.wait(key, amount)
        if not wait:
            self.count(key, amount)
        return wait

    def correct(self, key: str, until: float, amount: float) -> None:
        """Add to what `count` counted until then; a negative amount takes away from it."""
        digest = _digest(key)
        used = self._used.get(digest, {})
        if until in used:
            used[until] += amount
            if not used[until]:
                del used[until]
            if not used:
                del self._used[digest]

    def _counting(self, digest: bytes, now: float) -> dict[float, float]:
        return {until: amount for until, amount in self._used.get(digest, {}).items() if until > now}


def _digest(key: str) -> bytes:
    return sha256(key.encode(errors="surrogatepass")).digest()[:16]


def request_window(clock: Callable[[], float] = time.monotonic) -> Window:
    return Window(AT_ONCE, AT_ONCE / A_SECOND, steady=True, clock=clock)


class RateLimits:
    """A layer that refuses with 429 who sends too many requests or holds too many streams open."""

    def __init__(self, inner: ASGIApp, window: Window | None = None, most_open: int = OPEN_STREAMS) -> None:
        self._inner = inner
        self._window = window or request_window()
        self._most_open = most_open
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = path_of(scope), scope["method"]
        stream = method == "GET" and STREAM.match(path) is not None
        if not stream and not (method == "POST" and path.startswith(API + "/")):
            return await self._inner(scope, receive, send)
        asker = asker_in(scope)
        person = asker.person if asker is not None else ""
        if self._window.take(person):
            sentence = Text("More than {} requests a second came from you. Wait a moment, then try again.", A_SECOND)
            return await refuse(scope, send, 429, sentence, [("retry-after", "1")])
        if not stream:
            return await self._inner(scope, receive, send)
        if self._open[person] >= self._most_open:
            sentence = Text(
                "{} streams of yours are open, and no more can be. Close pages or programs.", self._most_open
            )
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
    return Text("{} s", max(1, round(seconds))) if seconds < 90 else Text("{} min", round(seconds / 60))
