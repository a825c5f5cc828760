"""Configs of runs in YAML files, with `key.key=value` overrides laid over them; unknown keys are refused by name."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from uso.config import read_yaml_with_parents
from uso.errors import ConfigError

Config = TypeVar("Config", bound=BaseModel)


def config_names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_config(cls: type[Config], folder: Path, name: str, overrides: Sequence[str] = ()) -> Config:
    """The config called `name` in a folder, or the one in a YAML file, with `key.key=value` overrides.

    Raises:
        ConfigError: no such config; an unknown key, with the known ones; a value that is refused.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(
            f"There is no training config '{name}'. Choose one of: {', '.join(config_names(folder))}; or a YAML file."
        )
    values: dict[str, Any] = {"name": path.stem, **read_yaml_with_parents(path)}
    check_keys(cls, values, str(path))
    for override in overrides:
        _lay_over(cls, values, override)
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{path}: {where + ': ' if where else ''}{reason}.") from error


def check_keys(cls: type[BaseModel], values: dict[str, Any], where: str, prefix: str = "") -> None:
    """Refuse keys that a config does not have.

    Raises:
        ConfigError: with the keys that it has.
    """
    for key, value in values.items():
        field = cls.model_fields.get(key)
        if field is None:
            raise ConfigError(f"{where}: {_unknown(cls, key, prefix)}")
        inner = _inner(field.annotation)
        if inner is not None and isinstance(value, dict):
            check_keys(inner, value, where, f"{prefix}{key}.")


def _inner(annotation: Any) -> type[BaseModel] | None:
    """The config that a field holds, if it holds one."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _unknown(cls: type[BaseModel], key: str, prefix: str) -> str:
    known = sorted(cls.model_fields)
    near = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean {prefix}{near[0]}?" if near else ""
    return f"there is no key {prefix}{key}.{hint} Known here: {', '.join(prefix + name for name in known)}."


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _lay_over(cls: type[BaseModel], values: dict[str, Any], override: str) -> None:
    """Change `values` by one `key.key=value`; the value is read as YAML. Keys below a free dictionary may be any."""
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"'{override}' is no override. Write key=value, for example optimizer.lr=1e-4.")
    *owners, last = dotted.split(".")
    prefix = ""
    level: type[BaseModel] | None = cls
    """None below a free dictionary."""
    for owner in owners:
        if level is not None:
            if owner not in level.model_fields:
                raise ConfigError(_sentence(_unknown(level, owner, prefix)))
            annotation = level.model_fields[owner].annotation
            level = _inner(annotation)
            if level is None and get_origin(annotation) is not dict:
                raise ConfigError(f"There is no key {dotted}: {prefix}{owner} has no keys of its own.")
        present = values.get(owner)
        values[owner] = dict(present) if isinstance(present, dict) else {}
        values, prefix = values[owner], f"{prefix}{owner}."
    if level is not None and last not in level.model_fields:
        raise ConfigError(_sentence(_unknown(level, last, prefix)))
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"The value of '{override}' cannot be read as YAML.") from error
