"""evalcore as an archive: what a cluster runs is what is here, and never another version by accident.

>>> archive().digest[:12]
'5d0e6a3f91b2'

The package and the include folders (those of ``EVALCORE_INCLUDE`` first), without times and owners, so that the
same files have the same digest. Its dependencies are the cluster's own.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from evalcore import include
from evalcore.errors import ConfigError

_KINDS = ("benchmarks", "converters", "prompts", "suites")
_MEGABYTES = 64


class Archive(NamedTuple):
    data: bytes
    digest: str


@cache
def archive() -> Archive:
    """A compressed tar of ``evalcore/`` and ``include/``.

    Raises:
        ConfigError: it is too big to be sent: data sets do not belong into include folders.
    """
    package = Path(__file__).resolve().parents[1]
    files = {f"evalcore/{f.relative_to(package)}": f for f in package.rglob("*") if _is_shipped(f)}
    for kind in _KINDS:
        for folder in reversed(include.folders(kind)):  # the first wins
            files |= {
                f"include/{kind}/{f.relative_to(folder)}": f for f in folder.rglob("*") if _is_shipped(f)
            }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, file in sorted(files.items()):
            info = tarfile.TarInfo(name)
            content = file.read_bytes()
            info.size, info.mode = len(content), 0o644
            tar.addfile(info, io.BytesIO(content))
    data = gzip.compress(packed.getvalue(), mtime=0)
    if len(data) > _MEGABYTES << 20:
        raise ConfigError(
            f"evalcore and its include folders are {len(data) >> 20} MB, more than {_MEGABYTES}"
        )
    return Archive(data, hashlib.sha256(data).hexdigest())


def source(name: str) -> str:
    """A module of ``evalcore.slurm`` as text: what runs where evalcore is not installed."""
    return resources.files("evalcore.slurm").joinpath(name).read_text(encoding="utf-8")


def _is_shipped(file: Path) -> bool:
    return file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")
