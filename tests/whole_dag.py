"""What end-to-end tests of the whole DAG have in common, wherever its jobs run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DAG = "evaluate_checkpoint"
LONG = 300.0
"""Seconds that a slow and busy machine may take for what takes seconds."""
SECRET = "sk-never-to-be-seen-anywhere"

QUICK = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "20",
}
"""What is dead is to be noticed in seconds here, not in minutes; what is only slow is not dead."""


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
