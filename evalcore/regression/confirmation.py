"""A suspected regression is looked at again, on fresh seeds, before anybody is told.

>>> confirmations(history, to_confirm(history))       # of the DAG confirm_regression, which does the rest
[{'trigger_run_id': 'confirm__7__ckpt__llama-8b__step-1000__5f0c…', 'conf': {'alarms': [7], …}}]
>>> runs = requests(history, alarms, params)          # of the DAG evaluate_checkpoint: both checkpoints, alike
>>> settle(history, alarms)                           # when they are done
[Alarm(…, state=<State.CONFIRMED: 'confirmed'>, confirmation=51, base_confirmation=52)]

Only the benchmarks in question are asked again, of both checkpoints by the same software on the same machines: a
stack that has changed since the baseline was evaluated is no regression of the model. Greedy answers have no seed;
with them it is the stack alone that is made the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from evalcore.checkpoints import Checkpoint
from evalcore.compare import Compared, compare_recorded
from evalcore.comparison import Verdict
from evalcore.errors import ResultsError
from evalcore.history.alarms import UNDECIDED, Alarm, Alarms, Kind, Outcome, State, Suspicion
from evalcore.history.database import HistoryError
from evalcore.history.store import Evaluation, History
from evalcore.regression.canary import hold

ALPHA = 0.05
"""Of one test: what is confirmed was suspected under an alpha of its own, and of chance both seldom agree."""

_RUN_LENGTH = 150
# Airflow takes ids of 250 characters, PostgreSQL not one more; and the run that has somebody acknowledge what a
# confirmation has found is called as that, with `acknowledge__` before it.
_ID_LENGTH = 250 - len("acknowledge__")


def suspicions(
    compared: Iterable[Compared], chosen: Iterable[tuple[Evaluation, Evaluation | None]]
) -> list[Suspicion]:
    """What of a comparison is an alarm. chosen: the evaluations that were compared, each with its baseline."""
    of = {new.benchmark: (new.id, base.id) for new, base in chosen if base is not None}
    found = []
    for it in compared:
        if it.found.verdict is Verdict.REGRESSED:
            found.append(Suspicion(Kind.REGRESSION, *of[it.benchmark], it.found.margin, it.found.alpha))
        found += [
            Suspicion(Kind(rate.kind.value), *of[it.benchmark], rate.found.margin, rate.found.alpha)
            for rate in it.alarms
        ]
    return found


def to_confirm(history: History, run: str | None = None) -> list[Alarm]:
    """The undecided alarms, of one training run or of all, that no canary holds (any more); the first raised first.

    A run of confirm_regression may look at one already. Of one without ``raised_by`` it is not known on which cluster
    it was found, nor how to ask again: it is left out.
    """
    undecided: dict[str, list[Alarm]] = {}
    for state in UNDECIDED:
        for alarm in Alarms(history).find(run=run, state=state):
            if alarm.raised_by:
                undecided.setdefault(alarm.raised_by["params"]["cluster"], []).append(alarm)
    free = (alarms for cluster, alarms in undecided.items() if not hold(history, cluster))
    return sorted(chain.from_iterable(free), key=lambda it: it.id)


def confirmations(history: History, alarms: Iterable[Alarm]) -> list[dict[str, Any]]:
    """The runs of confirm_regression that look at some alarms again: ``{trigger_run_id, conf}`` of each.

    One for the alarms that the same run of evaluate_checkpoint has raised. Its id follows from theirs and stays
    theirs: whoever asks, and however often, no alarm has two. All have ``raised_by``.
    """
    store = Alarms(history)
    given = sorted(alarms, key=lambda it: it.id)
    new: dict[str, list[int]] = {}
    for alarm in given:
        if not alarm.confirming:
            new.setdefault(alarm.raised_by["evaluation"], []).append(alarm.id)
    for evaluation, ids in new.items():
        store.claim(ids, f"confirm__{'_'.join(map(str, ids))}__{evaluation}"[:_ID_LENGTH])
    runs: dict[str, list[Alarm]] = {}
    for alarm in store.get([it.id for it in given]):
        runs.setdefault(alarm.confirming, []).append(alarm)
    return [
        {"trigger_run_id": run, "conf": {"alarms": [it.id for it in alike], **alike[0].raised_by}}
        for run, alike in runs.items()
    ]


def attempt_id(run: str, number: int) -> str:
    """The id of the second, third, … run in place of one that failed; of the first it is ``run``."""
    # Of an id that is cut off the alarms' own are kept, which come first.
    return run if number == 1 else f"{run[: _ID_LENGTH - 10]}__{number}"


def unconfirmable(alarms: Sequence[Alarm], params: Mapping[str, Any]) -> str:
    """Why alarms cannot be looked at again; nothing if they can.

    params: those of the run of evaluate_checkpoint that raised them.
    """
    if params.get("server_address"):
        return "a server that runs already was asked, and of what else it may serve nothing is known"
    if lost := [it for alarm in alarms for it in (alarm.checkpoint, alarm.baseline) if not it.path]:
        return f"it is not known where {lost[0].run}/{lost[0].name} is"
    return ""


def requests(history: History, alarms: Sequence[Alarm], params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The conf of each run of evaluate_checkpoint that looks again: the checkpoint's, and each baseline's.

    All as in ``params``, but for the seed and the benchmarks. They go into training runs of their own, so that they
    are no part of any lineage, and are not sent to W&B, whose runs have the numbers of the evaluation itself.
    """
    seed = _seed(history, alarms[0])
    sides: dict[tuple[str, str], tuple[Checkpoint, dict[str, int]]] = {}
    for alarm in alarms:
        samples = history.evaluation(alarm.evaluation).samples
        for side in (alarm.checkpoint, alarm.baseline):
            benchmarks = sides.setdefault((side.run, side.digest), (side, {}))[1]
            benchmarks[alarm.benchmark] = samples
    overrides = [it for it in params.get("overrides") or [] if not _is_of(it, "inference.seed", "wandb.mode")]
    same = {key: value for key, value in params.items() if value is not None and key != "dry_run"}
    return [
        same
        | {
            "checkpoint": side.path,
            "training_run": run_name(alarms, side),
            "name": side.name,
            "benchmarks": ",".join(f"{name}:{samples}" for name, samples in benchmarks.items()),
            "seed": seed,
            "compare": False,
            "force_squash": False,
            "overrides": [*overrides, "wandb.mode=disabled"],
        }
        | ({} if side.step is None else {"step": side.step})
        for side, benchmarks in sides.values()
    ]


