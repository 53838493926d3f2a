"""Where jobs run: the cluster profiles of Nemotron's ``env.toml``, read as it is.

    [wandb]
    project = "nemotron"

    [cluster]
    executor = "slurm"
    partition = "batch"
    tunnel = "ssh"
    host = "login.example.com"
    remote_job_dir = "/lustre/users/me/evalcore"

>>> load_profiles().get("cluster").results
'/lustre/users/me/evalcore/results'

A section is checked when it is asked for and not before: a base that others extend need not be complete,
and a file shared with training has sections of executors that are not ours. ``${oc.env:NAME,default}`` is
replaced as Nemotron does, except in what is secret: that stays a reference, and only a job's environment
gets the value.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from evalcore.errors import ConfigError
from evalcore.executors import (
    KINDS,
    SECRET_NAME,
    TAKEN_FROM,
    DockerProfile,
    Kind,
    LocalProfile,
    Profile,
    SlurmProfile,
    is_indirect,
    is_secret,
    secret_message,
    walltime_seconds,
)
from evalcore.settings import Wandb

__all__ = [
    "DockerProfile",
    "LocalProfile",
    "Profile",
    "Profiles",
    "SlurmProfile",
    "describe",
    "load_profiles",
    "walltime_seconds",
    "wandb_defaults",
]

# Nemotron's sections that are no profiles.
_WANDB = "wandb"
_SYSTEM_SECTIONS = (_WANDB, "artifacts", "cache", "cli")
# Nemotron's keys that say how training is launched: one evaluation job is one task, started by us. They may
# stand in a file that is shared with it. Everything else that is unknown is an error.
_TRAINING = {
    "build_gpus_per_node",
    "build_include_gpus",
    "build_partition",
    "build_time",
    "detach",
    "dry_run",
    "ipc_mode",
    "job_name",
    "lustre_mount",
    "nemo_run_dir",
    "nproc_per_node",
    "ntasks_per_node",
    "packager",
    "packager_include_pattern",
    "ray_mode",
    "ray_working_dir",
    "run_command",
    "run_partition",
    "runtime",
    "startup_commands",
}
_WANDB_UNUSED = {"name", "run_name", "tags", "notes"}


class _Written(NamedTuple):
    value: Any
    section: str
    """Where it is written, which may be a base."""


@dataclass(frozen=True)
class Profiles:
    """The profiles of one file, and ``local``, which is there without one.

    sections: what is written, by name; checked by ``get``.
    wandb: what ``[wandb]`` sets (``model_fields_set``), under the settings of an evaluation.
    """

    file: Path | None
    sections: Mapping[str, Mapping[str, Any]]
    wandb: Wandb

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, ``local`` first if it is the built-in one, then as in the file."""
        return tuple(self.sections)

    def get(self, name: str) -> LocalProfile | DockerProfile | SlurmProfile:
        """One profile, complete.

        Raises:
            ConfigError: no such profile, an unknown key, or a value that cannot be used; in one line that
                names the file, section and key.
        """
        kind, written = self._resolve(name)
        data = {key: entry.value for key, entry in written.items() if key not in _TRAINING}

        def where(key: str) -> str:
            return self._where(written[key].section if key in written else name, key)

        env = data.pop("env", {})
        secrets = {n: text for n, text in env.items() if isinstance(text, str) and is_secret(n, text)}
        data["env"] = {n: text for n, text in env.items() if n not in secrets}
        data = _interpolated(data, where)
        data["env"] |= secrets
        # TOML has no null: an empty text takes back what a base says.
        data = {key: value for key, value in data.items() if value != ""}
        try:
            return kind.model_validate(data | {"name": name})
        except ValidationError as error:
            raise _one_line(error, where) from None  # the cause would carry what somebody wrote into env

    def unused(self, name: str) -> list[str]:
        """The keys of a profile that mean something to Nemotron's training alone."""
        return sorted(_TRAINING.intersection(self._resolve(name)[1]))

    def chain(self, name: str) -> list[str]:
        """The sections that make a profile: itself, what it extends, and so on.

        Raises:
            ConfigError: no such profile, an unknown base, or one that extends itself in the end.
        """
        if name not in self.sections:
            place = self.file or "there is no env.toml (EVALCORE_ENV_TOML), only what is built in"
            raise ConfigError(f"{place}: unknown profile {name!r}{_nearest(name, self.names)}")
        chain = [name]
        while (base := self.sections[chain[-1]].get("extends")) is not None:
            where = self._where(chain[-1], "extends")
            if not isinstance(base, str):
                raise ConfigError(f"{where}: expected the name of one profile")
            if base in chain:
                raise ConfigError(f"{where}: goes in a circle: {' → '.join([*chain, base])}")
            if base not in self.sections:
                raise ConfigError(f"{where}: unknown profile {base!r}{_nearest(base, self.names)}")
            chain.append(base)
        return chain

    def _resolve(self, name: str) -> tuple[Kind, dict[str, _Written]]:
        """The model of a profile, and all that is written for it, under our names; the child's goes before."""
        chain = self.chain(name)
        kind = self._kind(chain)
        names = {*kind.model_fields, *kind.fallbacks, *kind.preferred, "env_vars", "extends"} - {"name"}
        merged: dict[str, _Written] = {}
        for section in reversed(chain):
            for key, value in self.sections[section].items():
                where = self._where(section, key)
                if key not in names | _TRAINING:
                    raise ConfigError(f"{where}: unknown key{_nearest(key, sorted(names))}")
                if key in ("env", "env_vars"):
                    inherited = merged["env"].value if "env" in merged else {}
                    merged["env"] = _Written({**inherited, **_as_table(value, where)}, section)
                elif key != "extends":
                    if key not in _TRAINING:
                        _refuse_secrets(value, where)
                    merged[key] = _Written(value, section)
        for other, key in kind.fallbacks.items():
            if other in merged:
                merged.setdefault(key, merged.pop(other))
        for other, key in kind.preferred.items():
            if other in merged:
                merged[key] = merged.pop(other)
        return kind, merged

    def _kind(self, chain: list[str]) -> Kind:
        section = next((s for s in chain if "executor" in self.sections[s]), None)
        executor = "local" if section is None else self.sections[section]["executor"]
        if kind := KINDS.get(str(executor)):
            return kind
        where = self._where(section or chain[0], "executor")
        raise ConfigError(f"{where}: {executor!r} is none of evalcore's; valid: {', '.join(sorted(KINDS))}")

    def _where(self, section: str, key: str) -> str:
        return f"{self.file or 'built in'}: {section}.{key}"


