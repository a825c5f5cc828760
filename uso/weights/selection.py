"""Which of the files that were found a model uses: `choose`, and `with_weights` for a whole model.

A file with the configured name comes first, then the most exact format. The program never guesses between models that
have the same shapes.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from uso.config import ComponentName, ModelConfig, Source, from_home
from uso.errors import ConfigError
from uso.weights.finder import INDEX, Candidate, scan
from uso.weights.formats.headers import SHARD, SUFFIXES

_ORDER = (
    "bf16",
    "fp32",
    "fp16",
    "fp64",
    "fp8 e4m3 scaled",
    "fp8 e5m2 scaled",
    "fp8 e4m3",
    "fp8 e5m2",
    "Q8",
    "Q6",
    "Q5",
)
"""Kinds by how exact they are; all others come after them."""

_KIND_WORDS = re.compile(
    r"[-_. ]?(fp8|fp16|fp32|bf16|f16|e4m3fn|e4m3|e5m2|scaled|fast|hybrid|q\d(_k|_0|_1)?(_[sml])?|gguf|nf4|v\d+|unet|"
    r"only|all[-_]?in[-_]?one|aio|checkpoint|pruned)(?=$|[-_. ])",
    re.IGNORECASE,
)
_KNOWN: dict[ComponentName, re.Pattern[str]] = {
    "text_encoder": re.compile(r"clip[-_]?l(?![a-z])|(?:^|/)(text_encoder|clip-vit-large-patch14)/", re.IGNORECASE),
    "text_encoder_2": re.compile(r"t5[-_]?(xxl|v1)|(?:^|/)text_encoder_2/", re.IGNORECASE),
    "vae": re.compile(r"(?:^|/)(ae|flux\w*)[-_.]|(?:^|/)vae/diffusion", re.IGNORECASE),
    "image_encoder": re.compile(r"sigclip|siglip", re.IGNORECASE),
    "lora": re.compile(r"(?<![a-z])uso(?![a-z])|dit_lora", re.IGNORECASE),
}
"""Names of the originals: these come before fine-tunes of the same shapes, however exact those are stored."""

_GENERIC = {"diffusionpytorchmodel", "model", "transformer", "unet", "pytorchmodel"}


def choose(config: ModelConfig, candidates: Iterable[Candidate]) -> list[Candidate]:
    """The candidates, with one of each component chosen where one can be, and the reason for each.

    A file under the configured name comes first, then the most exact kind. Transformers of other names are other
    models, whatever their shapes say: several are never guessed between.
    """
    judged: list[Candidate] = []
    groups: dict[ComponentName, list[Candidate]] = {}
    for each in candidates:
        if each.component is None or each.refused:
            judged.append(replace(each, reason=each.refused))
        elif each.component == "transformer" and each.guidance is not None and each.guidance != config.guidance:
            judged.append(replace(each, reason=f"{config.title} is of the other kind (guidance)"))
        else:
            groups.setdefault(each.component, []).append(each)
    for component, group in groups.items():
        source = config.components.get(component)
        judged += _choose_one(component, group, Path(source.path).name if source else "", config)
    return judged


def _choose_one(
    component: ComponentName, group: list[Candidate], configured: str, config: ModelConfig
) -> list[Candidate]:
    known = _KNOWN.get(component)
    group = sorted(
        group,
        key=lambda each: (
            each.name != configured,
            known is not None and known.search("/".join(each.path.parts[-2:])) is None,
            _rank(each.kind),
            not _is_current(each.path),
            str(each.path),
        ),
    )
    if component == "transformer":
        wanted = {model_stem(Path(configured)), _plain(config.name), _plain(config.title)}
        stems = {model_stem(each.path) for each in group}
        if len(stems) > 1:
            own = [each for each in group if model_stem(each.path) in wanted]
            if not own:
                return [replace(each, reason="one of several models: name it with --transformer") for each in group]
            strangers = [
                replace(each, reason="another model: name it with --transformer") for each in group if each not in own
            ]
            return _first(own, configured) + strangers
    return _first(group, configured)


def _first(group: list[Candidate], configured: str) -> list[Candidate]:
    best, *rest = group
    why = "the configured name" if best.name == configured else "the only one" if not rest else f"{best.kind} first"
    return [replace(best, chosen=True, reason=why)] + [
        replace(each, reason=f"{best.name} comes first ({best.kind})") for each in rest
    ]


def _is_current(path: Path) -> bool:
    """Whether a file of the Hub's cache is of the revision that `main` points to; true of all others."""
    for parent in path.parents:
        if parent.parent.name == "snapshots":
            try:
                return (parent.parent.parent / "refs" / "main").read_text(encoding="utf-8").strip() == parent.name
            except OSError:
                return False
    return True


