"""report as a task: prints the tables there are, then fails the run if any part of it failed.

A run whose aime24 could not be graded ends with gsm8k's table and::

    1 of 9 tasks failed: score.grade of aime24: aime24: no complete generations …
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from evalcore.errors import ResultsError
from operators.job import XCOM_FAILURE

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context


class Failure(NamedTuple):
    """A task that failed, what it was about (``aime24``, or nothing), and why, in one line."""

    task: str
    subject: str
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.task} of {self.subject}: {self.reason}" if self.subject else f"{self.task}: {self.reason}"
        )


class ReportOperator(BaseOperator):
    """Prints tables and failures.

    :param plan_task_id: the task that planned the run.
    :param scored_by: the mapped task after which a benchmark has a scorecard of this run.
    """

    ui_color = "#eaf7ea"

    def __init__(
        self, *, plan_task_id: str = "plan", scored_by: str = "score.summarize", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.plan_task_id = plan_task_id
        self.scored_by = scored_by

    def execute(self, context: Context) -> None:
        from evalcore.report import as_text
        from evalcore.summarize import Scorecard

        ti = context["ti"]
        finished = list(ti.get_task_breadcrumbs(ti.dag_id, ti.run_id))
        planned = {
            key: ti.xcom_pull(task_ids=self.plan_task_id, key=key)
            for key in ("return_value", "generate", "settings", "error")
        }
        failures = [
            Failure(task, _subject(planned, task, index), self._reason(planned, ti, task, index))
            for task, index in _failed(finished)
        ]
        done = {
            t["map_index"] for t in finished if t["task_id"] == self.scored_by and t["state"] == "success"
        }
        cards = []
        for benchmark in (b for i, b in enumerate(planned["return_value"] or []) if i in done):
            name = benchmark["name"]
            try:
                cards.append(Scorecard.load(Path(benchmark["brings"][1]), planned["settings"][name]))
            except ResultsError as error:
                failures.append(Failure(self.task_id, name, str(error)))
        for line in as_text(cards).splitlines():
            self.log.info("%s", line)
        ti.xcom_push("failures", list(map(str, failures)))
        for failure in failures:
            self.log.error("%s", failure)
        if failures:
            raise AirflowFailException(
                f"{len(failures)} of {len(finished)} tasks failed: {'; '.join(map(str, failures))}"
            )

    def _reason(self, planned: Mapping[str, Any], ti: Any, task: str, index: int) -> str:
        if task == self.plan_task_id and planned["error"]:
            return str(planned["error"])
        why = ti.xcom_pull(task_ids=task, key=XCOM_FAILURE, map_indexes=index)
        return str(why or "see the log of this task")


def _failed(finished: Iterable[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """The (task id, map index) of those that failed themselves, not those behind them."""
    return [(t["task_id"], t["map_index"]) for t in finished if t["state"] == "failed"]


def _subject(planned: Mapping[str, Any], task: str, index: int) -> str:
    if index < 0:
        return ""
    if task == "generate":
        return str(planned["generate"][index]["subject"])
    return str(planned["return_value"][index]["name"])
