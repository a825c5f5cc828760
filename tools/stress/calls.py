"""Hostile calls, drawn by hypothesis: on Gradio's routes and on our own, by people who know the source code.

A call is bytes for a socket; nothing tidies it up on the way. What must never come back is looked for by
`hostile.py`.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

from tools.stress.odd_values import evil_paths, file_data, scalars, texts, to_json, values

API = "/gradio_api"
FUNCTIONS = 100
"""More than the page has."""

OWN_PATHS = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/examples/cat.jpg")
"""Routes of this program's, where nothing may ever be a 500."""

STREAMS = (
    "heartbeat/{}",
    "upload_progress?upload_id={}",
    "queue/data?session_hash={}",
    "call/generate/{}",
    "info?{}",
    "queue/status?{}",
    "user?{}",
    "stream/{}/x/1/playlist.m3u8",
    "stream/x/y/{}/a.ts",
    "startup-events?{}",
    "token?{}",
    "proxy={}",
    "deep_link?session_hash={}",
    "mcp/{}",
    "custom_component/{}/client/component/x",
    "vibe-code/{}",
    "app_id?{}",
    "runs/{}",
    "dev/reload?{}",
    "login_check?{}",
)
"""Of Gradio's routes, those that are read and that serve no file."""

FILES = tuple(
    f"{API}/file={{}} {API}/file/{{}} {API}/static/{{}} {API}//file={{}} /GRADIO_API/file={{}} /file={{}} /static/{{}} "
    "/assets/{} /svelte/{} /examples/{} /examples/..{} /examples/%2e%2e/%2e%2e/{} /theme.css?v={} /pwa_icon/{} /{} "
    "/config?{} /?{} /monitoring/{} /logout?{}".split()
)
"""Those that serve files, or could."""


@dataclass(frozen=True)
class Call:
    """One request; headers that are missing here (`Host`, `Content-Length`) are added when it is sent."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    follow: str = ""
    """Where the answer to `/call` and `/queue/join` is read: a path that the event's id completes."""

    def __repr__(self) -> str:
        return f"{self.method} {self.target[:200]!r} {self.headers!r:.300} {self.body[:400]!r}"


def headers(own: str) -> st.SearchStrategy[tuple[tuple[str, str], ...]]:
    """Headers of which some decide who somebody is, or what is sent."""
    some: dict[tuple[str, ...], st.SearchStrategy[str]] = {
        ("Range",): st.sampled_from(["bytes=0-", "bytes=-1", "bytes=5-1", "bytes=0-9,1-2", "x", "bytes=" + "9" * 40]),
        ("X-Forwarded-For",): st.one_of(texts(), st.ip_addresses().map(str)),
        ("X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Prefix", "Forwarded"): texts(),
        ("Cookie",): st.one_of(texts(), st.just(f"uso-browser={'b' * 43}"), st.just("uso-login=a.b.c")),
        ("Host", "Origin", "Referer"): st.sampled_from([own, "evil.example", "", "[::1", "a" * 3000]),
        ("x-uso-caller", "x-uso-self", "X-Forwarded-User", "Authorization"): texts(),
        ("x-gradio-server", "x-gradio-user", "x-gradio-target"): texts(),
        ("Accept",): st.sampled_from(["text/html", "*/*", "text/event-stream", "q=;;,"]),
        ("Accept-Encoding",): st.sampled_from(["identity;q=0", "x"]),
        ("Transfer-Encoding",): st.sampled_from(["chunked", "x"]),
        ("Content-Length",): st.sampled_from(["0", "5", "-1", "x", "99999999999"]),
        ("Content-Type",): st.sampled_from(
            ["text/plain", "application/json; charset=utf-7", "multipart/form-data", "x"]
        ),
    }
    lines = st.one_of(*(st.tuples(st.sampled_from(names), value) for names, value in some.items()))
    return st.lists(lines, max_size=3).map(tuple)


JSON = (("Content-Type", "application/json"),)


@dataclass(frozen=True)
class World:
    """What hostile callers know of the server."""

    targets: list[str]
    uploads: str
    own: str
    """`127.0.0.1:PORT`."""


def calls(world: World) -> st.SearchStrategy[Call]:
    """Every kind of call."""
    paths = evil_paths(world.targets, world.uploads)
    names = st.sampled_from(["alice", "bob", "../x", "a" * 500, "tab"])
    extra = st.one_of(st.just(()), st.just(()), headers(world.own))
    return st.one_of(
        _generate(paths, extra),
        _named(paths, extra),
        _unnamed(paths, names, extra),
        _unnamed(paths, names, extra),
        _verbs(paths, names, extra),
        _files(paths, extra),
        _files(paths, extra),
        _uploads(paths, extra),
        _own(paths, extra),
        _login(extra),
        _garbage(extra),
    )