def _rank(kind: str) -> int:
    return next((place for place, known in enumerate(_ORDER) if kind == known or kind.startswith(known + "_")), 99)


def model_stem(path: Path) -> str:
    """A model's name without what says how its numbers are stored: `flux1-dev-Q8_0.gguf` is `flux1dev`."""
    name = path.name.removesuffix(INDEX)
    if part := SHARD.fullmatch(name):
        name = part["stem"]
    for suffix in (*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES)):
        name = name.removesuffix(suffix)
    previous = ""
    while previous != name:
        previous, name = name, _KIND_WORDS.sub("", name)
    plain = _plain(name)
    if plain not in _GENERIC:
        return plain
    for parent in path.parents:  # a diffusers folder: the repository's name
        cached = re.fullmatch(r"models--.+--(.+)", parent.name)
        if cached:
            return _plain(cached[1])
        if _plain(parent.name) not in {*_GENERIC, "snapshots"} and not re.fullmatch(r"[0-9a-f]{40}", parent.name):
            return _plain(parent.name)
    return plain


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def with_weights(
    config: ModelConfig,
    folders: Iterable[str],
    cache: Path | None = None,
    named: Iterable[str] = (),
    undecided: bool = False,
) -> tuple[ModelConfig, list[Candidate]]:
    """A model with its components taken from folders, as far as they have them.

    Args:
        cache: the Hub's cache, where the rest is looked for in other revisions and layouts.
        named: components that were given as files of their own, which stay.
        undecided: do not refuse where several transformers are found: none is chosen.

    Returns:
        The model, and everything that was found with the reasons.

    Raises:
        ConfigError: a folder is not there, or several transformers are and none is named.
    """
    given = set(named)
    judged = choose(config, scan(from_home(folder).absolute() for folder in folders))
    components = dict(config.components)
    for each in judged:
        if each.chosen and each.component is not None and each.component not in given:
            components[each.component] = Source(path=str(each.path))
    torn = [each for each in judged if each.reason.startswith("one of several models")]
    if torn and "transformer" not in given and not undecided:
        listed = "; ".join(f"{each.path} ({each.kind})" for each in torn)
        raise ConfigError(
            f"--weights holds several transformers, and nothing says which is meant: {listed}. Name one with "
            "--transformer FILE."
        )
    found = {each.component for each in judged if each.chosen}
    if cache is not None:
        judged += _from_cache(config, components, cache, found | given)
    return config.model_copy(update={"components": components}), judged


def _from_cache(
    config: ModelConfig, components: dict[ComponentName, Source], cache: Path, have: set[str | None]
) -> list[Candidate]:
    """Take what is still missing from other revisions and layouts of the same repositories in the Hub's cache."""
    from huggingface_hub.file_download import repo_folder_name

    judged: list[Candidate] = []
    missing = [name for name, source in config.components.items() if name not in have and source.repo is not None]
    repositories = {source.repo for name in missing if (source := config.components[name]).repo}
    folders = [cache / repo_folder_name(repo_id=repo, repo_type="model") / "snapshots" for repo in sorted(repositories)]
    for each in choose(config, scan(folder for folder in folders if folder.is_dir())):
        if each.component in missing:
            judged.append(each)
            if each.chosen and each.component is not None:
                components[each.component] = Source(path=str(each.path))
    return judged
