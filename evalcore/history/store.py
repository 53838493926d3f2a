"""What can be asked of the history."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import orjson
from sqlalchemy import ColumnElement, Connection, Engine, Text, and_, case, cast, func, literal, select

from evalcore.checkpoints import Checkpoint
from evalcore.counts import Column, Pair, paired
from evalcore.errors import ResultsError
from evalcore.history import database, recording
from evalcore.history.recording import Evaluated, Outcome
from evalcore.history.schema import (
    COUNTS,
    METRICS,
    checkpoints,
    evaluations,
    fingerprints,
    modes,
    problems,
    subsets,
    verdicts,
)
from evalcore.manifest import differences
from evalcore.metrics import Estimate
from evalcore.summarize import Counts, Mode, Subset


class Recorded(NamedTuple):
    id: int
    outcome: Outcome

    def __str__(self) -> str:
        return self.outcome.value


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One summary of a benchmark folder, without its whole tables.

    id: stays the same when the folder is summarized again. counts, mode: of the whole benchmark; mode is the line
    of the table that was asked for, None where there is no such line.
    """

    id: int
    folder: Path
    checkpoint: Checkpoint
    benchmark: str
    settings: str
    fingerprint: str
    samples: int
    greedy: bool
    judged: bool
    needs_judge: bool
    complete: bool
    evaluated_at: datetime
    counts: Counts
    mode: Mode | None


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What is known of a training run. last_step: None where no checkpoint has one."""

    name: str
    checkpoints: int
    evaluations: int
    last_step: int | None
    evaluated_at: datetime


class History:
    """The database of all evaluations. Made by ``open_history``; a context manager.

    Every method raises ResultsError where the database cannot be reached any more.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()

    def record(self, folder: Path) -> Recorded:
        """Record a benchmark folder: insert it, replace its earlier summary, or find it there and change nothing.

        Folders are told apart by their place. The same place evaluated with other weights or settings is another
        evaluation, and the earlier one stays.

        Raises:
            ResultsError: the folder has no manifest, scorecard or counts of one summary.
        """
        return self.add([recording.read(folder)])[0]

    def add(self, evaluated: Iterable[Evaluated]) -> list[Recorded]:
        """Record what has been read, all of it or nothing."""
        with self.writing() as connection:
            return [Recorded(*recording.write(connection, it)) for it in evaluated]

    def training_runs(self) -> list[TrainingRun]:
        """All of them, the last evaluated first."""
        latest = func.max(evaluations.c.evaluated_at)
        query = (
            select(
                checkpoints.c.run,
                func.count(checkpoints.c.id.distinct()),
                func.count(),
                func.max(checkpoints.c.step),
                latest,
            )
            .join_from(evaluations, checkpoints)
            .group_by(checkpoints.c.run)
            .order_by(latest.desc(), checkpoints.c.run)
        )
        with self.reading() as connection:
            return [
                TrainingRun(name, number, evaluated, step, utc(time))
                for name, number, evaluated, step, time in connection.execute(query)
            ]

    def evaluations(
        self,
        *,
        run: str | None = None,
        benchmark: str | None = None,
        fingerprint: str | None = None,
        mode: str | None = None,
        last: int | None = None,
    ) -> list[Evaluation]:
        """The evaluations of a training run, a benchmark, a fingerprint; of all, where these are None.

        mode: which line of the table each comes with; by default pass@1 over all its samples, or that of the
        greedy answers where it has no others. last: only of each run's so many newest checkpoints that have such
        evaluations, by step; those without one count as older.

        By run, newest checkpoint first, then benchmark, then newest evaluation first.
        """
        wanted = [
            column == value
            for column, value in (
                (checkpoints.c.run, run),
                (evaluations.c.benchmark, benchmark),
                (evaluations.c.fingerprint, fingerprint),
            )
            if value is not None
        ]
        if last is not None:
            evaluated = select(evaluations.c.checkpoint_id).join_from(evaluations, checkpoints).where(*wanted)
            age = func.row_number().over(partition_by=checkpoints.c.run, order_by=_NEWEST)
            ages = (
                select(checkpoints.c.id, age.label("age")).where(checkpoints.c.id.in_(evaluated)).subquery()
            )
            wanted.append(checkpoints.c.id.in_(select(ages.c.id).where(ages.c.age <= last)))
        with self.reading() as connection:
            return _evaluations(connection, wanted, mode)

    def evaluation(self, id_: int) -> Evaluation:
        """ResultsError if there is none of that id."""
        with self.reading() as connection:
            found = _evaluations(connection, [evaluations.c.id == id_])
        if not found:
            raise ResultsError(f"the history has no evaluation {id_}")
        return found[0]

    def stack(self, id_: int) -> dict[str, str | None]:
        """What answered and graded: ``{"evalcore": "0.4.0", "server": "vllm 0.33.0"}``.

        No part of the fingerprint, since a faster server shall not make old answers stale.

        Raises:
            ResultsError: there is no evaluation of that id.
        """
        query = select(evaluations.c.evalcore, evaluations.c.server).where(evaluations.c.id == id_)
        with self.reading() as connection:
            found = connection.execute(query).one_or_none()
        if found is None:
            raise ResultsError(f"the history has no evaluation {id_}")
        server = found.server
        return {
            "evalcore": found.evalcore,
            "server": " ".join(filter(None, (server["type"], server["version"]))),
        }

    def tables(self, ids: Sequence[int]) -> dict[int, tuple[Subset, ...]]:
        """Every line of every table of some evaluations, as in their scorecards."""
        with self.reading() as connection:
            return _tables(connection, ids)

    def pairs(self, evaluation: int, baseline: int, *, greedy: bool = False) -> dict[str, list[Pair]]:
        """The problems that two evaluations of one benchmark have in common, with the counts of each, by id.

        By column, of all that ``counts`` names and both have; what earlier versions recorded has fewer.
        greedy: of the greedy answers, not of the samples.

        Whether the two may be compared at all is for ``differences`` to say.

        Raises:
            ResultsError: there is no such evaluation, or the benchmarks differ.
        """
        with self.reading() as connection:
            new, base = (_verdicts(connection, id_, greedy) for id_ in (evaluation, baseline))
        if new.benchmark != base.benchmark:
            raise ResultsError(f"evaluations of two benchmarks cannot be paired: {new.title}, {base.title}")
        return {
            name: paired(new.column(name), base.column(name)) for name in new.columns if name in base.columns
        }

    def fingerprint_parts(self, fingerprint: str) -> dict[str, Any]:
        """What a fingerprint is made of (``Manifest.fingerprint_parts``). ResultsError if it is unknown."""
        query = select(fingerprints.c.parts).where(fingerprints.c.fingerprint == fingerprint)
        with self.reading() as connection:
            parts: dict[str, Any] | None = connection.scalar(query)
        if parts is None:
            raise ResultsError(f"the history has no fingerprint {fingerprint}")
        return parts

    def differences(self, fingerprint: str, baseline: str) -> dict[str, tuple[Any, Any]]:
        """In what two fingerprints differ, as ``{"sampling.temperature": (0.6, 0.7)}``; empty: comparable.

        Raises:
            ResultsError: one of them is unknown.
        """
        return differences(self.fingerprint_parts(fingerprint), self.fingerprint_parts(baseline))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees the database as it was at its first query."""
        with database.said(self._engine), database.reading(self._engine).connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction: all that is written with it, or nothing."""
        with database.said(self._engine), database.writing(self._engine).begin() as connection:
            yield connection


