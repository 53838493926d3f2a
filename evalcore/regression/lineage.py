"""A checkpoint as one of its training run: against the baseline it has there, at a level that holds for all of them.

>>> found = judge_checkpoint(history, [recorded.id], cluster="local")
>>> found.compared.verdict, [alarm.state for alarm in found.alarms]
(<Verdict.REGRESSED: 'regressed'>, [<State.SUSPECTED: 'suspected'>])

What the file that follows the training run says of baseline, margins and critical benchmarks holds; without one the
previous step is the baseline and every benchmark critical.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from evalcore.compare import Comparisons, compare_recorded
from evalcore.comparison import ALPHA, spent
from evalcore.history.alarms import Alarm, Alarms
from evalcore.history.store import Evaluation, History
from evalcore.regression.baseline import baseline_of
from evalcore.regression.canary import hold
from evalcore.regression.confirmation import suspicions
from evalcore.tracked import Baseline, following


@dataclass(frozen=True, slots=True)
class Judged:
    """What is said of a checkpoint.

    compared: no benchmarks in it while there is no baseline. alpha: what this comparison may spend. alarms: of what
    got worse, with what became of each so far. held: why nothing is made of them for the time being, or nothing.
    """

    compared: Comparisons
    alpha: float
    alarms: tuple[Alarm, ...]
    held: str


def judge_checkpoint(
    history: History,
    evaluations: Sequence[int],
    cluster: str,
    raised_by: Mapping[str, Any] | None = None,
) -> Judged:
    """Compare a checkpoint's evaluations, one of each benchmark, with their baselines; what got worse is an alarm.

    While a canary says that the stack of the cluster has moved, alarms are held.

    Args:
        raised_by: as new alarms are to have it.

    Raises:
        ResultsError: an evaluation is not in the history.
    """
    new = [history.evaluation(id_) for id_ in evaluations]
    run = new[0].checkpoint.run
    tracked = following(run)
    policy = tracked.baseline if tracked else Baseline(kind="previous")
    chosen, nights = [], 1
    for evaluation in new:
        others = history.evaluations(benchmark=evaluation.benchmark, fingerprint=evaluation.fingerprint)
        chosen.append((evaluation, baseline_of(history, policy, evaluation, others)))
        nights = max(nights, _earlier(evaluation, others))
    # Of all comparisons that a lineage may have, this one may spend so much.
    alpha = spent(ALPHA, nights)
    critical = tracked.critical if tracked else ()
    compared = compare_recorded(
        history,
        chosen,
        margins=tracked.margins if tracked else {},
        advisory=[it.benchmark for it in new if critical and it.benchmark not in critical],
        alpha=alpha,
    )
    if not compared.benchmarks:
        return Judged(compared, alpha, (), "")
    held = hold(history, cluster)
    worse = [it for it in compared.benchmarks if not critical or it.benchmark in critical]
    alarms = Alarms(history).raise_(suspicions(worse, chosen), held=held, raised_by=raised_by)
    return Judged(compared, alpha, tuple(alarms), held)


def _earlier(evaluation: Evaluation, others: Sequence[Evaluation]) -> int:
    """How many checkpoints of its training run were evaluated before: later ones do not change what was found of it.

    Otherwise a task that is cleared, or an alarm that was held meanwhile, would be judged more strictly than before.
    """
    first: dict[str, tuple[datetime, int]] = {}
    for it in others:
        if it.checkpoint.run == evaluation.checkpoint.run:
            when = (it.evaluated_at, it.id)
            first[it.checkpoint.digest] = min(when, first.get(it.checkpoint.digest, when))
    mine = first.pop(evaluation.checkpoint.digest)
    return sum(when < mine for when in first.values())
