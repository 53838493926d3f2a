"""Making a checkpoint the baseline of its training run: what would change, for somebody to agree to.

>>> proposed = propose(history, "llama-8b", "step-1500", Baseline(kind="previous"))
>>> print(proposed.table)
benchmark | mode      | its baseline | correct        | step-1500
gsm8k     | pass@1[4] | step-1200    | 61.30% ± 1.20% | 58.00% ± 1.20%
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from evalcore.compare import aligned
from evalcore.errors import ConfigError, ResultsError
from evalcore.history.store import Evaluation, History
from evalcore.regression.baseline import baseline_of, score
from evalcore.tracked import Baseline

_KNOWN = 5  # names that an error lists


class Proposal(NamedTuple):
    """evaluations: ids of what becomes the baseline. table: of them, beside what they were compared with."""

    evaluations: list[int]
    table: str


def propose(
    history: History, run: str, checkpoint: str, policy: Baseline, benchmarks: Collection[str] = ()
) -> Proposal:
    """What would be promoted: a checkpoint's newest complete evaluation of each benchmark, or of some.

    Raises:
        ConfigError: this policy takes its baselines elsewhere.
        ResultsError: there is no such evaluation.
    """
    if policy.kind == "run":
        raise ConfigError(
            f"{run} is compared with the same step of {policy.name}: nothing of its own can be promoted; say so "
            "in its file in tracked/"
        )
    evaluations = history.evaluations(run=run)
    newest: dict[str, Evaluation] = {}
    for it in sorted(evaluations, key=lambda it: (it.evaluated_at, it.id)):
        if it.complete and it.checkpoint.name == checkpoint:
            newest[it.benchmark] = it
    if not newest:
        known = list(dict.fromkeys(it.checkpoint.name for it in evaluations if it.complete))
        has = f"it has {', '.join(known[:_KNOWN])}" if known else "the history has no whole evaluation of it"
        raise ResultsError(f"{run} has no complete evaluation of {checkpoint!r}; {has}")
    if missing := sorted(set(benchmarks) - newest.keys()):
        raise ResultsError(
            f"{run}/{checkpoint} was not evaluated on {missing[0]!r}; on {', '.join(sorted(newest))}"
        )
    wanted = [it for name, it in sorted(newest.items()) if not benchmarks or name in benchmarks]
    if policy.kind != "pinned" and wanted[0].checkpoint.step is None:
        raise ResultsError(f"{run}/{checkpoint} has no step, by which {policy.kind} would find it")
    rows = [("benchmark", "mode", "its baseline", "correct", checkpoint)]
    for it in wanted:
        old = baseline_of(history, policy, it, evaluations)
        mode = it.mode.evaluation_mode if it.mode else "unknown"
        rows.append((it.benchmark, mode, old.checkpoint.name if old else "none", _share(old), _share(it)))
    return Proposal([it.id for it in wanted], "\n".join(aligned(rows)))


def _share(evaluation: Evaluation | None) -> str:
    estimate = score(evaluation) if evaluation else None
    if estimate is None:
        return "unknown" if evaluation else ""
    error = "" if estimate.std_err is None else f" ± {estimate.std_err:.2%}"
    return f"{estimate.value:.2%}{error}"
