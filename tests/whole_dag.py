"""What end-to-end tests of the whole DAG have in common, wherever its jobs run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from demo.standalone import Airflow
from waiting import LONG, until

DAG = "evaluate_checkpoint"
SECRET = "sk-never-to-be-seen-anywhere"

QUICK = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "40",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "20",
}
"""What is dead is to be noticed in seconds here, not in minutes; what is only slow is not dead."""


_ANSWERED = 14  # one of them to the question whether the server is up


def held(hold: Path) -> list[str]:
    """Overrides of a run whose generation gives some answers, and no more for as long as a file is there.

    So what is to happen while it runs comes neither too early nor too late, however slow everything is.
    """
    server = f"server.args=[--faults,hold:after={_ANSWERED}:file={hold}]"
    # Each answer its own request.
    return ["client.group_samples=false", server]


def some_rows(results: Path) -> list[Path]:
    """The files of generations below a folder that have a whole row, as soon as one has."""

    def written() -> list[Path]:
        return [file for file in results.rglob("generations/*.jsonl") if b"\n" in file.read_bytes()]

    return until(written, "some rows", LONG)


def is_watched(airflow: Airflow, run: str, attempt: int = 1) -> bool:
    """Whether the triggerer has looked at the generate job: a task is deferred a while before that."""
    logs = airflow.home.rglob(f"run_id={run}/task_id=generate/map_index=0/attempt={attempt}.log.trigger*")
    return any("embedded server up" in log.read_text() for log in logs)


def conf(results: Path, checkpoint: Path, **params: Any) -> dict[str, object]:
    """A run's params; by default of the profile ``cluster``."""
    return {
        "checkpoint": str(checkpoint),
        "suite": "tiny",
        "cluster": "cluster",
        "results": str(results),
        **params,
        "overrides": ["wandb.mode=offline", *params.get("overrides", [])],
    }
