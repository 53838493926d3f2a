"""A stand-in for Airflow's task instance, for operators run without Airflow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class TaskInstance:
    """What of a task instance the operators use. ``state`` is what Airflow's database says of it.

    runs: the states of runs of confirm_regression, by id.
    """

    xcoms: dict[str, Any] = field(default_factory=dict)
    dag_id: str = "evaluate"
    run_id: str = "manual__2026-11-21T00:00:00+00:00"
    task_id: str = "generate"
    map_index: int = -1
    state: str = "running"
    runs: dict[str, str] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value

    def get_dr_count(self, dag_id: str, *, run_ids: list[str], states: list[str] | None) -> int:
        assert dag_id == "confirm_regression"
        found = [self.runs[run] for run in run_ids if run in self.runs]
        return sum(states is None or state in states for state in found)

    def get_task_states(
        self, dag_id: str, *, map_index: int, task_ids: list[str], run_ids: list[str]
    ) -> dict[str, dict[str, str]]:
        assert (dag_id, map_index, task_ids, run_ids) == (
            self.dag_id,
            self.map_index,
            [self.task_id],
            [self.run_id],
        )
        mapped = f"_{map_index}" if map_index >= 0 else ""
        return {self.run_id: {f"{self.task_id}{mapped}": self.state}}
