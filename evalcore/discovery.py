"""Find the checkpoints of a training run that nobody has evaluated yet.

>>> tracked = load_tracked("llama-8b")
>>> find(tracked, Folder("/lustre/ckpt/llama-8b"), unknown=set, limit=100).found
[Found(name='step-1000', step=1000, place='/lustre/ckpt/llama-8b/step-1000', checkpoint='/lustre/ckpt/…')]
>>> request(tracked, _[0])["trigger_run_id"]
'ckpt__llama-8b__step-1000__5f0c1d…'

A checkpoint has one run of the DAG evaluate_checkpoint, whoever asks for it and how often: the run's id
follows from the training run, the checkpoint's name and place, and the suite.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson

from evalcore.checkpoints import path_component
from evalcore.completeness import Format, check_complete
from evalcore.errors import CheckpointError, EvalError
from evalcore.settings import Settings
from evalcore.slurm.cluster import Cluster
from evalcore.tracked import Tracked

# No longer than those of ``checkpoints``.
_STEP_WORD = re.compile(r"(?:step|iter|checkpoint|ckpt)[-_=]?(\d{1,18})(?!\d)")
_LAST_NUMBER = re.compile(r"(?:^|[^0-9])(\d{1,18})$")
# What trainers and copying tools write into before they rename it.
_UNFINISHED = re.compile(r"^\.|(^|[._-])(tmp|temp|partial|incomplete)([._-]|$)", re.IGNORECASE)
# As many are checked in one request: each may have hundreds of files, on a slow file system.
_BATCH = 20
_SECONDS = 300.0


class Found(Settings):
    """A checkpoint. place tells it from all others; checkpoint is what the DAG is asked to evaluate."""

    name: str
    step: int | None
    place: str
    checkpoint: str


class Listing(NamedTuple):
    """What there is at a place, complete or not. refused: what cannot be followed, and why."""

    found: list[Found]
    refused: list[str]


class Findings(NamedTuple):
    """found: complete and not known, the oldest first. waiting: why others are not among them."""

    found: list[Found]
    waiting: list[str]


class Place(Protocol):
    """Where checkpoints appear."""

    def list(self) -> Listing:
        """All there are. EvalError or OSError if the place cannot be read."""

    def missing(self, found: Sequence[Found]) -> Sequence[str]:
        """What each of them lacks to be complete; empty texts if nothing."""


def find(tracked: Tracked, place: Place, *, unknown: Callable[[list[str]], set[str]], limit: int) -> Findings:
    """The complete checkpoints of a training run that are not known, at most ``limit``, the oldest steps first.

    Args:
        unknown: says which of some run ids there are no runs of; those alone are checked.

    Raises:
        EvalError, OSError: the place cannot be read.
    """
    listing = place.list()
    since = tracked.source.from_step
    ids = {
        run_id(tracked, f): f for f in listing.found if not since or (f.step is not None and f.step >= since)
    }
    new = unknown(list(ids))
    rest = sorted(
        (f for i, f in ids.items() if i in new), key=lambda f: (f.step is None, f.step or 0, f.name)
    )
    findings = Findings([], list(listing.refused))
    for start in range(0, len(rest), _BATCH):
        batch = rest[start : start + _BATCH]
        for checkpoint, reason in zip(batch, place.missing(batch), strict=True):
            if reason:
                findings.waiting.append(reason)
            else:
                findings.found.append(checkpoint)
        if len(findings.found) >= limit:
            break
    return Findings(findings.found[:limit], findings.waiting)


def run_id(tracked: Tracked, found: Found) -> str:
    """The id of the checkpoint's one run: the same for the same checkpoint, another for any other."""
    parts = (tracked.training_run, found.name, found.place, tracked.suite)
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    # For people; the digest is what tells runs apart. Airflow takes 250 of these characters.
    readable = re.sub(r"[^A-Za-z0-9_.~:+-]", "-", f"{tracked.training_run[:80]}__{found.name[:80]}")
    return f"ckpt__{readable}__{digest}"


def request(tracked: Tracked, found: Found) -> dict[str, Any]:
    """The run that evaluates a checkpoint: ``{trigger_run_id, conf}``, as TriggerDagRunOperator takes it."""
    named = {"checkpoint": found.checkpoint, "training_run": tracked.training_run}
    step = {} if found.step is None else {"step": found.step}
    return {"trigger_run_id": run_id(tracked, found), "conf": named | step | tracked.asked()}


def newest(place: Place) -> Found | None:
    """The complete checkpoint of the highest step; None if there is none.

    Raises:
        EvalError, OSError: the place cannot be read.
    """
    stepped = [found for found in place.list().found if found.step is not None]
    for found in sorted(stepped, key=lambda it: (it.step or 0, it.name), reverse=True):
        if not place.missing([found])[0]:
            return found
    return None


