"""What people read first holds true: README in two languages, `docs/` and CONTRIBUTING name commands, flags and files
that exist."""

import argparse
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import parser as page_parser
from tests.support.running import program
from tools.demo.__main__ import parser as demo_parser
from uso.cli.main import _parser as command_parser

ROOT = Path(__file__).resolve().parent.parent
README, CHINESE = ROOT / "README.md", ROOT / "README.zh.md"
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in (
        README,
        CHINESE,
        ROOT / "CONTRIBUTING.md",
        ROOT / "assets" / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "tools").rglob("*.md")),
    )
}
each_page = pytest.mark.parametrize("name", PAGES)

MOST_WORDS = 900

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMENT = re.compile(r"\s*# .*$", re.MULTILINE)
FLAG = re.compile(r"--[a-z][a-z0-9-]*")


def text_of(name: str) -> str:
    return PAGES[name].read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a language, without indentation and without comments, which may be translated."""
    found = (
        re.sub(rf"(?m)^{indent}", "", body).strip() for indent, kind, body in FENCE.findall(text) if kind == language
    )
    return [COMMENT.sub("", body) for body in found]


def inline(text: str) -> list[str]:
    return INLINE.findall(FENCE.sub("", text))


def commands(text: str) -> Iterator[list[str]]:
    """Command lines as words: lines of shell blocks, and inline code; flags inside `ARGS="..."` stand by themselves."""
    for body in blocks(text, "sh"):
        for line in body.replace("\\\n", " ").splitlines():
            yield words(line)
    for piece in inline(text):
        yield words(piece)


def words(line: str) -> list[str]:
    line = re.sub(r'ARGS="([^"]*)"', r"ARGS \1", line)
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # a piece of code, not of shell
        return line.split()


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


def verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The verbs of a parser, if it has any."""
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {name: verb for action in found for name, verb in action.choices.items()}


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    """The flags of a parser and of all its verbs."""
    return options(parser).union(*map(flags_of, verbs(parser).values()))


def check(parser: argparse.ArgumentParser, command: list[str], line: str) -> None:
    """Hold what follows a program's name, `VERB --flag ...`, against its parser."""
    if command and not command[0].startswith("-") and verbs(parser):
        if command[0] != "VERB":
            assert command[0] in verbs(parser), line
            check(verbs(parser)[command[0]], command[1:], line)
        return
    assert flags_in(command) <= options(parser), line


def flags_in(command: list[str]) -> set[str]:
    return {match[0] for word in command if (match := FLAG.match(word))}


def after(command: list[str], *marks: str) -> list[str] | None:
    """What follows a run of words; None if they do not occur."""
    for start in range(len(command) - len(marks) + 1):
        if tuple(command[start : start + len(marks)]) == marks:
            return command[start + len(marks) :]
    return None


# The front door


def test_the_readme_is_short() -> None:
    """Catches a front door that becomes a notebook again."""
    assert len(README.read_text(encoding="utf-8").split()) < MOST_WORDS


@pytest.mark.parametrize("language", ["sh", "python", "bibtex"])
def test_both_readmes_have_the_same_code(language: str) -> None:
    """Catches a command that was changed in one language only."""
    english, chinese = (blocks(path.read_text(encoding="utf-8"), language) for path in (README, CHINESE))
    assert english
    assert english == chinese


def test_both_readmes_name_the_same_things() -> None:
    """Catches a plan, a prompt or a page that one of the two leaves out."""
    english, chinese = (path.read_text(encoding="utf-8") for path in (README, CHINESE))
    assert inline(english) == inline(chinese)
    quoted = [re.findall(r'["“]([A-Z][^"”]+)["”]', FENCE.sub("", text)) for text in (english, chinese)]
    assert quoted[0] == quoted[1]
    links = [
        [link.replace("/zh/", "/") for link in LINK.findall(text) if not link.startswith("README")]
        for text in (english, chinese)
    ]
    assert links[0] == links[1]
    figures = [re.findall(r"[\d.]+ Gi?B", text) for text in (english, chinese)]
    assert figures[0] == figures[1]


# Every page


@each_page
def test_links_lead_somewhere(name: str) -> None:
    """Catches a file that was moved, and a heading that was renamed."""
    for link in LINK.findall(FENCE.sub("", text_of(name))):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = PAGES[name].parent / path if path else PAGES[name]
        assert target.exists(), f"{name} links to {link}"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{name} links to {link}"


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to headings."""
    headings = re.findall(r"(?m)^#+ +(.+)$", FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_commands_exist(name: str) -> None:
    """Catches a verb, a flag or a tool that was renamed or removed."""
    programs = {"uso": command_parser(), "tools.demo": demo_parser()}
    known = flags_of(page_parser()).union(*map(flags_of, programs.values()))
    for command in commands(text_of(name)):
        line = f"{name}: {' '.join(command)}"
        for module, parser in programs.items():
            check(parser, after(command, "-m", module) or [], line)
        page = after(command, "app.py") or (after(command, "ARGS") if command[:2] == ["make", "run"] else None)
        check(page_parser(), page or [], line)
        assert not command or not command[0].startswith("--") or flags_in(command[:1]) <= known, line
        module_named = after(command, "-m")
        if module_named and module_named[0].startswith("tools"):
            assert importlib.util.find_spec(module_named[0]), line


@each_page
def test_make_targets_exist(name: str) -> None:
    """Catches a page that names a target which make does not know."""
    targets = set(re.findall(r"(?m)^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    for command in commands(text_of(name)):
        if len(command) > 1 and command[0] == "make":
            assert command[1] in targets, f"{name}: {' '.join(command)}"


@each_page
def test_named_files_exist(name: str) -> None:
    """Catches a page that sends people to a module which has moved."""
    for piece in inline(text_of(name)):
        if re.fullmatch(r"(uso|tests|tools|configs|deploy|docs)/[\w./-]*", piece):
            assert (ROOT / piece).exists(), f"{name}: {piece}"


# Examples


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path) -> None:
    """Catches an example that people copy and that fails."""
    (example,) = re.findall(r"## gradio_client\n.*?```python\n(.*?)```", text_of("docs/api.md"), re.DOTALL)
    here, client = blocks(README.read_text(encoding="utf-8"), "python")
    with program(tmp_path) as running:
        running.wait_until("ready")

        def run(code: str) -> str:
            ran = subprocess.run(
                [sys.executable, "-c", code.replace("http://127.0.0.1:7860", f"http://127.0.0.1:{running.port}")],
                cwd=ROOT,
                env=os.environ | {"GRADIO_TEMP_DIR": str(tmp_path / "downloads")},
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert ran.returncode == 0, ran.stderr
            return ran.stdout

        said = run(example)
        assert re.search(r"(?m)^(Your turn|Reading|Step|Done)", said), said
        assert said.count("'state': 'done'") == 2 and said.endswith("The job was stopped.\n"), said
        assert len(running.pictures()) == 1
        assert "'state': 'done'" in run(client)
        run(here.replace("cat.png", str(tmp_path / "cat.png")))
        assert (tmp_path / "cat.png").is_file()