def load_profiles(file: Path | None = None) -> Profiles:
    """The profiles of a file: the argument, ``EVALCORE_ENV_TOML``, or ``env.toml`` here, if there is one.

    Raises:
        ConfigError: a file that was named and is not there, that is no TOML, whose ``[wandb]`` is wrong, or
            in which a profile extends one that is not there, or itself.
    """
    builtin: dict[str, Mapping[str, Any]] = {"local": {"executor": "local"}}
    if file is None:
        named = os.environ.get("EVALCORE_ENV_TOML")
        file = Path(named) if named else Path("env.toml")
        if not named and not file.is_file():
            return Profiles(None, builtin, Wandb())
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file of cluster profiles") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: no TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: unreadable: {error}") from error
    for name, section in content.items():
        if not isinstance(section, dict):
            raise ConfigError(f"{file}: {name}: belongs into a section, such as [cluster]")
        if not re.fullmatch(r"[A-Za-z0-9_][\w.-]*", name):
            raise ConfigError(f"{file}: [{name!r}]: a profile's name has letters, digits and . _ - in it")
    sections = {name: section for name, section in content.items() if name not in _SYSTEM_SECTIONS}
    if "local" not in sections:
        sections = {**builtin, **sections}
    profiles = Profiles(file, sections, _wandb(file, content.get(_WANDB, {})))
    for name in profiles.names:
        profiles.chain(name)
    return profiles


