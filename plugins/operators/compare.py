"""compare as a task: whether the checkpoint got worse than its baseline, as the history has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk.definitions.context import Context

    from evalcore.tracked import Tracked


class CompareOperator(BaseOperator):
    """Prints the comparison; returns ``{verdict, sentence, alpha}``. Skipped while there is no baseline.

    Baseline, margins and critical benchmarks are those of the file that follows the training run; without one the
    previous step is the baseline and every benchmark critical.

    :param recorded: ids of the evaluations by benchmark, from ``record``.
    """

    template_fields = ("recorded",)
    ui_color = "#eaf7ea"

    def __init__(self, *, recorded: Mapping[str, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.recorded = recorded

    def execute(self, context: Context) -> dict[str, Any]:
        # Here: they import what reading a DAG need not wait for.
        from evalcore.baseline import choose
        from evalcore.compare import as_text, compare_recorded, sentence
        from evalcore.comparison import ALPHA, spent
        from evalcore.history import open_history
        from evalcore.tracked import Baseline

        chosen, nights = [], 1
        with open_history() as history:
            new = [history.evaluation(id_) for id_ in self.recorded.values()]
            run = new[0].checkpoint.run
            tracked = _followed(run)
            policy = tracked.baseline if tracked else Baseline(kind="previous")
            for evaluation in new:
                others = history.evaluations(
                    benchmark=evaluation.benchmark, fingerprint=evaluation.fingerprint
                )
                chosen.append((evaluation, choose(policy, evaluation, others)))
                own = {other.checkpoint.digest for other in others if other.checkpoint.run == run}
                nights = max(nights, len(own) - 1)
            # Of all comparisons that a lineage has had, this one may spend so much.
            alpha = spent(ALPHA, nights)
            critical = tracked.critical if tracked else ()
            compared = compare_recorded(
                history,
                chosen,
                margins=tracked.margins if tracked else {},
                advisory=[name for name in self.recorded if critical and name not in critical],
                alpha=alpha,
            )
        for line in as_text(compared).splitlines():
            self.log.info("%s", line)
        if not compared.benchmarks:
            raise AirflowSkipException("; ".join(f"{n}: {why}" for n, why in compared.refused.items()))
        return {"verdict": str(compared.verdict), "sentence": sentence(compared), "alpha": alpha}


def _followed(run: str) -> Tracked | None:
    """The file that follows a training run; one that cannot be used is no reason not to compare."""
    from evalcore.errors import ConfigError
    from evalcore.tracked import followed

    return next((it for it in followed() if not isinstance(it, ConfigError) and it.training_run == run), None)
