"""What a run went on past fails it in the end."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from operators.failures import FailuresOperator
from task_instance import TaskInstance


class Last(TaskInstance):
    """A task instance behind others. failed: (task, map index) of those that failed."""

    failed: tuple[tuple[str, int], ...] = ()

    def xcom_pull(self, *, task_ids: str, key: str) -> Any:
        return self.xcoms.get(f"{task_ids}/{key}")

    def get_task_breadcrumbs(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        ended = [{"task_id": "evaluate", "map_index": 7, "state": "success"}]
        return ended + [{"task_id": t, "map_index": i, "state": "failed"} for t, i in self.failed]


def execute(ti: TaskInstance) -> None:
    context: Any = {"ti": ti}
    FailuresOperator(task_id="failures", told_by=["canaries", "models"]).execute(context)


def test_what_failed_fails_the_run() -> None:
    ti = Last({"models/failures": ["llama: no such folder"], "evaluate/failures": ["not asked for"]})
    ti.failed = (("canary", 0), ("stack", -1))
    with pytest.raises(
        AirflowFailException, match=r"^llama: no such folder; canary 0: failed; stack: failed$"
    ):
        execute(ti)


def test_where_nothing_failed_neither_does_it() -> None:
    execute(Last({"models/failures": []}))
