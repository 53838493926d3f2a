"""record as a task: puts a run's scorecards, and their problems' counts, into the history.

It runs where Airflow does and not where jobs do: the history's database is beside Airflow, and what it needs of the
results was brought here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException

from evalcore.errors import ResultsError

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context


class RecordOperator(BaseOperator):
    """Returns the history's id of each benchmark's evaluation, by name.

    A benchmark that has no scorecard of this run is left out: ``report`` says why. Recorded again, nothing changes.

    :param plan_task_id: the task that planned the run.
    """

    ui_color = "#eaf7ea"

    def __init__(self, *, plan_task_id: str = "plan", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan_task_id = plan_task_id

    def execute(self, context: Context) -> dict[str, int]:
        # Here: they import what reading a DAG need not wait for.
        from evalcore.history import open_history
        from evalcore.summarize import Scorecard

        ti = context["ti"]
        planned = ti.xcom_pull(task_ids=self.plan_task_id)
        settings = ti.xcom_pull(task_ids=self.plan_task_id, key="settings")
        found: dict[str, int] = {}
        reasons = []
        with open_history() as history:
            for benchmark in planned:
                name, folder = benchmark["name"], Path(benchmark["brings"][1])
                try:
                    Scorecard.load(folder, settings[name])
                    recorded = history.record(folder)
                except ResultsError as error:
                    self.log.warning("%s: not recorded: %s", name, error)
                    reasons.append(str(error))
                    continue
                self.log.info("%s: %s as %d", name, recorded, recorded.id)
                found[name] = recorded.id
        if not found:
            raise AirflowException(f"nothing could be recorded: {'; '.join(reasons)}")
        return found
