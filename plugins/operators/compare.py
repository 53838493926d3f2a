"""compare as a task: whether the checkpoint got worse than its baseline, as the history has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from operators.confirm import to_start

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk.definitions.context import Context

XCOM_COMPARED = "compared"


class CompareOperator(BaseOperator):
    """Prints the comparison; returns ``{trigger_run_id, conf}`` of each run that is to confirm a loss.

    The XCom ``compared`` is ``{verdict, sentence, alpha, held}``. Skipped while there is no baseline.

    Baseline, margins and critical benchmarks are those that ``evalcore.regression.lineage`` takes. What got worse is
    to be confirmed until something became of it, by one run of confirm_regression; what earlier checkpoints lost too,
    if theirs has failed. It is held back, while a canary says that the stack has moved, for the reason in ``held``.

    :param recorded: ids of the evaluations by benchmark, from ``record``.
    """

    template_fields = ("recorded",)
    ui_color = "#eaf7ea"

    def __init__(self, *, recorded: Mapping[str, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.recorded = recorded

    def execute(self, context: Context) -> list[dict[str, Any]]:
        # Here: they import what reading a DAG need not wait for.
        from evalcore.compare import as_text, sentence
        from evalcore.history import open_history
        from evalcore.regression.confirmation import confirmations, to_confirm
        from evalcore.regression.lineage import judge_checkpoint

        ti, params = context["ti"], context["params"]
        if not params["compare"]:
            raise AirflowSkipException("the run's params say not to compare")
        raised_by = {"evaluation": ti.run_id, "params": dict(params)}
        with open_history() as history:
            found = judge_checkpoint(history, list(self.recorded.values()), params["cluster"], raised_by)
            compared = found.compared
            asked = confirmations(history, to_confirm(history, compared.checkpoint.run))
        for line in as_text(compared).splitlines():
            self.log.info("%s", line)
        if not compared.benchmarks:
            raise AirflowSkipException("; ".join(f"{n}: {why}" for n, why in compared.refused.items()))
        if found.held and found.alarms:
            self.log.warning("held back: %s", found.held)
        verdict = {"verdict": str(compared.verdict), "sentence": sentence(compared)}
        ti.xcom_push(XCOM_COMPARED, {**verdict, "alpha": found.alpha, "held": found.held})
        return to_start(ti, asked)
