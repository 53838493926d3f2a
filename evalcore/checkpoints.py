"""A checkpoint on disk: what it is called, and what tells it from others.

>>> checkpoint = load_checkpoint(Path("include/tiny/checkpoints/step-001800"))
>>> checkpoint.run, checkpoint.name, checkpoint.step
('tiny', 'step-001800', 1800)

A Hugging Face folder is served as it is (``model_folder``); of another format (``completeness``) a converter makes
one first (``converters``).
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evalcore import completeness, converters, model_folder
from evalcore.config import EvalConfig
from evalcore.converters import Conversion
from evalcore.errors import CheckpointError

# More digits than a database's integers have are a time or a hash, and no step.
_STEP = re.compile(r"(?:^|[^0-9])(\d{1,18})$")
JUST_CHECKPOINTS = frozenset({"checkpoints", "ckpts", "checkpoint", "ckpt"})
"""Names of folders that say nothing of the training run."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# File systems take 255 bytes, and temporary files need some of them.
_LONGEST_NAME = 200
_READ_WHOLE = 1 << 20
_BLOCK = 1 << 16
_BLOCKS = 4
_READERS = 16  # a parallel file system answers many at once


class Checkpoint(BaseModel):
    """What is evaluated: a complete checkpoint folder, or (path None) a model that somebody else serves.

    run: the training run it belongs to; name: its own name within the run; both are single path
    components. step: training steps, if known. digest: 64 hex digits that change with the weights.
    conversion: what makes a Hugging Face folder of it; None if it is one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str | None
    run: str
    name: str
    step: int | None
    digest: str
    conversion: Conversion | None = None

    @property
    def served_id(self) -> str:
        """What tells the weights that are served from others: the digest, and how they were converted."""
        return f"{self.digest}-{self.conversion.digest}" if self.conversion else self.digest

    def folder(self, results: str | Path) -> Path:
        """``<results>/<run>/<name>``, absolute; a benchmark's folder is the one below it of that name.

        Raises:
            CheckpointError: ``results`` is below the home of a user who does not exist.
        """
        return _absolute(Path(results)) / self.run / self.name


def is_remote(checkpoint: str | None) -> bool:
    """Whether a checkpoint is an address, as ``hf://org/repo@step1000``, and no path."""
    return bool(checkpoint and _URL.match(checkpoint))


def checkpoint_of(config: EvalConfig) -> Checkpoint:
    """What a config evaluates.

    Raises:
        CheckpointError: the folder is missing or incomplete, or of a format that needs a converter.
        ConfigError: the converter is unknown, or cannot be used.
    """
    if config.checkpoint and is_remote(config.checkpoint):
        # As a path it would be one below the working folder, which nobody has asked for.
        raise CheckpointError(
            f"checkpoint {config.checkpoint}: no folder; `evalcore fetch {config.checkpoint}` makes one of it"
        )
    if config.checkpoint:
        return load_checkpoint(
            Path(config.checkpoint),
            run=config.training_run,
            name=config.name,
            step=config.step,
            converter=config.converter,
        )
    model = str(config.server.model)
    return Checkpoint(
        path=None,
        run=path_component(config.training_run or "models", "training run"),
        name=path_component(config.name or model, "model"),
        step=config.step,
        # The weights behind an address are unknown; its name and place are all there is to tell them apart.
        digest=hashlib.sha256(f"{config.server.address} {model}".encode()).hexdigest(),
    )


def load_checkpoint(
    path: Path,
    *,
    run: str | None = None,
    name: str | None = None,
    step: int | None = None,
    converter: str | None = None,
) -> Checkpoint:
    """Check that ``path`` is a complete checkpoint and describe it.

    The run's name is the parent folder's unless given, or the one above a folder that is just called
    ``checkpoints``; its own name is its folder's; the step is the number that ends the folder's name
    (``step-1500``, ``iter_0001500``, ``checkpoint-1500``). Each unless given. A Hugging Face folder needs no
    converter, and what is named as one makes no difference to it.

    Raises:
        CheckpointError, ConfigError: as ``checkpoint_of``.
    """
    path = _absolute(path)
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        # No JSON, log or shell line could carry it on.
        raise CheckpointError(f"checkpoint {path}: the path is not UTF-8; rename the folder") from error
    conversion = None
    if completeness.is_hugging_face(path):
        model_folder.check_complete(path)
    else:
        kind = completeness.check_complete(path)
        if not converter:
            raise CheckpointError(
                f"checkpoint {path}: a {kind} checkpoint, no Hugging Face folder; converter=NAME has one made of it, "
                f"as converters/NAME.yaml says; valid: {', '.join(converters.names())}"
            )
        conversion = converters.conversion(converter)
    if step is None and (match := _STEP.search(path.name)):
        step = int(match.group(1))
    parent = path.parent.parent if path.parent.name in JUST_CHECKPOINTS else path.parent
    return Checkpoint(
        path=str(path),
        run=path_component(run or parent.name, "training run"),
        name=path_component(name or path.name, "checkpoint"),
        step=step,
        digest=digest(path, conversion),
        conversion=conversion,
    )


def digest(folder: Path, conversion: Conversion | None) -> str:
    """64 hex digits that change with a checkpoint's files; those of ``model_folder`` for what is not converted.

    Else SHA-256 over all of them, by path below the folder, in which those above 1 MiB, but for ``.metadata``, enter
    with their size and 4 blocks of 64 KiB. Another step changes tens of thousands of numbers in each such block, of
    optimizer states all of them, and every one of hundreds of files is looked at; more would take minutes where each
    rank has written gigabytes.
    """
    if conversion is None:
        return model_folder.digest(folder)
    total = hashlib.sha256()
    files = sorted(_files_below(folder), key=os.fsencode)
    with ThreadPoolExecutor(_READERS) as readers:
        for file, (size, content) in zip(files, readers.map(_sampled, files), strict=True):
            total.update(os.fsencode(os.path.relpath(file, folder)) + f"\0{size}\0".encode() + content)
    return total.hexdigest()


def _files_below(folder: Path) -> Iterator[str]:
    seen = set()
    # What links lead to is converted, too; the second way to a folder may be one in a circle.
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        seen.add(os.path.realpath(here))
        # Sorted: which of two ways is the first must not depend on a file system's mood.
        folders[:] = sorted(
            name for name in folders if os.path.realpath(os.path.join(here, name)) not in seen
        )
        # No pipes, which nobody may ever write into, and no links that lead nowhere.
        yield from (file for name in files if Path(file := os.path.join(here, name)).is_file())


def _raise(error: OSError) -> None:
    raise error


def _sampled(file: str) -> tuple[int, bytes]:
    whole = sys.maxsize if os.path.basename(file) == completeness.METADATA else _READ_WHOLE
    return model_folder.sampled(file, whole, _BLOCK, _BLOCKS)


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise CheckpointError(f"{path}: there is no such user's home; write the whole path") from error


def path_component(name: str, what: str) -> str:
    """Return ``name`` made safe as one path component; raise CheckpointError if nothing is left."""
    safe = re.sub(r"[^A-Za-z0-9._+=-]+", "-", name).strip("-")
    if not safe.strip("."):
        raise CheckpointError(f"{what}: {name!r} cannot be used as a folder name; give another one")
    if len(safe) > _LONGEST_NAME:
        raise CheckpointError(
            f"{what}: {name[:40]!r}… has {len(name):,} characters, too long for a folder name; "
            f"at most {_LONGEST_NAME}"
        )
    return safe