def _post(target: str, body: Any, extra: Any, follow: str = "") -> Call:
    return Call("POST", target, (*JSON, *extra), body if isinstance(body, bytes) else to_json(body), follow)


def _generate(paths: Any, extra: Any) -> st.SearchStrategy[Call]:
    """`/generate` with the right number of values, most of them right."""
    image = st.one_of(st.none(), file_data(paths), st.builds(_file, paths), scalars())
    data = st.tuples(
        _mostly("a fox", texts() | scalars()), image, image, image, _mostly(128), _mostly(144), _mostly(False),
        _mostly(1), _mostly(4.0), _mostly(128), _mostly(1),
    ).map(list)  # fmt: skip
    target = f"{API}/call/generate"
    return st.builds(lambda values, more: _post(target, {"data": values}, more, f"{target}/"), data, extra)


def _mostly(right: Any, wrong: st.SearchStrategy[Any] | None = None) -> st.SearchStrategy[Any]:
    return st.one_of(*[st.just(right)] * 9, scalars() if wrong is None else wrong)


def _file(path: str) -> dict[str, Any]:
    """A file as the page itself names one."""
    return {"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}


def _named(paths: Any, extra: Any) -> st.SearchStrategy[Call]:
    name = st.sampled_from(
        ["generate", "status", "cancel", "run", "tick", "v2/status", "v2/generate", "x", "../config"]
    )
    body = st.one_of(
        st.fixed_dictionaries({"data": st.lists(values(paths), max_size=12)}),
        st.fixed_dictionaries({"data": values(paths)}, optional={"session_hash": texts(), "event_data": values(paths)}),
        st.dictionaries(st.sampled_from(["prompt", "job", "width", "data", "oauth_token"]), values(paths), max_size=4),
        values(paths),
    )
    return st.builds(
        lambda name, values, more: _post(f"{API}/call/{name}", values, more, f"{API}/call/{name}/"), name, body, extra
    )


def _unnamed(paths: Any, names: Any, extra: Any) -> st.SearchStrategy[Call]:
    """The page's own verbs, called by number."""
    number = st.one_of(st.integers(0, FUNCTIONS), st.integers(0, FUNCTIONS), st.integers(0, FUNCTIONS), scalars())
    files = st.lists(st.one_of(st.none(), file_data(paths), st.builds(_file, paths)), min_size=1, max_size=4)
    body = st.fixed_dictionaries(
        {"data": st.one_of(files, st.lists(values(paths), max_size=13), values(paths)), "fn_index": number},
        optional={
            "session_hash": names,
            "event_data": st.one_of(
                st.fixed_dictionaries({"picture": values(paths)}),
                st.fixed_dictionaries({"pictures": st.one_of(st.just("all"), values(paths))}),
                values(paths),
            ),
            "trigger_id": scalars(),
            "event_id": scalars(),
            "batched": st.booleans(),
            "simple_format": st.booleans(),
            "request": values(paths),
        },
    )
    target = st.sampled_from([f"{API}/run/predict", f"{API}/api/predict", f"{API}/queue/join", f"{API}/queue/join"])
    return st.builds(
        lambda target, values, more: _post(
            target, values, more, f"{API}/queue/data?session_hash=" if target.endswith("join") else ""
        ),
        target,
        body,
        extra,
    )


def _verbs(paths: Any, names: Any, extra: Any) -> st.SearchStrategy[Call]:
    """What Gradio has beside its functions."""
    posted = st.builds(
        lambda target, values, more: _post(target, values, more),
        st.sampled_from(
            [f"{API}/{name}" for name in ("cancel", "reset", "component_server", "stream/x", "stream/x/close")]
        ),
        st.one_of(
            st.fixed_dictionaries(
                {"session_hash": names, "fn_index": scalars(), "event_id": scalars()},
                optional={
                    "component_id": st.one_of(st.integers(0, 80), scalars()),
                    "fn_name": st.one_of(texts(), st.sampled_from(["preprocess", "ls", "__init__", "postprocess"])),
                    "data": values(paths),
                },
            ),
            values(paths),
        ),
        extra,
    )
    got = st.builds(
        lambda shape, word, more: Call("GET", f"{API}/{shape.format(quote(word, safe='/%.'))}", more),
        st.sampled_from(STREAMS),
        st.one_of(names, paths, texts().map(lambda text: text[:500])),
        extra,
    )
    return st.one_of(posted, got)


def _files(paths: Any, extra: Any) -> st.SearchStrategy[Call]:
    """Whatever serves a file."""
    method = st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "DELETE"])
    return st.builds(
        lambda method, shape, path, encoded, more: Call(
            method, shape.format(quote(path, safe="/%.=:\\~") if encoded else _plain(path)), more
        ),
        method,
        st.sampled_from(FILES),
        paths,
        st.booleans(),
        extra,
    )