def step_of(name: str) -> int | None:
    """The training step in a name: ``step-1500``, ``iter_0001500``, ``step1000-tokens4B``, ``1500``."""
    words = _STEP_WORD.findall(name.lower())
    if words:
        return int(words[-1])
    last = _LAST_NUMBER.search(name)
    return int(last[1]) if last else None


def listing_of(named: Iterator[tuple[str, str, str]]) -> Listing:
    """A listing of ``(name, place, checkpoint)``; names that are no folder's are refused."""
    listing = Listing([], [])
    for name, place, checkpoint in named:
        try:
            safe = path_component(name, "checkpoint")
        except CheckpointError:
            safe = ""
        if safe == name:
            listing.found.append(Found(name=name, step=step_of(name), place=place, checkpoint=checkpoint))
        else:
            # Made safe, two names could become one.
            listing.refused.append(f"{name!r} is left out: letters, digits and . _ + = - make a name")
    return listing


def is_finished(name: str) -> bool:
    """Whether a folder of that name is not one that something is still being written into."""
    return not _UNFINISHED.search(name)


def at_path(path: str) -> Found:
    """The checkpoint at a path of this machine, complete or not.

    Raises:
        CheckpointError: its name cannot be used.
    """
    folder = Path(os.path.abspath(path))
    listing = listing_of(iter([_named(folder)]))
    if listing.refused:
        raise CheckpointError(f"checkpoint {listing.refused[0]}")
    return listing.found[0]


def _named(folder: Path) -> tuple[str, str, str]:
    # One place has one name, whichever way leads to it; a link in it may be a checkpoint of its own.
    return folder.name, os.path.join(os.path.realpath(folder.parent), folder.name), str(folder)


def _parent(link: Path) -> str:
    return os.path.dirname(os.path.realpath(link))


class Folder:
    """A folder of this machine with a subfolder for each checkpoint. converted: see ``missing``."""

    def __init__(self, path: str, *, converted: bool = False) -> None:
        self.path = Path(path)
        self.converted = converted

    def list(self) -> Listing:
        if not self.path.is_dir():
            raise CheckpointError(f"{self.path}: no such folder")
        here = os.path.realpath(self.path)
        folders = (f for f in self.path.iterdir() if is_finished(f.name) and f.is_dir())
        # ``latest`` is a link to the one beside it, which has a name of its own.
        return listing_of(_named(f) for f in folders if not f.is_symlink() or _parent(f) != here)

    def missing(self, found: Sequence[Found]) -> Sequence[str]:
        return [missing(Path(f.checkpoint), converted=self.converted) for f in found]


class ClusterFolder:
    """The same on a cluster, looked at by this version of evalcore on its login node."""

    def __init__(self, path: str, cluster: Cluster, *, converted: bool = False) -> None:
        self.path = path
        self.cluster = cluster
        self.converted = converted

    def list(self) -> Listing:
        answer = self._ask({"list": self.path})
        return Listing([Found.model_validate(f) for f in answer["found"]], answer["refused"])

    def missing(self, found: Sequence[Found]) -> Sequence[str]:
        return list(self._ask({"missing": [f.checkpoint for f in found], "converted": self.converted}))

    def _ask(self, what: dict[str, Any]) -> Any:
        said = self.cluster.run("evalcore.discovery", stdin=orjson.dumps(what), timeout=_SECONDS)
        return orjson.loads(said.splitlines()[-1])


def missing(folder: Path, *, converted: bool = False) -> str:
    """What a checkpoint lacks to be evaluated, in a line; nothing if it is complete.

    converted: whether a converter makes a Hugging Face folder of what is none. Without, that waits to become one, as
    where a trainer writes the states it goes on from first, and the model beside them later.
    """
    try:
        kind = check_complete(folder)
        if kind is not Format.HF and not converted:
            return f"checkpoint {folder}: a {kind} checkpoint, and no converter=NAME that makes a Hugging Face folder"
    except (CheckpointError, OSError) as error:
        return str(error)
    except RecursionError:
        return f"checkpoint {folder}: a JSON file in it is nested too deeply"
    return ""


def main() -> int:
    """``python -m evalcore.discovery``: answers ClusterFolder, both as JSON."""
    asked = orjson.loads(sys.stdin.buffer.read())
    try:
        if "list" in asked:
            found, refused = Folder(asked["list"]).list()
            answer: Any = {"found": [f.model_dump() for f in found], "refused": refused}
        else:
            answer = [missing(Path(path), converted=asked["converted"]) for path in asked["missing"]]
    except (EvalError, OSError) as error:
        print(f"evalcore: error: {error}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(orjson.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
