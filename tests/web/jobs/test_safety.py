"""The hook for the owner's filter: it is found, applied, and never passed over."""

import logging
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from PIL import Image

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
    ],
)
def test_what_cannot_be_a_filter_is_refused_at_the_start(here: Path, name: str, sentence: str) -> None:
    """Catches a server that starts, and finds out about its filter when the first person asks for a picture."""
    (here / "needy.py").write_text("import a_library_nobody_has\n", encoding="utf-8")
    (here / "broken.py").write_text("raise ValueError('unexpected')\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=sentence):
        load_safety(name)


def test_no_filter_and_an_empty_name_are_the_same(picture: Callable[..., Image.Image]) -> None:
    """Catches an environment variable that is set, but empty, and blocks everything or refuses to start."""
    load_safety("").check_picture("", picture(8, 8))
    Safety().check_prompt("")
