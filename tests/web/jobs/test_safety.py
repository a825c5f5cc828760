"""The hook for the owner's filter: it is found, applied, and never passed over."""

import logging
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.scripted import PATIENCE, until
from uso import hooks
from uso.errors import ConfigError, USOError
from uso.web.jobs.safety import Blocked, Safety, load_safety

CODE = """
asked = []

def check(prompt, image):
    asked.append((prompt, image and image.size))
    if image is not None:
        image.putpixel((0, 0), (255, 0, 0))
    return "no\\n  dragons" if "dragon" in prompt else None

def broken(prompt, image):
    raise RuntimeError("the classifier is on fire")

def modern(prompt, image):
    return False

class Judge:
    check = staticmethod(check)

constant = 5
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path, None, None]:
    """An empty working folder with a module `myfilters`; what was imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "myfilters.py").write_text(CODE, encoding="utf-8")
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_without_a_filter_everything_passes() -> None:
    """Catches a hook that gets in the way of everybody who did not ask for it."""
    safety = load_safety(None)
    safety.check_prompt("a dragon")
    safety.check_picture("a dragon", Image.new("RGB", (8, 8)))


def test_it_checks_the_prompt_and_the_picture(here: Path) -> None:
    """Catches a filter that sees only one of the two, or is given another prompt or picture."""
    safety = load_safety("myfilters:check")
    safety.check_prompt("a fox")
    safety.check_picture("a fox", Image.new("RGB", (8, 4)))
    assert sys.modules["myfilters"].asked == [("a fox", None), ("a fox", (8, 4))]


def test_a_block_says_why_in_one_line(here: Path) -> None:
    """Catches a refusal that the page would show as a failure, or one without the filter's reason."""
    with pytest.raises(Blocked, match=r"^Blocked by this server's filter: no dragons$") as blocked:
        load_safety("myfilters:Judge.check").check_prompt("a dragon")
    assert isinstance(blocked.value, USOError)


def test_the_filter_does_not_change_the_picture(here: Path) -> None:
    """Catches the filter's drawing in the saved file."""
    picture = Image.new("RGB", (8, 8))
    load_safety("myfilters:check").check_picture("a fox", picture)
    assert picture.getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize("name", ["myfilters:broken", "myfilters:modern"])
def test_a_filter_that_fails_blocks(here: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a filter that lets everything through once its classifier is down, or answers True and False."""
    safety = load_safety(name)
    for ask in (lambda: safety.check_prompt("a"), lambda: safety.check_picture("a", Image.new("RGB", (8, 8)))):
        with caplog.at_level(logging.ERROR), pytest.raises(Blocked, match="filter could not be asked") as blocked:
            ask()
        assert "fire" not in str(blocked.value)
    assert "The filter" in caplog.text
    assert ("on fire" in caplog.text) == (name == "myfilters:broken")


@pytest.mark.parametrize("end", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_nothing_that_a_filter_raises_ends_the_server(end: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """Catches `sys.exit` in a filter, which ends the thread that asked, or the process."""

    def leaves(prompt: str, image: Image.Image | None) -> None:
        raise end

    with caplog.at_level(logging.ERROR), pytest.raises(Blocked, match="filter could not be asked"):
        Safety(leaves).check_prompt("a")
    assert type(end).__name__ in caplog.text


def test_a_filter_that_hangs_blocks_after_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a request that waits for ever, and threads without number that hang."""
    monkeypatch.setattr(hooks, "MOST_HANGING", 2)
    go_on = threading.Event()
    safety = Safety(lambda prompt, image: None if prompt == "quick" else go_on.wait(PATIENCE) and None, seconds=0.1)
    for _ in range(2):
        with pytest.raises(Blocked, match=r"^Blocked because the filter did not answer in time\."):
            safety.check_prompt("slow")
    assert "did not answer on a prompt within 0.1 s" in caplog.text
    with pytest.raises(Blocked, match="did not answer"):
        safety.check_prompt("quick")
    assert "2 calls of the filter hang" in caplog.text
    go_on.set()
    until(lambda: passes(safety))


def passes(safety: Safety) -> bool:
    try:
        safety.check_prompt("quick")
    except Blocked:
        return False
    return True


FORGED = "no\n2026-01-01 00:00:00,000 ERROR uso: all is lost\x1b[31m\r\x00\x85\u2028\u202eend"


def test_the_filters_text_forges_no_line(caplog: pytest.LogCaptureFixture) -> None:
    """Catches a prompt that writes lines of its own into the log, through the filter's reason or its error."""
    with pytest.raises(Blocked) as blocked:
        Safety(lambda prompt, image: prompt).check_prompt(FORGED)
    said = str(blocked.value)
    assert said.isprintable() and said.endswith("no 2026-01-01 00:00:00,000 ERROR uso: all is lost [31m end")

    def fails(prompt: str, image: Image.Image | None) -> None:
        raise ValueError(prompt)

    with pytest.raises(Blocked):
        Safety(fails).check_prompt(FORGED)
    first, *rest = caplog.records[-1].getMessage().split("\n")
    assert first == "The filter failed on a prompt." and len(rest) > 3
    assert all(line.startswith("    | ") and line.isprintable() for line in rest)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("myfilters", "`module:function` is expected"),
        (":check", "`module:function` is expected"),
        ("nowhere:check", "There is no module nowhere for the filter nowhere:check, neither in"),
        ("myfilters.deeper:check", "There is no module myfilters.deeper"),
        ("myfilters:nothing", "The module myfilters has no nothing"),
        ("myfilters:Judge.nothing", "The module myfilters has no Judge.nothing"),
        ("myfilters:constant", "constant in the module myfilters is no function"),
        ("needy:check", "needs a_library_nobody_has, which is not installed"),
        ("broken:check", "could not be imported: unexpected"),
        ("leaving:check", "could not be imported: 3"),
    ],
)
def test_what_cannot_be_a_filter_is_refused_at_the_start(here: Path, name: str, sentence: str) -> None:
    """Catches a server that starts, and finds out about its filter when the first person asks for a picture."""
    (here / "needy.py").write_text("import a_library_nobody_has\n", encoding="utf-8")
    (here / "leaving.py").write_text("import sys\nsys.exit(3)\n", encoding="utf-8")
    (here / "broken.py").write_text("raise ValueError('unexpected')\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=sentence):
        load_safety(name)


def test_no_filter_and_an_empty_name_are_the_same(picture: Callable[..., Image.Image]) -> None:
    """Catches an environment variable that is set, but empty, and blocks everything or refuses to start."""
    load_safety("").check_picture("", picture(8, 8))
    Safety().check_prompt("")
