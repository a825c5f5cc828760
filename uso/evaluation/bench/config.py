"""Benchmarks as data: `configs/bench/NAME.yaml` names contents, styles and counts, the files of `data/` the rest.

Plain data, no torch.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import Field

from uso.config import CONFIGS, Strict, validated
from uso.errors import ConfigError
from uso.files import read_text

FOLDER = CONFIGS / "bench"
Kind = Literal["person", "object", "style"]
TYPES = ("descriptive", "instructive", "stylized")
"""The paper's kinds of subject-driven prompts, by their keys in `data/prompts.yaml`."""

_ARTICLE = re.compile(r"\b([Aa]) \{word\}")
_T = TypeVar("_T", bound=Strict)


class Package(Strict):
    """Where pictures come from: a wheel of PyPI or a package of Debian."""

    kind: Literal["wheel", "deb"]
    version: str


class Picture(Strict):
    """A reference: which file, made by whom, under which licence."""

    kind: Kind
    word: str = ""
    package: str | None = None
    """None: a file of this repository."""
    file: str
    """A path in the package; behind a `!`, one in a Qt resource file."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    author: str
    licence: str
    source: str


class References(Strict):
    packages: dict[str, Package]
    pictures: dict[str, Picture]


class Prompts(Strict):
    """Prompts by where they come from; the paper's go first."""

    paper: tuple[str, ...]
    ours: tuple[str, ...] = ()

    def first(self, count: int, what: str) -> tuple[str, ...]:
        """The first prompts.

        Raises:
            ConfigError: there are not so many.
        """
        every = (*self.paper, *self.ours)
        if count > len(every):
            raise ConfigError(f"There are {len(every)} {what} prompts, not {count}. Ask for fewer.")
        return every[:count]


class SubjectPrompts(Strict):
    descriptive: Prompts
    instructive: Prompts
    stylized: Prompts


class AllPrompts(Strict):
    person: SubjectPrompts
    object: SubjectPrompts
    style: Prompts

    def for_content(self, kind: Kind, per_type: int) -> tuple[str, ...]:
        """Templates of the subject-driven prompts, type by type."""
        group: SubjectPrompts = getattr(self, kind)
        return tuple(text for name in TYPES for text in getattr(group, name).first(per_type, f"{kind} {name}"))


class SubjectTask(Strict):
    prompts_per_type: int = Field(ge=1)
    images: int = Field(ge=1)


class StyleTask(Strict):
    prompts: int = Field(ge=1)
    images: int = Field(ge=1)


class JointTask(Strict):
    """One picture for each pair with the layout kept and one with it moved."""

    styles_per_content: int = Field(ge=1)


class BenchConfig(Strict):
    """A file of `configs/bench/`; a task that is left out is not part of it."""

    title: str
    seed: int = Field(ge=0)
    contents: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    subject: SubjectTask | None = None
    style: StyleTask | None = None
    joint: JointTask | None = None


class PaperFigures(Strict):
    source: str
    figures: dict[str, dict[str, float]]


def bench_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_bench_config(name: str) -> BenchConfig:
    """A benchmark by name or path of a YAML file.

    Raises:
        ConfigError: there is none, or it holds unknown or wrong values.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"There is no benchmark '{name}'. Choose {' or '.join(bench_names())}, or name a YAML file.")
    config = _read(BenchConfig, path)
    for names, what in ((config.contents, "contents"), (config.styles, "styles")):
        if len(set(names)) < len(names):
            raise ConfigError(f"{path}: {what}: a name is there twice. Remove one.")
    return config


@cache
def references() -> References:
    return _read(References, FOLDER / "data" / "references.yaml")


@cache
def prompts() -> AllPrompts:
    return _read(AllPrompts, FOLDER / "data" / "prompts.yaml")


@cache
def paper_figures() -> PaperFigures:
    return _read(PaperFigures, FOLDER / "data" / "paper.yaml")


def worded(template: str, word: str) -> str:
    """A template with its word, and "an" before a vowel."""
    article = "n" if word[:1].lower() in "aeiou" else ""
    return _ARTICLE.sub(rf"\g<1>{article} {{word}}", template).replace("{word}", word)


def _read(kind: type[_T], path: Path) -> _T:
    try:
        values: Any = yaml.safe_load(read_text(path, "benchmark"))
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} could not be read: {error}") from error
    return validated(kind, values, path)