def _plain(path: str) -> str:
    """As it is, but for what would end the request line."""
    return "".join(quote(letter) if letter in " \r\n\x00" or ord(letter) > 126 else letter for letter in path)


def _uploads(paths: Any, extra: Any) -> st.SearchStrategy[Call]:
    """Odd forms."""
    names = st.one_of(
        paths, texts().map(lambda text: text[:300]), st.sampled_from(["a.png", "..", ".", "", "a/b", "con"])
    )
    content = st.one_of(
        st.binary(max_size=200),
        st.sampled_from([b"\x89PNG\r\n\x1a\n", b"GIF89a", b"<svg onload=alert(1)>", b"x" * 100_000]),
    )
    kinds = st.sampled_from(["image/png", "text/html", "image/svg+xml", "", "x/y;z=\x01"])
    ends = st.sampled_from(["--b--\r\n", "--b--", "", "--c--\r\n"])

    def form(fields: list[tuple[str, str, str, bytes]], end: str, boundary: str, query: str, more: Any) -> Call:
        body = b""
        for field, name, kind, data in fields:
            safe = name.replace('"', "%22").replace("\r", "").replace("\n", "")
            head = f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="{safe}"\r\n'
            body += f"{head}Content-Type: {kind}\r\n\r\n".encode("utf-8", "surrogatepass") + data + b"\r\n"
        kind = f"multipart/form-data{boundary}"
        return Call("POST", f"{API}/upload{query}", (("Content-Type", kind), *more), body + end.encode())

    fields = st.tuples(st.sampled_from(["files", "file", "", "data"]), names, kinds, content)
    return st.builds(
        form,
        st.lists(fields, max_size=3),
        ends,
        st.sampled_from(["; boundary=b", "; boundary=b", "; boundary=b", "", "; boundary=", "; boundary=" + "x" * 300]),
        st.sampled_from(["", "?upload_id=x", "?upload_id=../../x", "?upload_id="]),
        extra,
    )


def _own(paths: Any, extra: Any) -> st.SearchStrategy[Call]:
    method = st.sampled_from(["GET", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "OPTIONS", "PATCH", "X"])
    rest = st.one_of(
        st.just(""), st.just("/"), paths.map(lambda path: "?x=" + quote(path)), st.just("?" + "a=1&" * 500)
    )
    return st.builds(
        lambda method, path, rest, body, more: Call(method, path + rest, more, body),
        method,
        st.sampled_from(OWN_PATHS),
        rest,
        st.one_of(st.just(b""), st.binary(max_size=50)),
        extra,
    )


def _login(extra: Any) -> st.SearchStrategy[Call]:
    """Where accounts are needed, and where they are not."""
    form = st.dictionaries(st.sampled_from(["username", "password", "x"]), texts(), max_size=3).map(
        lambda fields: "&".join(f"{name}={quote(text)}" for name, text in fields.items()).encode()
    )
    kind = st.sampled_from(["application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "application/json"])
    return st.builds(
        lambda target, kind, body, more: Call("POST", target, (("Content-Type", kind), *more), body),
        st.sampled_from(["/login", "/login/", "/logout", "//login"]),
        kind,
        st.one_of(form, st.binary(max_size=100)),
        extra,
    )


def _garbage(extra: Any) -> st.SearchStrategy[Call]:
    """Bodies that are no JSON, to routes that want some."""
    target = st.sampled_from(
        ["run/predict", "queue/join", "call/generate", "cancel", "component_server", "upload", "reset"]
    )
    body = st.one_of(
        st.binary(max_size=300),
        st.sampled_from(
            [b"", b"{", b"[" * 50_000, b'{"data": [' + b"1," * 20_000, b"\xff\xfe{}", b'{"a":1e999999}', b"9" * 5000]
        ),
    )
    return st.builds(lambda name, body, more: Call("POST", f"{API}/{name}", (*JSON, *more), body), target, body, extra)
