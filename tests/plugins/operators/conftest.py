from __future__ import annotations

import pytest
from airflow.sdk.bases.operator import ExecutorSafeguard


@pytest.fixture(autouse=True)
def _outside_of_a_task_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)
