"""A checkpoint on disk: what it is called, and what tells it from others.

>>> checkpoint = load_checkpoint(Path("include/tiny/checkpoints/step-001800"))
>>> checkpoint.run, checkpoint.name, checkpoint.step
('tiny', 'step-001800', 1800)

Only Hugging Face folders with safetensors weights are read; see ``model_folder``.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evalcore.config import EvalConfig
from evalcore.errors import CheckpointError
from evalcore.model_folder import check_complete, digest

# More digits than a database's integers have are a time or a hash, and no step.
_STEP = re.compile(r"(?:^|[^0-9])(\d{1,18})$")
JUST_CHECKPOINTS = frozenset({"checkpoints", "ckpts", "checkpoint", "ckpt"})
"""Names of folders that say nothing of the training run."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# File systems take 255 bytes, and temporary files need some of them.
_LONGEST_NAME = 200


class Checkpoint(BaseModel):
    """What is evaluated: a complete checkpoint folder, or (path None) a model that somebody else serves.

    run: the training run it belongs to; name: its own name within the run; both are single path
    components. step: training steps, if known. digest: 64 hex digits that change with the weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str | None
    run: str
    name: str
    step: int | None
    digest: str

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
        CheckpointError: the folder is missing or incomplete.
    """
    if config.checkpoint and is_remote(config.checkpoint):
        # As a path it would be one below the working folder, which nobody has asked for.
        raise CheckpointError(
            f"checkpoint {config.checkpoint}: no folder; `evalcore fetch {config.checkpoint}` makes one of it"
        )
    if config.checkpoint:
        return load_checkpoint(
            Path(config.checkpoint), run=config.training_run, name=config.name, step=config.step
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
    path: Path, *, run: str | None = None, name: str | None = None, step: int | None = None
) -> Checkpoint:
    """Check that ``path`` is a complete checkpoint and describe it.

    The run's name is the parent folder's unless given, or the one above a folder that is just called
    ``checkpoints``; its own name is its folder's; the step is the number that ends the folder's name
    (``step-1500``, ``iter_0001500``, ``checkpoint-1500``). Each unless given.

    Raises:
        CheckpointError: the folder is missing or incomplete.
    """
    path = _absolute(path)
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        # No JSON, log or shell line could carry it on.
        raise CheckpointError(f"checkpoint {path}: the path is not UTF-8; rename the folder") from error
    check_complete(path)
    if step is None and (match := _STEP.search(path.name)):
        step = int(match.group(1))
    parent = path.parent.parent if path.parent.name in JUST_CHECKPOINTS else path.parent
    return Checkpoint(
        path=str(path),
        run=path_component(run or parent.name, "training run"),
        name=path_component(name or path.name, "checkpoint"),
        step=step,
        digest=digest(path),
    )


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
