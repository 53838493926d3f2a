"""Canaries: frozen models whose numbers stay the same from night to night, unless the stack itself moves.

    # canaries/llama-8b-base.yaml, in include/ or a folder of EVALCORE_INCLUDE
    checkpoint: /lustre/ckpt/llama-8b-base
    suite: nightly
    cluster: cluster
    alerts: [team_slack]

Each night has an evaluation of its own, of the lineage ``canary-<name>``. One whose numbers went up or down holds
back what is said of the models on the same cluster until somebody has acknowledged it, which makes that night the
canary's baseline, or until it is back where it was. What was held then goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from evalcore import include
from evalcore.checkpoints import path_component
from evalcore.compare import Compared, compare_recorded
from evalcore.comparison import ALPHA, Verdict, compare, spent, together
from evalcore.counts import Pair
from evalcore.errors import CheckpointError, ConfigError
from evalcore.history.alarms import Alarm, Alarms, Kind, State, Suspicion
from evalcore.history.store import Evaluation, History
from evalcore.settings import validated
from evalcore.tracked import Watched, check

_KIND = "canaries"
_PREFIX = "canary-"


class Canary(Watched):
    """A frozen model. checkpoint: its path on the cluster that it watches over."""

    checkpoint: str


def canaries() -> Iterator[tuple[str, Canary | ConfigError]]:
    """The enabled ones by name; in place of a file that cannot be used, the reason."""
    seen: dict[str, str] = {}
    for name in include.names(_KIND):
        where = f"canary {name}"
        try:
            if path_component(lineage(name), "name") != lineage(name):
                # Results and history would have it under another name, and nobody would find it there.
                raise ConfigError(f"{where}: letters, digits and . _ + = - make a name; rename the file")
            canary = validated(Canary, include.load(_KIND, name)[1], where)
            if canary.enabled:
                check(where, canary, margins=canary.margins)
                if (first := seen.setdefault(lineage(name), name)) != name:
                    raise ConfigError(f"{where}: its nights would be those of {first}; rename the file")
        except (CheckpointError, ConfigError) as error:
            yield name, ConfigError(str(error))
            continue
        if canary.enabled:
            yield name, canary


def canary_of(training_run: str) -> Canary | None:
    """The canary whose lineage that is; None where there is none. ConfigError if its file cannot be used."""
    for name, canary in canaries():
        if lineage(name) == training_run:
            if isinstance(canary, ConfigError):
                raise canary
            return canary
    return None


def lineage(name: str) -> str:
    """The training run of a canary's evaluations, in results and history."""
    return f"{_PREFIX}{name.replace('/', '-')}"


def request(name: str, canary: Canary, night: datetime) -> dict[str, Any]:
    """The run of evaluate_checkpoint that evaluates a canary once more: ``{trigger_run_id, conf}``."""
    named = night_name(night)
    conf = {
        "checkpoint": canary.checkpoint,
        "training_run": lineage(name),
        "name": named,
        "step": int(f"{night:%Y%m%d}"),
        "compare": False,
    }
    return {"trigger_run_id": f"{lineage(name)}__{named}", "conf": conf | canary.asked()}


def night_name(night: datetime) -> str:
    """The name of a night's evaluation of a canary."""
    return f"{night:%Y-%m-%dT%H%M%S}"


def judge_stack(history: History, name: str, canary: Canary, night: datetime) -> list[Alarm]:
    """Whether a canary's numbers moved: the alarms of this night, confirmed, of which somebody is to be told.

    A canary asks with the same seeds every night, and its problems are paired, so that chance alone hardly moves
    it; both directions are tested. Alarms of earlier nights are refuted where the numbers are back. Of later nights
    nothing counts: judged again, a night is judged as it was. What has no earlier night is for ``unwatched`` to say.
    """
    run = lineage(name)
    evaluations = history.evaluations(run=run)
    tonight = [it for it in evaluations if it.checkpoint.name == night_name(night) and it.complete]
    paired = [(it, _baseline(history, it, evaluations)) for it in tonight]
    before = [(new, base) for new, base in paired if base is not None]
    if not before:
        return []
    alike = {new.fingerprint: {it.checkpoint.name for it in _before(new, evaluations)} for new, _ in before}
    alpha = spent(ALPHA, max(map(len, alike.values())))
    compared = compare_recorded(history, before, margins=canary.margins)
    known = [it for it in compared.benchmarks if it.pairs]
    moved = set(_moved(known, alpha))
    by_name = {it.benchmark: it for it in known}
    alarms = Alarms(history)
    # Under other settings, or of other weights, numbers that stay say nothing of those that had moved.
    asked = {new.benchmark: _asked(new) for new, _ in before if new.benchmark in by_name}
    for alarm in alarms.find(run=run, kind=Kind.CANARY, state=State.CONFIRMED):
        is_earlier = alarm.checkpoint.name <= night_name(night)
        is_alike = asked.get(alarm.benchmark) == _asked(history.evaluation(alarm.evaluation))
        if is_earlier and is_alike and alarm.benchmark not in moved:
            alarms.settle(alarm.id, State.REFUTED, reason=f"back where it was on {night_name(night)}")
    new = [
        Suspicion(Kind.CANARY, new.id, base.id, by_name[new.benchmark].found.margin, alpha)
        for new, base in before
        if new.benchmark in moved
    ]
    told = []
    for alarm in alarms.raise_(new):
        found = by_name[alarm.benchmark].found
        reason = f"{alarm.benchmark} by {100 * found.difference:+.1f} points"
        if changed := _changed(history, alarm):
            reason += f", after {changed}"
        if alarm.state is State.SUSPECTED:
            alarm = alarms.settle(alarm.id, State.CONFIRMED, reason=reason)
        told.append(alarm)
    return [alarm for alarm in told if alarm.state is State.CONFIRMED]


