"""Where the YAML files of ``include/`` are: prompts, benchmarks, suites, converters, …

``find("benchmarks", "gsm8k")`` is a path; looked for in the folders of ``EVALCORE_INCLUDE`` (separated
by ``:``), so that a team can add its own beside ours, then in the include folder this package came with.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from evalcore.errors import ConfigError


def folders(kind: str) -> list[Path]:
    """The existing folders that hold files of a kind (``prompts``, ``benchmarks``, ``suites``), first wins."""
    package = Path(__file__).resolve().parent
    own = [Path(p) for p in os.environ.get("EVALCORE_INCLUDE", "").split(os.pathsep) if p]
    # An installed wheel carries include/ inside the package; a checkout has it beside the package.
    roots = [*own, package / "include", package.parent / "include"]
    return [root / kind for root in roots if (root / kind).is_dir()]


def names(kind: str) -> list[str]:
    """The names there are of a kind, sorted: ``generic/math`` for ``prompts/generic/math.yaml``."""
    return sorted({name for name, _ in _files(kind)})


def find(kind: str, name: str) -> Path:
    """The YAML file of a name, or of a path that ends in ``.yaml``; ConfigError lists the valid names."""
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name)
        raise ConfigError(f"{_singular(kind)} {name}: no such file")
    for known, file in _files(kind):
        if known == name:
            return file
    raise ConfigError(f"unknown {_singular(kind)} {name!r}; valid: {', '.join(names(kind))}")


def load(kind: str, name: str) -> tuple[Path, dict[str, Any]]:
    """The YAML file of a name and the mapping in it; ConfigError if there is none or it is unreadable."""
    file = find(kind, name)
    where = f"{_singular(kind)} {name}"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{where}: {file} is unreadable: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: {file} holds no mapping of names to values")
    return file, content


def _files(kind: str) -> Iterator[tuple[str, Path]]:
    for folder in folders(kind):
        for file in sorted(folder.rglob("*.yaml")):
            yield file.relative_to(folder).with_suffix("").as_posix(), file


def _singular(kind: str) -> str:
    return {"canaries": "canary"}.get(kind, kind.removesuffix("s"))
