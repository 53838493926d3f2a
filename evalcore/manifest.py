"""``manifest.json``: everything that made the numbers of one benchmark folder, and the ids that follow.

Layout of a folder (see ``records`` for its parts)::

    <results>/<run>/<checkpoint>/<benchmark>/
        manifest.json
        generations/<generation_id>-<n>.jsonl
        grades/<grading_id>-<n>.jsonl
        judgements/<judging_id>-<n>.jsonl
        scorecard.json
        counts.json

A stage's id is the hash of what decides its rows, including the stage before it. Other settings give
other ids and so other parts: rows of two settings are never mixed or resumed into one another, and
going back to the first settings finds its rows still there.

A folder has one manifest, that of the last evaluation that began to generate. So that another one, planned
with other settings, does not take those rows for its own, it knows its ``settings_id``: what of the ids
can be told before anything is fetched or asked. ``plan`` hands it to every later stage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from evalcore import __version__
from evalcore.benchmarks import Benchmark
from evalcore.checkpoints import Checkpoint
from evalcore.config import EvalConfig, Sampling
from evalcore.errors import ResultsError
from evalcore.prompts import load_prompt
from evalcore.records import write_file
from evalcore.serving.args import answering_args

GENERATIONS = "generations"
GRADES = "grades"
JUDGEMENTS = "judgements"
SCORECARD = "scorecard.json"
COUNTS = "counts.json"
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
    """The contents of ``manifest.json``.

    settings: ``settings_id`` of the evaluation that wrote it; no part of the other ids.
    chat_template: digest, or None where the server applies its own.
    server_args: those that decide answers; see ``serving.args``.
    """

    model_config = ConfigDict(extra="forbid")

    settings: str
    checkpoint: Checkpoint
    converted_to: str = "hf"
    benchmark: BenchmarkInfo
    prompt: PromptInfo
    chat_template: str | None
    server_args: tuple[tuple[str, ...], ...] = ()
    sampling: Sampling
    samples: int
    greedy: bool
    server: ServerInfo
    grading: Grading
    judging: Judging | None = None
    evalcore: str = __version__

    @property
    def generation_id(self) -> str:
        return _hash(self.checkpoint.served_id, self.converted_to, *self._what_is_asked())

    @property
    def grading_id(self) -> str:
        return _hash(self.generation_id, self.grading)

    @property
    def judging_id(self) -> str | None:
        """None while nothing was judged."""
        return _hash(self.grading_id, self.judging) if self.judging else None

    @property
    def fingerprint(self) -> str:
        """What makes two checkpoints' numbers comparable: everything but the checkpoint. 12 hex digits.

        What converted it is software, as the server is, and no part either: that it made the difference is seen where
        both are evaluated again.
        """
        return _hash(*self.fingerprint_parts.values())

    @property
    def fingerprint_parts(self) -> dict[str, Any]:
        """What the fingerprint is the hash of, as plain data, by names that say in what two of them differ."""
        names = ("problems", "prompt", "chat_template", "server_args", "sampling")
        return {
            "converted_to": self.converted_to,
            **dict(zip(names, map(_plain, self._what_is_asked()), strict=True)),
            "grading": _plain(self.grading),
            "judging": _plain(self.judging),
        }

    def _what_is_asked(self) -> list[Any]:
        prompt = [self.prompt.digest, self.chat_template]
        return [self.benchmark.digest, *prompt, self.server_args, self.sampling]

    def save(self, folder: Path) -> None:
        content = {**self.model_dump(), "fingerprint": self.fingerprint}
        write_file(folder / MANIFEST, orjson.dumps(content, option=orjson.OPT_INDENT_2))

    @classmethod
    def load(cls, folder: Path, settings: str | None = None) -> Manifest:
        """Read a folder's manifest.

        Raises:
            ResultsError: it is missing, unreadable, or not of ``settings``, where these are given.
        """
        file = folder / MANIFEST
        try:
            content = orjson.loads(file.read_bytes())
            if not isinstance(content, dict):
                raise ValueError("not a JSON object")
            manifest = cls.model_validate({k: v for k, v in content.items() if k != "fingerprint"})
        except FileNotFoundError:
            if not folder.is_dir():
                raise ResultsError(f"{folder}: no such folder") from None
            raise ResultsError(f"{folder}: no {MANIFEST}; run `evalcore generate` first") from None
        except ValidationError as error:
            first = error.errors()[0]
            wrong = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            version = content.get("evalcore", "of unknown version")
            raise _unreadable(file, f"{wrong}; written by evalcore {version}") from error
        except (OSError, ValueError) as error:
            raise _unreadable(file, str(error)) from error
        if settings not in (None, manifest.settings):
            raise ResultsError(
                f"{folder}: holds another evaluation now (temperature {manifest.sampling.temperature:g}, prompt "
                f"{manifest.prompt.name}, {manifest.benchmark.num_problems:,} problems, settings "
                f"{manifest.settings}; wanted: {settings}): one with other settings has generated since, or "
                "checkpoint, prompt or benchmark changed; when it is done, run this one again from generate on"
            )
        return manifest


def differences(new: dict[str, Any], base: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """In what two fingerprints' parts differ, as ``{"sampling.temperature": (0.6, 0.7)}``."""
    mine, theirs = dict(_flat(new)), dict(_flat(base))
    names = dict.fromkeys([*mine, *theirs])
    return {name: (mine.get(name), theirs.get(name)) for name in names if mine.get(name) != theirs.get(name)}


