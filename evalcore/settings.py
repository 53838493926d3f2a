"""What everything that a user writes is made of: models in which an unknown key is an error, said in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from evalcore.errors import ConfigError

_T = TypeVar("_T", bound=BaseModel)


class Settings(BaseModel):
    """Base of everything a user writes: an unknown key is an error, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def to_overrides(self) -> list[str]:
        """The dotted overrides that make these settings from nothing: what a command line of them carries."""
        return list(_flatten(self.model_dump(mode="json", exclude_defaults=True)))


class Wandb(Settings):
    """Where the numbers go. mode None: online when a key is there, else offline; ``disabled`` sends nothing.

    Here, since both an evaluation's config and env.toml have it.
    """

    project: str = "checkpoint-evaluation"
    entity: str | None = None
    mode: Literal["online", "offline", "disabled"] | None = None

    def to_overrides(self) -> list[str]:
        """As of any settings, and what is set to its default, too: env.toml may say something else."""
        return list(_flatten(self.model_dump(mode="json", exclude_unset=True)))


def validated(kind: type[_T], data: Mapping[str, Any], where: str) -> _T:
    """Build a settings model; the first thing wrong becomes one line that lists the valid names."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        message = f"{where}: {key + ': ' if key else ''}{first['msg'].removeprefix('Value error, ')}"
        if first["type"] == "extra_forbidden":
            message = f"{where}: unknown key {key!r}; valid: {', '.join(_valid_keys(kind, first['loc']))}"
        elif "://" in str(first.get("input")):
            # An address may let anybody in, and pydantic's error has it too.
            raise ConfigError(message) from None
        elif "input" in first and isinstance(first["input"], str | int | float):
            message += f" (got {first['input']!r})"
        raise ConfigError(message) from error


def _valid_keys(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location[:-1]:
        if field := kind.model_fields.get(str(part)):  # else an index, or a key that the user chose
            kind = _model_in(field.annotation) or kind
    return sorted(kind.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """``Source`` of ``tuple[Source, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif (
            isinstance(value, str)
            and re.fullmatch(r"[\w/.:,@+=-]+", value)
            and yaml.safe_load(value) == value
        ):
            yield f"{prefix}{key}={value}"
        else:
            yield f"{prefix}{key}={json.dumps(value)}"  # JSON is YAML, which overrides are read as