_NEWEST = (checkpoints.c.step.is_(None), checkpoints.c.step.desc(), checkpoints.c.id.desc())
_LINE = [column for column in modes.c if column.name not in ("evaluation_id", "subset", "position")]
_AT_ONCE = 500  # ids in one query
_PLAIN = (
    "id",
    "benchmark",
    "settings",
    "fingerprint",
    "samples",
    "greedy",
    "judged",
    "needs_judge",
    "complete",
)


def _evaluations(
    connection: Connection, wanted: Sequence[ColumnElement[bool]], mode: str | None = None
) -> list[Evaluation]:
    samples = evaluations.c.samples
    pass_at_1 = literal("pass@1[") + cast(samples, Text) + literal("]")
    line = case((samples > 0, pass_at_1), else_="greedy") if mode is None else literal(mode)
    query = (
        select(
            *(evaluations.c[name] for name in (*_PLAIN, "folder", "evaluated_at")),
            *(checkpoints.c[name] for name in ("run", "name", "step", "path", "digest")),
            *(subsets.c[name] for name in COUNTS),
            *_LINE,
        )
        .join_from(evaluations, checkpoints)
        .join(subsets, and_(subsets.c.evaluation_id == evaluations.c.id, subsets.c.position == 0))
        .outerjoin(
            modes,
            and_(
                modes.c.evaluation_id == evaluations.c.id,
                modes.c.subset == 0,
                modes.c.evaluation_mode == line,
            ),
        )
        .where(*wanted)
        .order_by(checkpoints.c.run, *_NEWEST)
        .order_by(evaluations.c.benchmark, evaluations.c.evaluated_at.desc(), evaluations.c.id.desc())
    )
    found = []
    # What was validated when it was written is not validated again: it would take most of the time.
    for row in connection.execute(query):
        plain, rest = row[: len(_PLAIN)], row[len(_PLAIN) :]
        folder, evaluated_at, run, name, step, path, digest, *numbers = rest
        found.append(
            Evaluation(
                **dict(zip(_PLAIN, plain, strict=True)),
                folder=Path(folder),
                evaluated_at=utc(evaluated_at),
                checkpoint=Checkpoint.model_construct(
                    path=path, run=run, name=name, step=step, digest=digest
                ),
                counts=_counts(numbers[: len(COUNTS)]),
                mode=None if numbers[len(COUNTS)] is None else _mode(numbers[len(COUNTS) :]),
            )
        )
    return found


