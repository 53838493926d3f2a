"""compare as a task: whether the checkpoint got worse than its baseline, as the history has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk.definitions.context import Context

XCOM_COMPARED = "compared"


class CompareOperator(BaseOperator):
    """Prints the comparison; returns ``{trigger_run_id, conf}`` of the one run that is to confirm a loss, or none.

    The XCom ``compared`` is ``{verdict, sentence, alpha, held}``. Skipped while there is no baseline.

    Baseline, margins and critical benchmarks are those of the file that follows the training run; without one the
    previous step is the baseline and every benchmark critical. What got worse is an alarm in the history, and is to
    be confirmed until something became of it. While a canary says that the stack has moved it is held instead, for
    the reason in ``held``.

    :param recorded: ids of the evaluations by benchmark, from ``record``.
    """

    template_fields = ("recorded",)
    ui_color = "#eaf7ea"

    def __init__(self, *, recorded: Mapping[str, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.recorded = recorded

    def execute(self, context: Context) -> list[dict[str, Any]]:
        # Here: they import what reading a DAG need not wait for.
        from evalcore.baseline import choose
        from evalcore.canary import hold
        from evalcore.compare import as_text, compare_recorded, sentence
        from evalcore.comparison import ALPHA, spent
        from evalcore.confirmation import suspicions
        from evalcore.history import open_history
        from evalcore.history.alarms import Alarms, State
        from evalcore.tracked import Baseline, following

        ti, params = context["ti"], context["params"]
        if not params["compare"]:
            raise AirflowSkipException("the run's params say not to compare")
        chosen, nights = [], 1
        with open_history() as history:
            new = [history.evaluation(id_) for id_ in self.recorded.values()]
            run = new[0].checkpoint.run
            tracked = following(run)
            policy = tracked.baseline if tracked else Baseline(kind="previous")
            for evaluation in new:
                others = history.evaluations(
                    benchmark=evaluation.benchmark, fingerprint=evaluation.fingerprint
                )
                promoted = Alarms(history).promoted(run, evaluation.benchmark)
                first = None if promoted is None else history.evaluation(promoted)
                chosen.append((evaluation, choose(policy, evaluation, others, first)))
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
            held = hold(history, params["cluster"])
            worse = [it for it in compared.benchmarks if not critical or it.benchmark in critical]
            alarms = Alarms(history).raise_(suspicions(worse, chosen), held=held)
        if held and alarms:
            self.log.warning("held back: %s", held)
        verdict = {"verdict": str(compared.verdict), "sentence": sentence(compared)}
        ti.xcom_push(XCOM_COMPARED, {**verdict, "alpha": alpha, "held": held})
        open_ = [alarm.id for alarm in alarms if alarm.state is State.SUSPECTED]
        conf = {"alarms": open_, "evaluation": ti.run_id, "params": dict(params)}
        return [{"trigger_run_id": _run_id(ti.run_id, open_), "conf": conf}] if open_ else []


def _run_id(evaluation: str, alarms: list[int]) -> str:
    """One confirmation for each alarm, whatever is restarted; its id follows from theirs."""
    return f"confirm__{'_'.join(map(str, alarms))}__{evaluation}"[:250]
