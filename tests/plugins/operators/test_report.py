from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from airflow.sdk.exceptions import AirflowFailException

from evalcore.manifest import Manifest
from evalcore.summarize import summarize
from operators.job import XCOM_FAILURE
from operators.report import ReportOperator
from synthetic_results import Sample, manifest, write


@dataclass
class TaskInstance:
    """What of a task instance the operator uses."""

    finished: list[dict[str, Any]]
    planned: dict[str, Any]
    failures: dict[tuple[str, int | None], str] = field(default_factory=dict)
    pushed: dict[str, Any] = field(default_factory=dict)
    dag_id: str = "d"
    run_id: str = "r"

    def get_task_breadcrumbs(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        assert (dag_id, run_id) == ("d", "r")
        return self.finished

    def xcom_pull(self, *, task_ids: str, key: str, map_indexes: int | None = None) -> Any:
        if key == XCOM_FAILURE:
            return self.failures.get((task_ids, map_indexes))
        assert task_ids == "plan"
        return self.planned.get(key)

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def task(task_id: str, state: str, map_index: int = -1) -> dict[str, Any]:
    return {"task_id": task_id, "map_index": map_index, "state": state}


def test_it_names_each_failed_task_its_benchmark_and_the_reason() -> None:
    ti = TaskInstance(
        [
            task("plan", "success"),
            task("generate", "failed", 0),
            task("score.grade", "failed", 1),
            task("score.judge", "upstream_failed", 1),
        ],
        {
            "return_value": [
                {"name": "gsm8k", "brings": ["g", "g"]},
                {"name": "aime24", "brings": ["a", "a"]},
            ],
            "generate": [{"argv": [], "subject": "gsm8k:4,aime24:0"}],
        },
        failures={
            ("score.grade", 1): "aime24: row 3 is torn",
            ("generate", 0): "killed by SIGKILL: no output",
        },
    )
    with pytest.raises(AirflowFailException) as failure:
        ReportOperator(task_id="report").execute({"ti": ti})  # type: ignore[typeddict-item]
    assert ti.pushed["failures"] == [
        "generate of gsm8k:4,aime24:0: killed by SIGKILL: no output",
        "score.grade of aime24: aime24: row 3 is torn",
    ]
    assert str(failure.value) == f"2 of 4 tasks failed: {'; '.join(ti.pushed['failures'])}"


@pytest.mark.parametrize(
    ("left", "reason"), [({"error": "no such folder"}, "no such folder"), ({}, "see the log of this task")]
)
def test_a_failed_plan_is_named(left: dict[str, str], reason: str) -> None:
    ti = TaskInstance([task("plan", "failed"), task("convert", "upstream_failed")], left)
    with pytest.raises(AirflowFailException, match=f"1 of 2 tasks failed: plan: {reason}"):
        ReportOperator(task_id="report").execute({"ti": ti})  # type: ignore[typeddict-item]


def test_without_failures_it_succeeds() -> None:
    ti = TaskInstance([task("plan", "success")], {"return_value": []})
    with structlog.testing.capture_logs() as logged:
        ReportOperator(task_id="report").execute({"ti": ti})  # type: ignore[typeddict-item]
    assert ti.pushed == {"failures": []}
    assert not [entry for entry in logged if entry["log_level"] == "error"]


def test_a_table_that_another_evaluation_wrote_is_not_shown(tmp_path: Path) -> None:
    benchmarks = []
    for name in ("ours", "theirs"):
        folder = write(tmp_path / name, manifest(1, 1, name=name), [Sample("a", 0, "1", True)])
        summarize(folder)
        benchmarks.append({"name": name, "brings": ["there", str(folder)]})
    ours = Manifest.load(tmp_path / "ours").settings
    ti = TaskInstance(
        [task("score.summarize", "success", 0), task("score.summarize", "success", 1)],
        {
            "return_value": benchmarks,
            "settings": {"ours": ours, "theirs": "0123456789ab"},
        },
    )
    with (
        structlog.testing.capture_logs() as logged,
        pytest.raises(AirflowFailException, match="report of theirs"),
    ):
        ReportOperator(task_id="report").execute({"ti": ti})  # type: ignore[typeddict-item]
    tables = [entry["event"] for entry in logged if entry["log_level"] == "info"]
    assert [line for line in tables if " ours " in line]
    assert not [line for line in tables if "theirs" in line]
    [failure] = ti.pushed["failures"]
    assert failure.startswith(
        f"report of theirs: {tmp_path}/theirs/scorecard.json: written by another evaluation"
    )
