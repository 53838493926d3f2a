"""A checkpoint that lies elsewhere: its files by name, what each must be to be whole, and how to get one.

>>> remote = evalcore.fetch.resolve("hf://allenai/OLMo-2-0425-1B@step1000-tokens3B")
>>> remote.run, remote.name, remote.step, remote.revision
('OLMo-2-0425-1B', 'step1000-tokens3B', 1000, '3f2a9c1db2f0')

Made by ``hub``, ``wandb`` and ``object_store``, each through its source's own library.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import orjson

from evalcore.checkpoints import JUST_CHECKPOINTS, path_component
from evalcore.errors import CheckpointError, EvalError

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
# The same weights in other formats, and what training alone needs: several times what is read here.
_NOT_READ = re.compile(
    r"\..*|.*\.(bin|ckpt|distcp|ggml|gguf|gz|h5|msgpack|npz|onnx|onnx_data|ot|pkl|pt|pth|tar|tflite|zip)",
    re.IGNORECASE,
)
FULL = (errno.ENOSPC, errno.EDQUOT)


class Unavailable(CheckpointError):
    """The source cannot be asked now: another time it may say something else."""


class File(NamedTuple):
    """What a file must be. hash: ``sha256:…``, ``md5:…`` or ``git:…`` in hex, or nothing where the source tells none.

    version: tells it from the same file at another time; no part of it once it is here.
    """

    size: int
    hash: str = ""
    version: str = ""

    def is_whole(self, path: Path) -> bool:
        """Whether a file here is this one, all of it."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        kind, _, wanted = self.hash.partition(":")
        if not kind:
            return True
        digest = hashlib.sha1(b"blob %d\0" % self.size) if kind == "git" else hashlib.new(kind)
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return digest.hexdigest() == wanted


@dataclass(frozen=True)
class Remote:
    """A checkpoint elsewhere, as it is now.

    run, name, step: as of a checkpoint here, unless somebody says otherwise. files: those that are read, all
    beside each other. get: brings one of them into a folder, under its name; raises Unavailable, CheckpointError
    for what would be the same another time, or OSError for what is wrong here. workers: as many at a time. now: all
    files there are by then, where others can take their place while they are got; raises as get.
    """

    url: str
    run: str
    name: str
    step: int | None
    files: Mapping[str, File]
    get: Callable[[str, Path], None]
    workers: int = 4
    now: Callable[[], Mapping[str, File]] | None = None

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files.values())

    @property
    def revision(self) -> str:
        """12 hex digits that are the same for the same files and for no others."""
        listed = sorted((name, *file) for name, file in self.files.items())
        return hashlib.sha256(orjson.dumps(listed)).hexdigest()[:12]


def part_of(name: str) -> str:
    """What a file is called until all of it is here, if whoever gets it can go on from its end."""
    # Not `.part`: so older versions called what s3fs had made as long as it was to be, before anything was in it.
    return f".{name}.begun"


def remote_of(
    url: str,
    above: tuple[str, ...],
    name: str,
    step: int | None,
    files: Mapping[str, File],
    get: Callable[[str, Path], None],
    workers: int = 4,
    now: Callable[[], Mapping[str, File]] | None = None,
) -> Remote:
    """A ``Remote`` of the files of a source.

    Args:
        above: names of what it lies in, the nearest last; the first that says more than ``checkpoints`` is the run.
        files: all there are, by path.
        get, workers, now: as the ``Remote`` has them.

    Raises:
        CheckpointError: it is no Hugging Face model with safetensors weights, or its name cannot be used.
    """
    read = {name: file for name, file in files.items() if _is_read(name)}
    if "config.json" not in read or not any(weights in read for weights in _WEIGHTS):
        kind = f"it has {_some(files)}"
        if ".metadata" in files:
            kind = "a distributed checkpoint: as a folder, where jobs run, converter=NAME converts it"
        raise CheckpointError(
            f"checkpoint {url}: no Hugging Face model with safetensors weights, which alone is fetched; {kind}"
        )
    run = next((part for part in reversed(above) if part not in JUST_CHECKPOINTS), above[-1])
    run, name = path_component(run, "training run"), path_component(name, "checkpoint")
    return Remote(url, run, name, step, read, get, workers, now)


def _is_read(name: str) -> bool:
    # Subfolders hold states of optimizers, and copies in other formats.
    return PurePosixPath(name).name == name and not _NOT_READ.fullmatch(name)


def _some(files: Mapping[str, File]) -> str:
    return ", ".join(sorted(files)[:3]) + (", …" if len(files) > 3 else "") if files else "no files"


@contextmanager
def asked(url: str, *kinds: type[Exception], final: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Errors of a source's library as CheckpointError, or Unavailable; what is wrong with the disk here as it is.

    Args:
        kinds: what the library raises. final: those of them that would be the same another time.
    """
    try:
        yield
    except EvalError:
        raise
    except kinds as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        said = f"{url}: {(' '.join(str(error).split()) or type(error).__name__)[:300]}"
        cause = getattr(error, "exc", None) or error  # wandb puts its own around others
        status = _status(cause)
        if isinstance(cause, final) or (400 <= status < 500 and status not in (408, 429)):
            raise CheckpointError(said) from error
        raise Unavailable(said) from error


def _status(error: BaseException) -> int:
    """The HTTP status that an error of a library's is about; 500 if it tells none."""
    for it in (error, error.__cause__):  # s3fs makes an OSError of botocore's
        response = getattr(it, "response", None)
        if isinstance(response, dict):
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
        if response is not None:
            return int(getattr(response, "status_code", 500))
    return 500
