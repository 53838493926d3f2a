"""Which earlier evaluation a checkpoint is compared with.

>>> newest, *older = history.evaluations(run="run-7", benchmark="gsm8k")
>>> choose(Baseline(kind="previous"), newest, older).checkpoint.step
1500

Only what is comparable is a baseline: complete, of the same benchmark and fingerprint, and another checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from evalcore.history.alarms import Alarms
from evalcore.tracked import Baseline

if TYPE_CHECKING:
    from evalcore.history.store import Evaluation, History
    from evalcore.metrics import Estimate


def baseline_of(
    history: History, policy: Baseline, evaluation: Evaluation, others: Iterable[Evaluation]
) -> Evaluation | None:
    """As ``choose``, with what somebody has promoted, as the history knows it."""
    promoted = Alarms(history).promoted(evaluation.checkpoint.run, evaluation.benchmark)
    first = None if promoted is None else history.evaluation(promoted)
    return choose(policy, evaluation, others, first)


def choose(
    policy: Baseline,
    evaluation: Evaluation,
    others: Iterable[Evaluation],
    promoted: Evaluation | None = None,
) -> Evaluation | None:
    """The evaluation that a policy names, of those that are comparable; None if there is none yet.

    promoted: what somebody has made the baseline. For ``previous`` and ``best`` of later checkpoints nothing before
    it counts; it takes the place of the ``pinned`` one; another ``run`` has nothing to do with it.

    ``best`` is by the mode that the evaluations were asked with, the earliest of equals. Of a checkpoint evaluated
    several times the newest evaluation counts.
    """
    comparable = sorted(
        (other for other in others if _is_comparable(evaluation, other)),
        key=lambda it: it.evaluated_at,
        reverse=True,
    )
    new = evaluation.checkpoint
    own = [other for other in comparable if other.checkpoint.run == new.run]
    if policy.kind == "pinned":
        if promoted is not None:
            return next((it for it in own if it.checkpoint.digest == promoted.checkpoint.digest), None)
        return next((other for other in own if other.checkpoint.name == policy.name), None)
    if policy.kind == "run":
        same = (o for o in comparable if o.checkpoint.run == policy.name and o.checkpoint.step == new.step)
        return next(same, None) if new.step is not None else None
    earlier = [(other.checkpoint.step, other) for other in own if _is_before(other.checkpoint.step, new.step)]
    if promoted is not None and _is_before(promoted.checkpoint.step, new.step):
        first = promoted.checkpoint.step
        earlier = [(step, other) for step, other in earlier if not _is_before(step, first)]
    if policy.kind == "previous":
        return max(earlier, key=lambda it: it[0] or 0, default=(None, None))[1]
    scored = [(it.value, -(step or 0), other) for step, other in earlier if (it := score(other)) is not None]
    return max(scored, key=lambda it: it[:2])[2] if scored else None


def _is_comparable(evaluation: Evaluation, other: Evaluation) -> bool:
    return (
        other.complete
        and (other.benchmark, other.fingerprint) == (evaluation.benchmark, evaluation.fingerprint)
        and other.checkpoint.digest != evaluation.checkpoint.digest
    )


def _is_before(step: int | None, new: int | None) -> bool:
    return step is not None and new is not None and step < new


def score(evaluation: Evaluation) -> Estimate | None:
    """The share of right answers, in the mode that was asked for, by the judge where the benchmark needs one."""
    if evaluation.mode is None:
        return None
    by_judge = evaluation.needs_judge and evaluation.judged
    return evaluation.mode.judge_correct if by_judge else evaluation.mode.symbolic_correct
