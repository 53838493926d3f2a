"""Which evaluation is the baseline, under each policy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from evalcore.checkpoints import Checkpoint
from evalcore.history.store import Evaluation
from evalcore.metrics import Estimate
from evalcore.regression.baseline import choose
from evalcore.summarize import Counts, Mode
from evalcore.tracked import Baseline

COUNTS = Counts(
    expected=8, generated=8, failed=0, truncated=0, ungraded=0, undecided=0, unjudged=0, unparsable=0
)
NONE = dict.fromkeys(("judge_correct", "both_correct", "any_correct", "no_answer", "avg_tokens"))


def evaluation(step: int | None, value: float = 0.5, *, run: str = "r", **changed: Any) -> Evaluation:
    mode = Mode(
        evaluation_mode="pass@1[8]", k=1, num_entries=1, symbolic_correct=Estimate(value, None, 1), **NONE
    )
    checkpoint = Checkpoint(path=None, run=run, name=f"step-{step}", step=step, digest=f"{run}-{step}")
    fields = {
        "id": 1, "folder": Path("f"), "checkpoint": checkpoint, "benchmark": "gsm8k", "settings": "s",
        "fingerprint": "f", "samples": 8, "greedy": False, "judged": False, "needs_judge": False, "complete": True,
        "evaluated_at": datetime(2026, 1, 1, tzinfo=UTC), "counts": COUNTS, "mode": mode,
    }  # fmt: skip
    return Evaluation(**{**fields, **changed})


OLDER = [evaluation(100, 0.7), evaluation(300, 0.6), evaluation(200, 0.7), evaluation(500, 0.9)]
# Later, better and of the same names.
ELSEWHERE = [evaluation(step, 0.95, run="other") for step in (390, 400, 500)]


@pytest.mark.parametrize(
    ("policy", "step", "run"),
    [
        (Baseline(kind="previous"), 300, "r"),
        # The earliest of the best, and never a later one.
        (Baseline(kind="best"), 100, "r"),
        (Baseline(kind="pinned", name="step-500"), 500, "r"),
        (Baseline(kind="run", name="other"), 400, "other"),
    ],
)
def test_policies(policy: Baseline, step: int, run: str) -> None:
    found = choose(policy, evaluation(400), [*ELSEWHERE, *OLDER])
    assert found is not None
    assert (found.checkpoint.step, found.checkpoint.run) == (step, run)


@pytest.mark.parametrize("kind", ["previous", "best"])
def test_nothing_is_before_the_first_or_without_a_step(kind: Any) -> None:
    assert choose(Baseline(kind=kind), evaluation(100), OLDER) is None
    assert choose(Baseline(kind=kind), evaluation(None), OLDER) is None
    assert choose(Baseline(kind=kind), evaluation(400), [evaluation(None)]) is None


def test_another_run_without_that_step_is_no_baseline() -> None:
    assert choose(Baseline(kind="run", name="other"), evaluation(350), ELSEWHERE) is None


def test_what_was_never_scored_is_not_the_best() -> None:
    found = choose(Baseline(kind="best"), evaluation(400), [evaluation(100, mode=None), evaluation(200, 0.1)])
    assert found is not None
    assert found.checkpoint.step == 200


def test_without_steps_no_other_run_has_the_same_one() -> None:
    assert (
        choose(Baseline(kind="run", name="other"), evaluation(None), [evaluation(None, run="other")]) is None
    )


@pytest.mark.parametrize("changed", [{"fingerprint": "g"}, {"benchmark": "aime24"}, {"complete": False}])
def test_what_is_not_comparable_is_no_baseline(changed: dict[str, Any]) -> None:
    before = [evaluation(300, **changed), evaluation(200)]
    found = choose(Baseline(kind="previous"), evaluation(400), before)
    assert found is before[1]


def test_the_same_weights_are_no_baseline_and_the_newest_evaluation_counts() -> None:
    new = evaluation(400)
    twin = evaluation(300, checkpoint=new.checkpoint.model_copy(update={"step": 300}))
    later = evaluation(200, evaluated_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=1))
    assert choose(Baseline(kind="previous"), new, [twin, evaluation(200), later]) is later


@pytest.mark.parametrize(
    ("needs_judge", "judged", "best"),
    [(True, True, 200), (True, False, 100), (False, True, 100), (False, False, 100)],
)
def test_best_is_by_the_judge_where_the_benchmark_needs_one(
    needs_judge: bool, judged: bool, best: int
) -> None:
    how = {"needs_judge": needs_judge, "judged": judged}
    mode = evaluation(1).mode
    assert mode is not None

    def of(step: int, symbolic: float, by_judge: float) -> Evaluation:
        estimates = {
            "symbolic_correct": Estimate(symbolic, None, 1),
            "judge_correct": Estimate(by_judge, None, 1) if judged else None,
        }
        return evaluation(step, mode=mode.model_copy(update=estimates), **how)

    found = choose(Baseline(kind="best"), evaluation(400, **how), [of(100, 0.9, 0.3), of(200, 0.8, 0.4)])
    assert found is not None
    assert found.checkpoint.step == best


@pytest.mark.parametrize(
    ("policy", "promoted", "step"),
    [
        (Baseline(kind="previous"), 100, 300),
        (Baseline(kind="previous"), 300, 300),
        # Better ones before it no longer count.
        (Baseline(kind="best"), 200, 200),
        (Baseline(kind="best"), 300, 300),
        (Baseline(kind="pinned", name="step-500"), 200, 200),
        (Baseline(kind="pinned", name="step-100"), 500, 500),
        (Baseline(kind="run", name="other"), 300, 400),
    ],
)
def test_before_what_was_promoted_nothing_counts(policy: Baseline, promoted: int, step: int) -> None:
    first = next(it for it in OLDER if it.checkpoint.step == promoted)
    found = choose(policy, evaluation(400), [*ELSEWHERE, *OLDER], first)
    assert found is not None
    assert found.checkpoint.step == step


def test_what_was_promoted_holds_for_what_comes_after_it_alone() -> None:
    later = next(it for it in OLDER if it.checkpoint.step == 500)
    for new in (evaluation(400), evaluation(500, fingerprint="f", id=2)):
        found = choose(Baseline(kind="previous"), new, OLDER, later)
        assert found is not None
        assert found.checkpoint.step == 300


def test_what_was_promoted_counts_as_it_was_evaluated_last() -> None:
    before, again = evaluation(300, fingerprint="other"), evaluation(300)
    pinned = Baseline(kind="pinned", name="step-100")
    assert choose(pinned, evaluation(400), [evaluation(100), before, again], before) is again
    assert choose(pinned, evaluation(400), [evaluation(100), before], before) is None
    first = choose(
        Baseline(kind="previous"), evaluation(400), [evaluation(100), evaluation(200), before], before
    )
    assert first is None, "what is before it counts no more, even if it cannot be compared itself"