def settle(history: History, alarms: Sequence[Alarm], failed: str = "") -> list[Alarm]:
    """What became of each alarm, as the history has it now: of all or of none.

    One that could not be looked at again counts as confirmed, and says so: a regression that is kept back because a
    server was down is the worse mistake. failed: why, where it is known.

    Raises:
        HistoryError: the history is away.
        ResultsError: an alarm is unknown.
    """
    # Of some alone would be too few: a run that is started again asks for what is undecided, and tells of that alone.
    outcomes = []
    for alarm in alarms:
        new, base = (
            _again(history, run_name(alarms, side), alarm.benchmark, side.digest)
            for side in (alarm.checkpoint, alarm.baseline)
        )
        if new is None or base is None:
            reason = failed or "there is no whole evaluation of both on fresh seeds"
            outcomes.append(Outcome(alarm.id, State.CONFIRMED, f"could not be confirmed: {reason}"))
            continue
        try:
            is_worse, seen = _seen(history, alarm, new, base)
        except HistoryError:  # tried again, it may be back
            raise
        except ResultsError as error:
            state, reason = State.CONFIRMED, f"could not be confirmed: {error}"
        else:
            state = State.CONFIRMED if is_worse else State.REFUTED
            reason = f"{seen} on fresh seeds"
        outcomes.append(Outcome(alarm.id, state, reason, new.id, base.id))
    return Alarms(history).settle_all(outcomes)


def run_name(alarms: Sequence[Alarm], side: Checkpoint) -> str:
    """The training run under which a side is evaluated again: the same for the same alarms, however often."""
    return f"{side.run[:_RUN_LENGTH]}+confirm-{min(alarm.id for alarm in alarms)}"


def _again(history: History, run: str, benchmark: str, digest: str) -> Evaluation | None:
    """The newest whole evaluation of some weights in a training run."""
    evaluated = history.evaluations(run=run, benchmark=benchmark)
    return next((it for it in evaluated if it.complete and it.checkpoint.digest == digest), None)


def _seen(history: History, alarm: Alarm, new: Evaluation, base: Evaluation) -> tuple[bool, str]:
    """Whether it is so again, and what there is to see."""
    margins = {alarm.benchmark: alarm.margin} if alarm.kind is Kind.REGRESSION else {}
    compared = compare_recorded(history, [(new, base)], margins=margins, alpha=ALPHA)
    if not compared.benchmarks:
        raise ResultsError("; ".join(compared.refused.values()))
    again = compared.benchmarks[0]
    if alarm.kind is Kind.REGRESSION:
        if not again.pairs:
            raise ResultsError("no problem has verdicts under both checkpoints")
        found = again.found
        points = f"{100 * found.difference:+.1f} points (p = {found.p_worse:.2g})"
        return found.verdict is Verdict.REGRESSED, points
    rate = again.rate(alarm.kind)
    if rate is None:
        raise ResultsError(f"nothing is known of its {alarm.kind}")
    return rate.is_alarm, str(rate)


def _seed(history: History, alarm: Alarm) -> int:
    """Another than the evaluations had, and another for each alarm."""
    fingerprint = history.evaluation(alarm.evaluation).fingerprint
    seed: int = history.fingerprint_parts(fingerprint)["sampling"]["seed"]
    return seed + alarm.id


def _is_of(override: str, *keys: str) -> bool:
    return override.lstrip("+").partition("=")[0] in keys
