"""Making a checkpoint the baseline of its training run: what somebody is asked, and what is made of the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from operators.acknowledge import XCOM_BODY, XCOM_SUBJECT, answered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk.definitions.context import Context


class ProposeOperator(BaseOperator):
    """Returns the ids of the evaluations that are to become the baseline.

    The DAG run's params are ``training_run``, ``checkpoint`` (its name) and ``benchmarks`` (all, if it is null). Old
    and new numbers are in the XComs ``subject`` and ``body`` (Markdown).
    """

    ui_color = "#f3ecfa"

    def execute(self, context: Context) -> list[int]:
        # Here: they import what reading a DAG need not wait for.
        from evalcore.alert import block, clean
        from evalcore.errors import ConfigError, ResultsError
        from evalcore.history import open_history
        from evalcore.regression.promotion import propose
        from evalcore.tracked import Baseline, following

        params = context["params"]
        run, checkpoint = params["training_run"], params["checkpoint"]
        with open_history() as history:
            try:
                tracked = following(run)
                policy = tracked.baseline if tracked else Baseline(kind="previous")
                proposed = propose(history, run, checkpoint, policy, params["benchmarks"] or ())
            except (ConfigError, ResultsError) as error:
                raise AirflowFailException(str(error)) from error
        for line in proposed.table.splitlines():
            self.log.info("%s", line)
        context["ti"].xcom_push(XCOM_SUBJECT, clean(f"Baseline of {run}: {checkpoint}?", 200))
        context["ti"].xcom_push(XCOM_BODY, block(proposed.table))
        return proposed.evaluations


class PromoteOperator(BaseOperator):
    """Makes evaluations the baseline, in the name of whoever approved; returns the ids of those that were not before.

    :param evaluations: ids in the history.
    :param answer: what ApprovalOperator returned; its ``note``, if it asked for one, is kept.
    """

    template_fields = ("evaluations", "answer")
    ui_color = "#eaf7ea"

    def __init__(self, *, evaluations: Sequence[int], answer: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.evaluations = evaluations
        self.answer = answer

    def execute(self, context: Context) -> list[int]:
        from evalcore.history import open_history
        from evalcore.history.alarms import Alarms

        by, note = answered(self.answer)
        with open_history() as history:
            alarms = Alarms(history)
            new = []
            for id_ in self.evaluations:
                it = history.evaluation(id_)
                # Tried again, or approved twice, it is the same baseline.
                if alarms.promoted(it.checkpoint.run, it.benchmark) != id_:
                    new.append(id_)
                self.log.info(
                    "%s of %s: %s, approved by %s", it.benchmark, it.checkpoint.run, it.checkpoint.name, by
                )
            alarms.promote(new, by=by, note=note)
        return new
