"""Values that a hostile caller puts into a call: names of others' files, texts, numbers, deep and odd JSON."""

import json
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st


def evil_paths(targets: list[str], uploads: str) -> st.SearchStrategy[str]:
    """Ways to say the name of a file that is nobody's business.

    Args:
        targets: files that exist and must not be read.
        uploads: the folder in which callers' own files lie.
    """
    up = "../" * 12
    ways: list[Any] = [
        lambda path: path,
        lambda path: f"{uploads}/{up}{path.lstrip('/')}",
        lambda path: f"{uploads}/..{path}",
        lambda path: up + path.lstrip("/"),
        lambda path: f"..\\..\\..\\..{path}",
        lambda path: "/proc/self/root" + path,
        lambda path: f"{uploads}/./x/../../../../../..{path}",
        lambda path: "file://" + path,
        lambda path: "/" + path,
        lambda path: path + "\x00.png",
        lambda path: path.replace("/", "//"),
        lambda path: "%2e%2e%2f" * 12 + quote(path.lstrip("/"), safe=""),
        lambda path: quote(path, safe=""),
        lambda path: quote(quote(path, safe=""), safe=""),
        lambda path: f"~{path}",
        lambda path: path.upper(),
        lambda path: path + "/",
        lambda path: f"{path}/../{path.rsplit('/', 1)[-1]}",
        lambda path: f"http://127.0.0.1:1{path}",
    ]
    return st.builds(lambda way, path: str(way(path)), st.sampled_from(ways), st.sampled_from(targets))


def texts() -> st.SearchStrategy[str]:
    return st.one_of(
        st.text(max_size=40),
        st.builds(
            lambda letter, count: letter * count, st.sampled_from("a<\x00é狐\\"), st.sampled_from([10**3, 10**5])
        ),
        st.sampled_from(["", "null", "-1", "__class__", "{}", "<script>alert(1)</script>", "0" * 32, "None"]),
    )


def scalars() -> st.SearchStrategy[Any]:
    numbers = st.one_of(
        st.integers(), st.floats(), st.sampled_from([0, -1, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf")])
    )
    return st.one_of(st.none(), st.booleans(), numbers, texts())


def file_data(paths: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    """What stands for a file in a call."""
    meta: st.SearchStrategy[Any] = st.sampled_from([{"_type": "gradio.FileData"}, {"_type": "x"}, None, []])
    return st.fixed_dictionaries(
        {"path": st.one_of(paths, paths, scalars())},
        optional={
            "url": st.one_of(paths, texts()),
            "orig_name": st.one_of(paths, texts()),
            "mime_type": texts(),
            "size": scalars(),
            "is_stream": st.booleans(),
            "meta": meta,
        },
    )


def values(paths: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Anything that JSON can say, and a little more."""
    leaves = st.one_of(scalars(), paths, file_data(paths))
    nested = st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts(), inner, max_size=4)),
        max_leaves=12,
    )
    deep = st.builds(_deep, st.sampled_from([10, 63, 64, 65, 500, 20_000]), st.sampled_from(["[]", "{}"]))
    return st.one_of(nested, nested, nested, deep)


class Raw(str):
    """JSON text that Python's encoder could not write."""


def _deep(levels: int, kind: str) -> Raw:
    return Raw("[" * levels + "]" * levels if kind == "[]" else '{"a":' * levels + "1" + "}" * levels)


def to_json(value: Any) -> bytes:
    """JSON with NaN, lone surrogates and ready-made texts in it."""
    raws: list[str] = []

    def hold(inner: Any) -> Any:
        if isinstance(inner, Raw):
            raws.append(str(inner))
            return f"@raw{len(raws) - 1}@"
        if isinstance(inner, dict):
            return {name: hold(one) for name, one in inner.items()}
        return [hold(one) for one in inner] if isinstance(inner, list | tuple) else inner

    text = json.dumps(hold(value))
    for number, raw in enumerate(raws):
        text = text.replace(f'"@raw{number}@"', raw)
    return text.encode("utf-8", "surrogatepass")
