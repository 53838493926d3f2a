"""``manifest.json``: everything that made the numbers of one benchmark folder, and the ids that follow.

Layout of a folder (see ``records`` for its parts)::

    <results>/<run>/<checkpoint>/<benchmark>/
        manifest.json
        generations/<generation_id>-<n>.jsonl
        grades/<grading_id>-<n>.jsonl
        judgements/<judging_id>-<n>.jsonl
        scorecard.json

A stage's id is the hash of what decides its rows, including the stage before it. Other settings give
other ids and so other parts: rows of two settings are never mixed or resumed into one another, and
going back to the first settings finds its rows still there.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from evalcore import __version__
from evalcore.checkpoints import Checkpoint
from evalcore.config import Sampling
from evalcore.errors import ResultsError
from evalcore.records import write_file

GENERATIONS = "generations"
GRADES = "grades"
JUDGEMENTS = "judgements"
SCORECARD = "scorecard.json"
MANIFEST = "manifest.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BenchmarkInfo(_Part):
    """digest: SHA-256 of the problems that are asked, in order; see ``benchmarks.ProblemSet``."""

    name: str
    split: str
    digest: str
    num_problems: int
    metrics: tuple[str, ...]
    needs_judge: bool


class PromptInfo(_Part):
    name: str
    digest: str


class ServerInfo(_Part):
    """For the reader; no part of any id, since a faster server shall not make old answers stale."""

    type: str
    model: str
    version: str | None


class Grading(_Part):
    """grader and options come from the benchmark; version is the grader's own (``grading.VERSION``)."""

    grader: str
    options: dict[str, Any]
    version: str


class Judging(_Part):
    model: str
    prompt: PromptInfo
    temperature: float
    tokens_to_generate: int


class Manifest(BaseModel):
    """The contents of ``manifest.json``. chat_template: digest, or None where the server applies its own."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: Checkpoint
    converted_to: str = "hf"
    benchmark: BenchmarkInfo
    prompt: PromptInfo
    chat_template: str | None
    sampling: Sampling
    samples: int
    greedy: bool
    server: ServerInfo
    grading: Grading
    judging: Judging | None = None
    evalcore: str = __version__

    @property
    def generation_id(self) -> str:
        return _hash(self.checkpoint.digest, self.converted_to, *self._what_is_asked())

    @property
    def grading_id(self) -> str:
        return _hash(self.generation_id, self.grading)

    @property
    def judging_id(self) -> str | None:
        """None while nothing was judged."""
        return _hash(self.grading_id, self.judging) if self.judging else None

    @property
    def fingerprint(self) -> str:
        """What makes two checkpoints' numbers comparable: everything but the checkpoint. 12 hex digits."""
        return _hash(self.converted_to, *self._what_is_asked(), self.grading, self.judging)

    def _what_is_asked(self) -> list[Any]:
        return [self.benchmark.digest, self.prompt.digest, self.chat_template, self.sampling]

    def save(self, folder: Path) -> None:
        content = {**self.model_dump(), "fingerprint": self.fingerprint}
        write_file(folder / MANIFEST, orjson.dumps(content, option=orjson.OPT_INDENT_2))

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read a folder's manifest; ResultsError if it is missing or unreadable."""
        file = folder / MANIFEST
        try:
            content = orjson.loads(file.read_bytes())
            content.pop("fingerprint", None)
            return cls.model_validate(content)
        except FileNotFoundError:
            raise ResultsError(f"{folder}: no {MANIFEST}; run `evalcore generate` first") from None
        except (OSError, orjson.JSONDecodeError, ValidationError, AttributeError, TypeError) as error:
            raise ResultsError(f"{file}: unreadable ({str(error).splitlines()[0]})") from error


def benchmark_folders(folder: Path) -> list[Path]:
    """The benchmark folders at or below ``folder`` (a checkpoint's, a run's), sorted; itself if there are none.

    Without what else lies in a checkpoint's folder: ``wandb/``, converted weights.
    """
    for depth in ("", "*/", "*/*/", "*/*/*/"):
        if found := sorted(file.parent for file in folder.glob(f"{depth}{MANIFEST}")):
            return found
    return [folder]


def _hash(*parts: Any) -> str:
    plain = [part.model_dump() if isinstance(part, BaseModel) else part for part in parts]
    return hashlib.sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]
