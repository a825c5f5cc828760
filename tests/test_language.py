"""Texts in other languages: every file is complete, and readers get theirs."""

import ast
import copy
import string
from collections.abc import Iterator

import pytest
import yaml

from uso.config import CONFIGS, ROOT
from uso.errors import RequestError
from uso.language import ENGLISH, Text, asked_for, catalogue, joined, languages, speak, text_of, told, tr

MAKERS = {"Text", "tr", "static"}
"""Calls whose first argument is a template."""


def templates() -> Iterator[tuple[str, int, str, int]]:
    """Every template in the sources: file, line, template, number of values."""
    for path in sorted([*(ROOT / "uso").rglob("*.py"), ROOT / "app.py"]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
            if not isinstance(node, ast.Call) or name not in MAKERS or path.name in ("language.py", "labels.py"):
                continue
            first = node.args[0] if node.args else None
            assert isinstance(first, ast.Constant), (
                f"{path}:{node.lineno}: a template is a literal, with {{}} for values"
            )
            unknown = any(isinstance(one, ast.Starred) for one in node.args)
            values = 0 if unknown else len(node.args) - 1
            yield str(path.relative_to(ROOT)), node.lineno, str(first.value), values

    for path in sorted((CONFIGS / "models").glob("*.yaml")):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        title = [config["title"]] if path.stem == "demo" else []  # the others are names
        for text in filter(None, (config.get("description"), config.get("licence_notice"), *title)):
            yield path.name, 0, text, 0


def has_words(template: str) -> bool:
    return any(letter.isalpha() for literal, *_ in string.Formatter().parse(template) for letter in literal)


def places(template: str) -> list[str]:
    """The values that a template names, each time that it does: `{}` is the next one."""
    names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    return sorted(name or str(number) for number, name in enumerate(names))


@pytest.fixture(autouse=True)
def english_afterwards() -> Iterator[None]:
    yield
    speak(ENGLISH)


def glued(node: ast.AST) -> list[ast.expr]:
    """What `+` or an f-string puts together."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [node.left, node.right]
    parts = node.values if isinstance(node, ast.JoinedStr) else []
    return [part.value for part in parts if isinstance(part, ast.FormattedValue)]


def test_no_text_is_glued_to_another() -> None:
    """Catches a sentence that is English for everybody: what `+` or an f-string makes of a `Text` is a plain string."""
    for path in (ROOT / "uso").rglob("*.py"):
        for part in (part for node in ast.walk(ast.parse(path.read_text("utf-8"))) for part in glued(node)):
            name = getattr(part.func, "id", "") if isinstance(part, ast.Call) else ""
            assert name not in ("Text", "joined"), f"{path}:{part.lineno}: use joined()"


def test_every_template_has_its_values() -> None:
    """Catches `{}` without a value, which fails only when somebody is refused."""
    for file, line, template, values in templates():
        if values:
            assert len(set(places(template))) == values, f"{file}:{line}: {template}"


@pytest.mark.parametrize("language", [name for name in languages() if name != ENGLISH])
def test_a_language_has_every_text(language: str) -> None:
    """Catches a text that is new, changed or gone: people would read half a page in English."""
    every = {template for *_, template, _ in templates()}
    found = catalogue(language)
    assert not sorted(filter(has_words, every - found.keys())), "missing"
    assert not sorted(found.keys() - every), "not used any more"
    for english, other in found.items():
        assert places(english) == places(other), english


def test_a_text_is_told_in_the_language_of_the_reader() -> None:
    """Catches English with Chinese values, and Chinese in a log."""
    text = Text(
        "{} requests are waiting, and no more can wait here. Try again {}.", 7, Text("in about {}", Text("{} s", 9))
    )
    error = RequestError(text)
    speak("zh-CN")
    assert told(text_of(error)) == "已有 7 个请求在排队，这里不能再排更多。请在大约 9 秒后再试。"
    assert str(error) == text == "7 requests are waiting, and no more can wait here. Try again in about 9 s."
    assert told("in a moment") == tr("in a moment") == "稍后"
    assert told("no such text") == "no such text"
    assert told(joined(Text("The name or the password is wrong."), "", "X")) == "用户名或密码错误。X"
    assert copy.deepcopy(text) == text


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        ("ZH-tw", "zh-CN"),
        ("en-GB,zh;q=0.5", "en"),
        ("fr,zh-CN;q=0.9", "en"),
        ("../../etc/passwd", "en"),
        ("*", "en"),
    ],
)
def test_the_first_language_of_a_browser_counts(header: str | None, language: str) -> None:
    """Catches a page half in Gradio's choice of language and half in ours, and a file that a header names."""
    assert asked_for(header) == language