class Unwatched(NamedTuple):
    """Why a canary says nothing of the stack, or not of all. changed: its checkpoint is another one since tonight."""

    reason: str
    changed: bool


def unwatched(history: History, name: str, night: datetime) -> Unwatched | None:
    """What ``judge_stack`` could not look at; None if that is nothing.

    Without it a checkpoint that was overwritten, or a suite that was changed, would pass for a stack that stayed.
    """
    evaluations = history.evaluations(run=lineage(name))
    tonight = [it for it in evaluations if it.checkpoint.name == night_name(night) and it.complete]
    if not tonight:
        return Unwatched(f"canary {name}: there is no whole evaluation of it tonight", changed=False)
    earlier = [it for it in evaluations if it.complete and it.checkpoint.name < night_name(night)]
    digest = tonight[0].checkpoint.digest
    if earlier and digest not in {it.checkpoint.digest for it in earlier}:
        path = tonight[0].checkpoint.path
        reason = f"what lies at {path} is not the checkpoint of the nights before; from tonight on that is the canary"
        return Unwatched(f"canary {name}: {reason}", changed=True)
    if first := sorted(it.benchmark for it in tonight if _baseline(history, it, evaluations) is None):
        reason = f"of {', '.join(first)} this is the first night, as it is asked now"
        return Unwatched(f"canary {name}: {reason}", changed=False)
    return None


def hold(history: History, cluster: str) -> str:
    """Why nothing is said of models on a cluster for the time being; nothing if there is no reason."""
    watching = {
        lineage(name)
        for name, canary in canaries()
        # Of one that cannot be used nobody knows the cluster; what is open of it does not end with a typing mistake.
        if isinstance(canary, ConfigError) or canary.cluster == cluster
    }
    if not watching:
        return ""
    open_ = [it for it in Alarms(history).find(kind=Kind.CANARY, state=State.CONFIRMED) if it.run in watching]
    if not open_:
        return ""
    newest = max(open_, key=lambda it: it.raised_at)
    return f"the stack moved: {newest.run} of {newest.raised_at:%Y-%m-%d}: {newest.reason}"


def _baseline(history: History, new: Evaluation, evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """The promoted evaluation, or else the first: of the same problems, asked in the same way, of earlier nights."""
    alike = _before(new, evaluations)
    promoted = Alarms(history).promoted(new.checkpoint.run, new.benchmark)
    first = min(alike, key=lambda it: it.checkpoint.name, default=None)
    return next((it for it in alike if it.id == promoted), first)


def _asked(evaluation: Evaluation) -> tuple[str, str]:
    return evaluation.fingerprint, evaluation.checkpoint.digest


def _before(new: Evaluation, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    return [
        it
        for it in evaluations
        if (it.benchmark, it.fingerprint) == (new.benchmark, new.fingerprint)
        and it.complete
        and it.checkpoint.name < new.checkpoint.name
        and it.checkpoint.digest == new.checkpoint.digest
    ]


def _moved(benchmarks: Sequence[Compared], alpha: float) -> Iterator[str]:
    """Those that are not what they were, in either direction, with false alarms bounded for all together."""
    tests = {}
    for it in benchmarks:
        # Anew: what was found of it is adjusted to the others already, and would be twice.
        tests[it.benchmark, "down"] = compare(it.pairs, margin=it.found.margin)
        turned = [Pair(p.problem, p.base_n, p.base_c, p.n, p.c, p.cluster) for p in it.pairs]
        tests[it.benchmark, "up"] = compare(turned, margin=it.found.margin)
    named = {"/".join(key): replace(found, alpha=alpha) for key, found in tests.items()}
    found = together(named, critical=list(named), alpha=alpha)
    for it in benchmarks:
        if any(found[f"{it.benchmark}/{way}"].verdict is Verdict.REGRESSED for way in ("down", "up")):
            yield it.benchmark


def _changed(history: History, alarm: Alarm) -> str:
    """What of the stack is not as it was, as far as it is known."""
    new, base = history.stack(alarm.evaluation), history.stack(alarm.base_evaluation)
    return ", ".join(
        f"{key} {base.get(key)} → {new.get(key)}" for key in new if new.get(key) != base.get(key)
    )
