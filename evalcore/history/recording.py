"""From a benchmark folder to rows of the database, in one transaction and only where something is new."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Table, delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from evalcore.counts import ProblemCounts
from evalcore.errors import ResultsError
from evalcore.history import schema
from evalcore.manifest import SCORECARD, Manifest
from evalcore.metrics import Estimate
from evalcore.summarize import Mode, Scorecard


class Outcome(StrEnum):
    """What recording a folder did: ``replaced`` is a newer summary of the same evaluation in the same place."""

    RECORDED = "recorded"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Evaluated:
    """What there is to record of a benchmark folder."""

    folder: Path
    manifest: Manifest
    card: Scorecard
    counts: ProblemCounts
    evaluated_at: datetime


def read(folder: Path) -> Evaluated:
    """What one summary of a benchmark folder says.

    Raises:
        ResultsError: a file is missing, unreadable or not of the same summary; says which stage to run.
    """
    manifest = Manifest.load(folder)
    counts = ProblemCounts.load(folder)
    card = Scorecard.load(folder)
    weights = card.checkpoint.digest if card.checkpoint else None
    are_same = (weights, card.fingerprint) == (manifest.checkpoint.digest, manifest.fingerprint)
    if not are_same or ProblemCounts.load(folder).scorecard != counts.scorecard:
        raise ResultsError(f"{folder}: is being evaluated; record it when that is done")
    evaluated_at = datetime.fromtimestamp((folder / SCORECARD).stat().st_mtime, UTC)
    return Evaluated(folder.resolve(), manifest, card, counts, evaluated_at)


def write(connection: Connection, evaluated: Evaluated) -> tuple[int, Outcome]:
    """Insert an evaluation, or replace the one of the same folder, weights and fingerprint; returns its id."""
    card, manifest, counts = evaluated.card, evaluated.manifest, evaluated.counts
    weights = manifest.checkpoint
    named = {"run": weights.run, "name": weights.name, "digest": weights.digest}
    place = {"fingerprint": manifest.fingerprint, "folder": str(evaluated.folder)}
    there = connection.execute(
        select(schema.evaluations.c.id, schema.evaluations.c.scorecard)
        .join(schema.checkpoints)
        .where(*(schema.checkpoints.c[name] == value for name, value in named.items()))
        .where(*(schema.evaluations.c[name] == value for name, value in place.items()))
    ).one_or_none()
    if there and there.scorecard == counts.scorecard:
        return there.id, Outcome.UNCHANGED
    # Another process may write the same meanwhile: whoever comes second writes it again.
    checkpoint = _upsert(connection, schema.checkpoints, named, {"step": weights.step, "path": weights.path})
    insert_new(
        connection,
        schema.fingerprints,
        {"fingerprint": manifest.fingerprint, "parts": manifest.fingerprint_parts},
    )
    evaluation = _upsert(
        connection,
        schema.evaluations,
        {"checkpoint_id": checkpoint, **place},
        {
            "benchmark": card.benchmark,
            "settings": card.settings,
            "evalcore": manifest.evalcore,
            "server": manifest.server.model_dump(),
            "samples": card.samples,
            "greedy": card.greedy,
            "judged": card.judged,
            "needs_judge": card.needs_judge,
            "complete": card.complete,
            "evaluated_at": evaluated.evaluated_at,
            "scorecard": counts.scorecard,
        },
    )
    for table in (schema.verdicts, schema.subsets):  # and, of these, their modes
        connection.execute(delete(table).filter_by(evaluation_id=evaluation))
    _insert_verdicts(connection, evaluation, counts)
    _insert_subsets(connection, evaluation, card)
    return evaluation, Outcome.REPLACED if there else Outcome.RECORDED


def _insert_verdicts(connection: Connection, evaluation: int, counts: ProblemCounts) -> None:
    asked = orjson.dumps([counts.problems, counts.clusters, counts.subsets])
    digest = hashlib.sha256(asked).hexdigest()
    insert_new(connection, schema.problems, {"digest": digest, "content": zlib.compress(asked)})
    found = orjson.dumps(counts.model_dump(include={"greedy", "sampled"}))
    row = {"evaluation_id": evaluation, "problems": digest, "content": zlib.compress(found)}
    connection.execute(insert(schema.verdicts), row)


def _insert_subsets(connection: Connection, evaluation: int, card: Scorecard) -> None:
    subsets: list[dict[str, Any]] = []
    modes: list[dict[str, Any]] = []
    for number, subset in enumerate(card.subsets):
        of = {"evaluation_id": evaluation, "position": number}
        spread = {"name": subset.name, "sample_spread": subset.sample_spread}
        subsets.append({**of, **spread, **subset.counts.model_dump()})
        for position, mode in enumerate(subset.modes):
            place = {"evaluation_id": evaluation, "subset": number, "position": position}
            modes.append({**place, **mode_columns(mode)})
    connection.execute(insert(schema.subsets), subsets)
    if modes:
        connection.execute(insert(schema.modes), modes)


def mode_columns(mode: Mode) -> dict[str, Any]:
    """A table's line, flat: NULL for what is unknown."""
    row: dict[str, Any] = {
        "evaluation_mode": mode.evaluation_mode,
        "k": mode.k,
        "num_entries": mode.num_entries,
    }
    for metric in schema.METRICS:
        estimate: Estimate | None = getattr(mode, metric)
        row[metric] = estimate and estimate.value
        row[f"{metric}_std_err"] = estimate and estimate.std_err
        row[f"{metric}_entries"] = estimate and estimate.entries
    return row


def _upsert(connection: Connection, table: Table, key: dict[str, Any], values: dict[str, Any]) -> int:
    """Insert a row, or update the one of that key; returns its id."""
    statement = _insert(connection, table).values(**key, **values)
    statement = statement.on_conflict_do_update(index_elements=list(key), set_=values)
    return int(connection.execute(statement.returning(table.c.id)).scalar_one())


def insert_new(connection: Connection, table: Table, row: dict[str, Any]) -> None:
    """Insert a row, unless there is one of its key."""
    connection.execute(_insert(connection, table).values(**row).on_conflict_do_nothing())


def _insert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    # Both know ON CONFLICT, and SQLAlchemy has it of each apart.
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
