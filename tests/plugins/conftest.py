"""Airflow for unit tests: a home of its own that nothing is read from, and no database."""

from __future__ import annotations

import os
import tempfile

# Before anything imports Airflow, which reads this once.
os.environ.setdefault(
    "AIRFLOW_HOME", os.path.join(tempfile.gettempdir(), f"airflow-unit-tests-{os.getuid()}")
)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL"] = "1"