def wandb_defaults() -> dict[str, Any]:
    """What ``[wandb]`` of env.toml sets, which lies under an evaluation's own settings.

    Raises:
        ConfigError: as ``load_profiles``.
    """
    return load_profiles().wandb.model_dump(exclude_unset=True)


def describe(profiles: Profiles) -> str:
    """A line for each profile: name, executor, host, partition, image; or why it cannot be used."""
    rows: list[tuple[str, ...]] = [("NAME", "EXECUTOR", "HOST", "PARTITION", "IMAGE")]
    reasons = []
    for name in profiles.names:
        try:
            profile = profiles.get(name)
        except ConfigError as error:
            rows.append((name, "?", "", "", ""))
            reasons.append(f"{name} cannot be used: {error}")
            continue
        said = profile.model_dump()
        host = said.get("host") or said.get("ssh_conn_id") or said.get("docker_conn_id")
        cells = (host, said.get("partition"), said.get("container_image"))
        rows.append((name, profile.executor, *(cell or "-" for cell in cells)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines + reasons)


def _wandb(file: Path, section: Mapping[str, Any]) -> Wandb:
    def where(key: str) -> str:
        return f"{file}: {_WANDB}.{key}"

    valid = sorted(Wandb.model_fields)
    for key, value in section.items():
        if SECRET_NAME.fullmatch(key):
            raise ConfigError(f"{where(key)}: a secret does not belong into a file; export WANDB_API_KEY")
        if key not in {*valid, *_WANDB_UNUSED}:
            raise ConfigError(f"{where(key)}: unknown key{_nearest(key, valid)}")
        _refuse_secrets(value, where(key))
    used = {key: value for key, value in section.items() if key in valid and value != ""}
    try:
        return Wandb.model_validate(_interpolated(used, where))
    except ValidationError as error:
        raise _one_line(error, where) from None


def _interpolated(data: dict[str, Any], where: Callable[[str], str]) -> dict[str, Any]:
    """With ``${oc.env:NAME,default}`` and ``${other_key}`` replaced, as OmegaConf does it for Nemotron."""
    for key, value in data.items():
        if isinstance(value, date | time):
            raise ConfigError(f'{where(key)}: write it in quotes, as in {key} = "{value}"')
    if not any("$" in text for value in data.values() for text in _texts(value)):
        return data
    from omegaconf import OmegaConf  # here: whoever only reads a DAG need not wait for it
    from omegaconf.errors import OmegaConfBaseException

    key = ""
    try:
        for key, value in data.items():
            OmegaConf.create({key: value})  # the key of a value that cannot be read
        config = OmegaConf.create(data)
        resolved = {}
        for key in data:
            value = config[key]
            resolved[key] = (
                OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            )
    except OmegaConfBaseException as error:
        message = str(error).splitlines()[0].removeprefix("KeyError raised while resolving interpolation: ")
        message = message.strip('"')
        raise ConfigError(f"{where(key)}: {message}") from None
    return resolved


def _one_line(error: ValidationError, where: Callable[[str], str]) -> ConfigError:
    first = error.errors(include_input=False)[0]
    key, *inside = map(str, first["loc"] or ("",))  # none: it is about the profile as a whole
    message = first["msg"].removeprefix("Value error, ")
    return ConfigError(f"{'.'.join([where(key), *inside]).rstrip('.')}: {message}")


def _refuse_secrets(value: object, where: str) -> None:
    for text in _texts(value):
        if is_indirect(text):
            raise ConfigError(f"{where}: write the variable's name as it is: ${{oc.env:NAME,default}}")
        if secret := next(filter(SECRET_NAME.fullmatch, TAKEN_FROM.findall(text)), None):
            raise ConfigError(f"{where}: {secret_message(secret)}")


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _as_table(value: object, where: str) -> dict[str, Any]:
    """``env_vars``, which Nemotron has had as a table and as a list of ``NAME=value``."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and all(isinstance(item, str) and "=" in item for item in value):
        return dict(item.split("=", 1) for item in value)
    raise ConfigError(f"{where}: expected a table of names and values")


def _nearest(name: str, valid: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, valid, 1)
    meant = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{meant} valid: {', '.join(valid)}"