def _tables(connection: Connection, ids: Sequence[int]) -> dict[int, tuple[Subset, ...]]:
    found: dict[int, list[Subset]] = {id_: [] for id_ in ids}
    for start in range(0, len(ids), _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        lines: defaultdict[tuple[int, int], list[Mode]] = defaultdict(list)
        query = select(modes.c.evaluation_id, modes.c.subset, *_LINE).where(modes.c.evaluation_id.in_(part))
        for id_, subset, *line in connection.execute(query.order_by(*modes.primary_key)):
            lines[id_, subset].append(_mode(line))
        query = select(subsets).where(subsets.c.evaluation_id.in_(part))
        for id_, position, name, *counts, spread in connection.execute(query.order_by(*subsets.primary_key)):
            found[id_].append(
                Subset.model_construct(
                    name=name,
                    counts=_counts(counts),
                    modes=tuple(lines[id_, position]),
                    sample_spread=spread,
                )
            )
    return {id_: tuple(tables) for id_, tables in found.items()}


def _counts(numbers: Sequence[Any]) -> Counts:
    return Counts.model_construct(**dict(zip(COUNTS, numbers, strict=True)))


def _mode(line: Sequence[Any]) -> Mode:
    name, k, num_entries, *numbers = line
    estimates: dict[str, Any] = {
        metric: None if numbers[at] is None else Estimate(*numbers[at : at + 3])
        for metric, at in zip(METRICS, range(0, len(numbers), 3), strict=True)
    }
    return Mode.model_construct(evaluation_mode=name, k=k, num_entries=num_entries, **estimates)


class _Verdicts(NamedTuple):
    """columns: the n and c of each, of the problems in their order."""

    title: str
    benchmark: str
    columns: dict[str, dict[str, list[int]]]
    problems: list[str]
    clusters: list[str | None]

    def column(self, name: str) -> Column:
        return Column(self.problems, self.clusters, **self.columns[name])


def _verdicts(connection: Connection, id_: int, greedy: bool) -> _Verdicts:
    row = connection.execute(
        select(
            evaluations.c.benchmark,
            verdicts.c.content.label("counts"),
            problems.c.content.label("problems"),
            checkpoints.c.run,
            checkpoints.c.name,
        )
        .join_from(evaluations, checkpoints)
        .join(verdicts, verdicts.c.evaluation_id == evaluations.c.id)
        .join(problems, problems.c.digest == verdicts.c.problems)
        .where(evaluations.c.id == id_)
    ).one_or_none()
    if row is None:
        raise ResultsError(f"the history has no evaluation {id_}")
    columns = orjson.loads(zlib.decompress(row.counts))["greedy" if greedy else "sampled"]
    names, clusters, _ = orjson.loads(zlib.decompress(row.problems))
    return _Verdicts(f"{row.benchmark} of {row.run}/{row.name}", row.benchmark, columns, names, clusters)


def utc(time: datetime) -> datetime:
    """A time as the database gives it, in UTC."""
    # SQLite keeps no zone, and what is written is UTC; PostgreSQL gives it in the session's.
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
