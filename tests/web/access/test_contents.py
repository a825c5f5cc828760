"""What a JSON body may hold: counted before it is parsed, and right to the last value."""

import json
import time
from typing import Any

import pytest

from uso.web.access import contents
from uso.web.access.contents import MAX_DEPTH, MAX_VALUES, TOO_DEEP, TOO_MANY, Found, examine, too_much

PATH = "/gradio_api/queue/join"


def fault(body: bytes) -> str | None:
    return examine(body, PATH, set()).fault


@pytest.mark.parametrize("value", [b"[]", b"{}", b"1", b'""', b"null", b'{"a":1}', b'"\\\\"', b'"\\""', b"1.5e3"])
def test_many_small_values_are_refused_before_they_are_parsed(value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a body that costs seconds for each megabyte, whatever its values are."""
    monkeypatch.setattr(contents.json, "loads", lambda *arguments, **named: pytest.fail("parsed"))
    count = 900_000 // (len(value) + 1)
    body = b'{"data":[' + b",".join([value] * count) + b"]}"
    began = time.process_time()
    assert fault(body) == TOO_MANY
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le"])
def test_no_encoding_hides_structure(encoding: str) -> None:
    """Catches a letter whose bytes have a quote in them, behind which lists would be taken for text."""
    body = ('["\u2200",' + "[]," * 100_000 + "1]").encode(encoding)
    assert isinstance(json.loads(body), list)
    assert fault(body) == TOO_MANY


def test_the_limit_is_exact_and_text_counts_for_nothing() -> None:
    """Catches a long prompt with many commas, quotes and brackets that is refused for its structure."""
    prompt = 'a "fox", [red] {small}: \\ and so on, ' * 5000
    most: list[Any] = [0] * (MAX_VALUES - 2)
    assert fault(json.dumps([prompt, *most]).encode()) is None
    assert fault(json.dumps([prompt, *most, 0, 0]).encode()) == TOO_MANY
    assert fault(json.dumps([[prompt]], ensure_ascii=False).encode()) is None


def test_depth_is_counted_too() -> None:
    """Catches a parser without a stack, and a limit that is one off."""
    assert fault(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) is None
    assert fault(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)) == TOO_DEEP
    assert fault(b'{"a":' * 200_000) == TOO_DEEP
    assert fault(b'["' + b"[" * 1000 + b'"]') is None


def test_what_is_no_json_costs_nothing_and_is_left_to_the_app() -> None:
    """Catches quotes without an end, or escapes without a meaning, that a search goes through again and again."""
    for body in (b'"' + b'\\"' * 490_000, b"\\" * 990_000, b"x" * 990_000, b'["' + b"a" * 990_000, b"[1,", b"\xff\xfe"):
        began = time.process_time()
        assert fault(body) is None
        assert time.process_time() - began < 0.5
    assert too_much(b'"' * 990_000) == TOO_MANY


def test_a_message_is_parsed_once_for_fault_and_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a message of megabytes that is parsed for each thing that is looked for in it."""
    parsed: list[int] = []
    loads = json.loads

    def counted(body: bytes, **named: Any) -> Any:
        parsed.append(len(body))
        return loads(body, **named)

    monkeypatch.setattr(contents.json, "loads", counted)
    images = {"content_image": "data:image/png;base64,AAAA", "style_image": "data:image/png;base64,BBBB", "prompt": "x"}
    message = {"method": "tools/call", "params": {"name": "generate", "arguments": images}}
    body = json.dumps(message).encode()
    assert examine(body, "/gradio_api/mcp/", set()) == Found(images=2)
    assert parsed == [len(body)]
    assert examine(body, PATH, set()) == Found()
