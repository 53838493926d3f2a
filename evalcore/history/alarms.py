"""Alarms: that a checkpoint may have got worse, what became of it, and who was told.

>>> alarms = Alarms(history)
>>> alarm, = alarms.raise_([Suspicion(Kind.REGRESSION, newest.id, baseline.id, margin=0.01, alpha=0.03)])
>>> alarms.settle(alarm.id, State.CONFIRMED, confirmation=51, base_confirmation=52).state
<State.CONFIRMED: 'confirmed'>

Nobody is told twice that a lineage got worse on a benchmark than some baseline: of alarms with the same run,
benchmark, kind and baseline one alone is ever confirmed, the others are repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, exc, insert, select, update

from evalcore.checkpoints import Checkpoint
from evalcore.errors import ResultsError
from evalcore.history import schema
from evalcore.history.recording import insert_new
from evalcore.history.store import History, utc


class Kind(StrEnum):
    """What an alarm is about: fewer right answers, a rate that rose, or a frozen model whose numbers moved."""

    REGRESSION = "regression"
    NO_ANSWER = "no_answer"
    TRUNCATION = "truncation"
    LENGTH = "length"
    REPETITION = "repetition"
    JUDGE_UNPARSABLE = "judge_unparsable"
    SERVER_ERRORS = "server_errors"
    CANARY = "canary"


class State(StrEnum):
    """What became of an alarm.

    suspected: raised, being confirmed. held: the stack itself has moved, so that nothing can be said of models.
    refuted: not seen again on fresh seeds. confirmed: somebody is to be told. repeated: would be, but has been
    told of the same baseline before. acknowledged: somebody knows.
    """

    SUSPECTED = "suspected"
    HELD = "held"
    REFUTED = "refuted"
    CONFIRMED = "confirmed"
    REPEATED = "repeated"
    ACKNOWLEDGED = "acknowledged"


UNDECIDED = (State.SUSPECTED, State.HELD)
"""The states in which nothing has become of an alarm yet."""


class Suspicion(NamedTuple):
    """What an alarm is raised about: two evaluations in the history, and the test that told them apart."""

    kind: Kind
    evaluation: int
    base_evaluation: int
    margin: float
    alpha: float


class Outcome(NamedTuple):
    """What became of an alarm, why, and the evaluations of both sides on fresh seeds that say so, if any do."""

    alarm: int
    state: State
    reason: str = ""
    confirmation: int | None = None
    base_confirmation: int | None = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """One suspicion and what became of it.

    evaluation, base_evaluation: ids in the history; confirmation, base_confirmation: of both checkpoints on fresh
    seeds, None where there are none. reason: why it is held or refuted, or was confirmed without fresh seeds.
    raised_by: the run of evaluate_checkpoint that found it, ``{evaluation, params}``, as confirm_regression takes it;
    empty where there was none. confirming: the id of the run of confirm_regression that is to look at it again; empty
    where nobody has asked for one.
    """

    id: int
    run: str
    benchmark: str
    kind: Kind
    state: State
    checkpoint: Checkpoint
    baseline: Checkpoint
    evaluation: int
    base_evaluation: int
    margin: float
    alpha: float
    confirmation: int | None
    base_confirmation: int | None
    reason: str
    raised_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    note: str
    raised_by: Mapping[str, Any]
    confirming: str


class Alarms:
    """The alarms of a history. Every method raises ResultsError where the database cannot be reached."""

    def __init__(self, history: History) -> None:
        self._history = history

    def raise_(
        self,
        suspicions: Iterable[Suspicion],
        *,
        held: str = "",
        raised_by: Mapping[str, Any] | None = None,
    ) -> list[Alarm]:
        """Alarms of some suspicions, of all or of none. Of what was raised before the alarm is as it was.

        held: why nothing can be made of them for the time being; new ones are held then. Without it those that
        were held are released. raised_by: as the alarms have it.

        Raises:
            ResultsError: an evaluation is not in the history.
        """
        with self._history.writing() as connection:
            ids = [_raise(connection, suspicion, held, raised_by) for suspicion in suspicions]
            if not held:
                _release(connection, ids)
            return _of(connection, ids)

    def release(self, ids: Sequence[int]) -> list[Alarm]:
        """Those of some ids, in their order; what was held is suspected now. ResultsError if one is unknown."""
        with self._history.writing() as connection:
            _release(connection, ids)
            return _of(connection, ids)

    def claim(self, ids: Sequence[int], run: str) -> list[Alarm]:
        """Those of some ids, in their order; a run of confirm_regression looks at those that none was to look at yet.

        Of several runs that want an alarm at the same time one has it. ResultsError if an id is unknown.
        """
        table = schema.alarms
        with self._history.writing() as connection:
            # PostgreSQL lets the second wait here, and then look again whether it is nobody's.
            is_nobodys = table.c.id.in_(ids) & table.c.confirming.is_(None)
            connection.execute(update(table).where(is_nobodys).values(confirming=run))
            return _of(connection, ids)

    def get(self, ids: Sequence[int]) -> list[Alarm]:
        """Those of some ids, in their order. ResultsError if one is unknown."""
        with self._history.reading() as connection:
            return _of(connection, ids)

    def find(
        self, *, run: str | None = None, kind: Kind | None = None, state: State | None = None
    ) -> list[Alarm]:
        """All of a training run, a kind, a state; of all where these are None. The last raised first."""
        given = (("run", run), ("kind", kind), ("state", state))
        wanted = [schema.alarms.c[name] == value for name, value in given if value is not None]
        with self._history.reading() as connection:
            return sorted(_select(connection, wanted), key=lambda alarm: alarm.id, reverse=True)

    def settle(
        self,
        id_: int,
        state: State,
        *,
        reason: str = "",
        confirmation: int | None = None,
        base_confirmation: int | None = None,
    ) -> Alarm:
        """Say what became of an alarm; one that is acknowledged stays so.

        A confirmed one is repeated instead, where another of the same baseline was confirmed before.
        """
        return self.settle_all([Outcome(id_, state, reason, confirmation, base_confirmation)])[0]

    def settle_all(self, outcomes: Sequence[Outcome]) -> list[Alarm]:
        """``settle``, of all or of none. ResultsError if one is unknown."""
        with self._history.writing() as connection:
            for outcome in outcomes:
                _settle(connection, outcome)
            return _of(connection, [outcome.alarm for outcome in outcomes])

    def acknowledge(self, ids: Sequence[int], *, by: str, note: str = "") -> list[Alarm]:
        """Somebody knows of these; who knew first stays. What a canary moved to is its baseline from then on."""
        table, now = schema.alarms, datetime.now(UTC)
        known = {"state": State.ACKNOWLEDGED, "acknowledged_at": now, "acknowledged_by": by, "note": note}
        with self._history.writing() as connection:
            for alarm in _of(connection, ids):
                # Of two at the same time PostgreSQL lets both read that nobody knows yet, and the second wait here.
                is_open = (table.c.id == alarm.id) & (table.c.state == State.CONFIRMED)
                is_first = connection.execute(update(table).where(is_open).values(known)).rowcount
                if is_first and alarm.kind is Kind.CANARY:
                    _promote(connection, alarm.evaluation, by, note)
            return _of(connection, ids)

    def undelivered(self, ids: Sequence[int], channel: str) -> list[int]:
        """Those of some alarms that a channel has not had."""
        table = schema.deliveries
        query = select(table.c.alarm_id).where(table.c.alarm_id.in_(ids), table.c.channel == channel)
        with self._history.reading() as connection:
            had = set(connection.scalars(query))
        return [id_ for id_ in ids if id_ not in had]

    def delivered(self, ids: Sequence[int], channel: str) -> None:
        """A channel has taken these."""
        now = datetime.now(UTC)
        with self._history.writing() as connection:
            for id_ in ids:
                insert_new(
                    connection,
                    schema.deliveries,
                    {"alarm_id": id_, "channel": channel, "delivered_at": now},
                )

    def promote(self, evaluations: Iterable[int], *, by: str, note: str = "") -> None:
        """Make evaluations the baselines of their training runs. ResultsError if one is not in the history."""
        with self._history.writing() as connection:
            for id_ in evaluations:
                _promote(connection, id_, by, note)

    def promoted(self, run: str, benchmark: str) -> int | None:
        """The evaluation that was last made the baseline of a training run, if any was."""
        table = schema.promotions
        query = (
            select(table.c.evaluation_id)
            .where(table.c.run == run, table.c.benchmark == benchmark)
            .order_by(table.c.id.desc())
            .limit(1)
        )
        with self._history.reading() as connection:
            found: int | None = connection.scalar(query)
        return found


def _raise(
    connection: Connection, suspicion: Suspicion, held: str, raised_by: Mapping[str, Any] | None
) -> int:
    new, base = (_evaluation(connection, id_) for id_ in (suspicion.evaluation, suspicion.base_evaluation))
    table = schema.alarms
    key = {
        "evaluation_id": suspicion.evaluation,
        "base_evaluation_id": suspicion.base_evaluation,
        "kind": suspicion.kind,
    }
    insert_new(
        connection,
        table,
        {
            **key,
            "run": new.run,
            "benchmark": new.benchmark,
            "baseline_id": base.checkpoint_id,
            "margin": suspicion.margin,
            "alpha": suspicion.alpha,
            "state": State.HELD if held else State.SUSPECTED,
            "reason": held,
            "raised_at": datetime.now(UTC),
            "note": "",
            "raised_by": raised_by,
        },
    )
    id_: int = connection.execute(select(table.c.id).filter_by(**key)).scalar_one()
    # Of what an older version raised nobody knew; it could never go on.
    is_undecided = table.c.state.in_(UNDECIDED)
    unknown = (table.c.id == id_, is_undecided, table.c.raised_by.is_(None))
    connection.execute(update(table).where(*unknown).values(raised_by=raised_by))
    return id_


def _release(connection: Connection, ids: Sequence[int]) -> None:
    table = schema.alarms
    were_held = (table.c.id.in_(ids), table.c.state == State.HELD)
    connection.execute(update(table).where(*were_held).values(state=State.SUSPECTED, reason=""))


def _settle(connection: Connection, outcome: Outcome) -> None:
    table = schema.alarms
    change = (
        update(table)
        .where(table.c.id == outcome.alarm, table.c.state != State.ACKNOWLEDGED)
        .values(
            reason=outcome.reason,
            confirmation_id=outcome.confirmation,
            base_confirmation_id=outcome.base_confirmation,
        )
    )
    try:
        with connection.begin_nested():
            connection.execute(change.values(state=outcome.state))
    except exc.IntegrityError:
        if outcome.state is not State.CONFIRMED:
            raise
        connection.execute(change.values(state=State.REPEATED))


def _promote(connection: Connection, evaluation: int, by: str, note: str) -> None:
    found = _evaluation(connection, evaluation)
    connection.execute(
        insert(schema.promotions).values(
            run=found.run,
            benchmark=found.benchmark,
            evaluation_id=evaluation,
            promoted_at=datetime.now(UTC),
            promoted_by=by,
            note=note,
        )
    )


def _evaluation(connection: Connection, id_: int) -> Any:
    table = schema.evaluations
    found = connection.execute(
        select(table.c.benchmark, table.c.checkpoint_id, schema.checkpoints.c.run)
        .join_from(table, schema.checkpoints)
        .where(table.c.id == id_)
    ).one_or_none()
    if found is None:
        raise ResultsError(f"the history has no evaluation {id_}")
    return found


def _of(connection: Connection, ids: Sequence[int]) -> list[Alarm]:
    found = {alarm.id: alarm for alarm in _select(connection, [schema.alarms.c.id.in_(ids)])}
    if missing := [id_ for id_ in ids if id_ not in found]:
        raise ResultsError(f"the history has no alarm {missing[0]}")
    return [found[id_] for id_ in ids]


def _select(connection: Connection, wanted: Sequence[ColumnElement[bool]]) -> list[Alarm]:
    table, new = schema.alarms, schema.checkpoints.alias("new")
    base = schema.checkpoints.alias("base")
    sides = (new, base)
    fields = ("path", "run", "name", "step", "digest")
    query = (
        select(table, *(side.c[name].label(f"{side.name}_{name}") for side in sides for name in fields))
        .join_from(table, schema.evaluations, schema.evaluations.c.id == table.c.evaluation_id)
        .join(new, new.c.id == schema.evaluations.c.checkpoint_id)
        .join(base, base.c.id == table.c.baseline_id)
        .where(*wanted)
    )
    found = []
    for row in connection.execute(query).mappings():
        checkpoint, baseline = (
            Checkpoint.model_construct(**{name: row[f"{side}_{name}"] for name in fields})
            for side in ("new", "base")
        )
        same = ("id", "run", "benchmark", "margin", "alpha", "reason", "acknowledged_by", "note")
        acknowledged_at = row["acknowledged_at"]
        found.append(
            Alarm(
                **{name: row[name] for name in same},
                kind=Kind(row["kind"]),
                state=State(row["state"]),
                checkpoint=checkpoint,
                baseline=baseline,
                evaluation=row["evaluation_id"],
                base_evaluation=row["base_evaluation_id"],
                confirmation=row["confirmation_id"],
                base_confirmation=row["base_confirmation_id"],
                raised_at=utc(row["raised_at"]),
                acknowledged_at=acknowledged_at and utc(acknowledged_at),
                raised_by=row["raised_by"] or {},
                confirming=row["confirming"] or "",
            )
        )
    return found