def _flat(parts: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in parts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def settings_id(config: EvalConfig, checkpoint: Checkpoint, benchmark: Benchmark) -> str:
    """What an evaluation asks of one benchmark, as far as its plan can tell: 12 hex digits.

    Of all that goes into the ids, but for what only ``generate`` finds out, such as the problems' digest, and
    the graders' version, which ``grade`` renews. The same for any number of samples, with or without greedy
    answers: all of them are rows of one id.

    Raises:
        ConfigError: an unknown prompt.
    """
    shaping = benchmark.model_dump(
        exclude={"description", "split", "prompt", "samples", "generation", "metrics", "judge"}
    )
    for source in shaping["source"]:
        # The same file in another place, on a cluster's node for instance, is the same.
        source["path"] = source["path"] and _content(Path(source["path"]))
    judge, judging = config.judge, None
    if judge.model:
        prompt = load_prompt(judge.prompt).digest
        judging = [judge.model, prompt, judge.temperature, judge.tokens_to_generate]
    return _hash(
        checkpoint.served_id,
        config.convert_to,
        shaping,
        config.split or benchmark.split,
        config.max_problems,
        load_prompt(config.prompt or benchmark.prompt).digest,
        Sampling.resolve(config.inference, benchmark.generation),
        answering_args(config.server.args),
        judging,
    )


def _content(file: Path) -> str:
    """The SHA-256 of a file; its name, where it is only known from an earlier ``prepare --source``."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return file.name


def benchmark_folders(folder: Path) -> list[Path]:
    """The benchmark folders at or below ``folder`` (a checkpoint's, a run's), sorted; itself if there are none.

    Without what else lies in a checkpoint's folder: ``wandb/``, converted weights.
    """
    for depth in ("", "*/", "*/*/", "*/*/*/"):
        if found := sorted(file.parent for file in folder.glob(f"{depth}{MANIFEST}")):
            return found
    return [folder]


def _unreadable(file: Path, why: str) -> ResultsError:
    return ResultsError(
        f"{file}: unreadable ({why}); `evalcore generate` writes a new one, and the rows are kept"
    )


def _plain(part: Any) -> Any:
    return part.model_dump() if isinstance(part, BaseModel) else part


def _hash(*parts: Any) -> str:
    plain = list(map(_plain, parts))
    return hashlib.sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]
