"""The last task of a DAG that goes on past what fails: then it is what fails the run, and says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

XCOM_FAILURES = "failures"
"""Where a task leaves what it went on past: a list of texts."""


class FailuresOperator(BaseOperator):
    """Fails the run if something of it could not be done, after everything else was.

    :param told_by: the tasks that leave failures in their XCom. Tasks that failed themselves are named, too.
    """

    def __init__(self, *, told_by: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.told_by = told_by

    def execute(self, context: Context) -> None:
        ti = context["ti"]
        failures = [
            str(failure)
            for task in self.told_by
            for failure in ti.xcom_pull(task_ids=task, key=XCOM_FAILURES) or []
        ]
        failed = [t for t in ti.get_task_breadcrumbs(ti.dag_id, ti.run_id) if t["state"] == "failed"]
        failures += [
            t["task_id"] + (f" {t['map_index']}" if t["map_index"] >= 0 else "") + ": failed" for t in failed
        ]
        if failures:
            raise AirflowFailException("; ".join(failures))
