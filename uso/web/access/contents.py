"""What a JSON body holds: counted before it is parsed, then read once for all that is refused in it.

A megabyte of `[[],[],...]` takes Python seconds to parse and Gradio seconds more, so the structure is counted by passes
over the bytes, which take milliseconds. What is within the limits takes milliseconds to parse as well.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from uso.errors import RequestError
from uso.language import Text
from uso.web.access.asgi import is_mcp
from uso.web.access.hosts import host_of

MAX_VALUES = 1000
"""Of values, keys, lists and objects in one body. The largest call of the page has 11 values, three of them files:
about 60."""
MAX_DEPTH = 64
"""Of lists and objects inside each other."""

GIVE_THE_FILE = Text("Give the file itself, not its address: this server fetches nothing from elsewhere.")
TOO_DEEP = Text("The request is nested deeper than {} levels.", MAX_DEPTH)
TOO_MANY = Text("The request holds more than {} values, and no call needs so many. Send fewer.", MAX_VALUES)

ADDRESS = re.compile(r"\s*(?:[A-Za-z][A-Za-z0-9+.-]*:)?[/\\]{2}\S", re.ASCII)
"""`https://...`, and what a browser or a file system would take for a host as well (`//host`, `\\\\host`)."""
WEB_ADDRESS = re.compile(r"\s*(?:https?|ftp):[/\\]{2}\S+\s*", re.ASCII | re.IGNORECASE)

SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Gradio joins a session's name with others, and splits them again."""

_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


@dataclass(frozen=True)
class Found:
    """What was found in a body."""

    fault: str | None = None
    """Why it is refused, as a sentence."""
    images: int = 0
    """How many images a message to a tool holds, as data URLs in its arguments."""


def examine(body: bytes, path: str, hosts: set[str]) -> Found:
    """Count a body's structure, then parse it once. One that is no JSON is left to the app."""
    sentence = too_much(body)
    if sentence is not None:
        return Found(sentence)
    try:
        content = json.loads(body, parse_constant=_no_number)
    except RecursionError:
        return Found(TOO_DEEP)
    except RequestError as error:
        return Found(str(error))
    except ValueError:
        return Found()
    images = 0
    for value, key, holder, depth in (found for part in _checked(content, path) for found in _walk(part)):
        if depth > MAX_DEPTH:
            return Found(TOO_DEEP)
        if key == "session_hash" and value is not None and not (isinstance(value, str) and SESSION.fullmatch(value)):
            return Found(Text("The session has a name that no page gives itself. Load the page again."))
        if isinstance(value, str):
            if _points_elsewhere(value, key, holder, hosts):
                return Found(GIVE_THE_FILE)
            images += is_mcp(path) and value.startswith("data:")
    return Found(images=images)


def too_much(body: bytes) -> str | None:
    """What of a body's structure is beyond the limits, as a sentence. Parses nothing: strings are cut out of the bytes,
    and brackets and separators counted in the rest."""
    parts = [body]
    if b"\0" not in body:  # in no JSON but UTF-16 and UTF-32, where a byte like a quote may be part of a letter
        parts = body.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"', 2 * MAX_VALUES + 1)
    outside = b"".join(parts[::2])
    brackets = outside.translate(None, _NO_BRACKETS)[: 2 * MAX_VALUES]
    if max(accumulate((1 if bracket in b"[{" else -1 for bracket in brackets), initial=0)) > MAX_DEPTH:
        return TOO_DEEP
    if len(parts) > 2 * MAX_VALUES + 1 or len(outside) - len(outside.translate(None, b"[{,:")) > MAX_VALUES:
        return TOO_MANY
    return None


def _checked(content: Any, path: str) -> list[Any]:
    """The parts of a body that are checked: of messages to tools the arguments, for a client may name its own site
    elsewhere in them."""
    if not is_mcp(path):
        return [content]
    calls = content if isinstance(content, list) else [content]
    parameters = [call.get("params") for call in calls if isinstance(call, dict)]
    return [part.get("arguments") for part in parameters if isinstance(part, dict)]


def _no_number(name: str) -> None:
    """Python's parser accepts NaN and infinities; Gradio would fail where it writes them back."""
    raise RequestError(Text("The request holds {}, which is no number that JSON has.", name))


def _points_elsewhere(value: str, key: str, holder: Any, hosts: set[str]) -> bool:
    if key == "path":
        return ADDRESS.match(value) is not None
    if key == "url" and isinstance(holder, dict):  # where a browser shows a file from; it may be on this server
        return ADDRESS.match(value) is not None and host_of(value) not in hosts
    return WEB_ADDRESS.fullmatch(value) is not None


def _walk(content: Any) -> Iterator[tuple[Any, str, Any, int]]:
    """Every value with its key (empty in a list), what holds it, and how deep it lies. No recursion: it may be deep."""
    todo: list[tuple[Any, str, Any, int]] = [(content, "", None, 0)]
    while todo:
        value, key, holder, depth = todo.pop()
        yield value, key, holder, depth
        if isinstance(value, dict):
            todo += [(inner, str(name), value, depth + 1) for name, inner in value.items()]
        elif isinstance(value, list):
            todo += [(inner, "", value, depth + 1) for inner in value]
