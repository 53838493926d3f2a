from __future__ import annotations

from pathlib import Path

import pytest
from airflow.sdk.bases.operator import ExecutorSafeguard


@pytest.fixture(autouse=True)
def _outside_of_a_task_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)


@pytest.fixture(autouse=True)
def _own_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALCORE_HISTORY", f"sqlite:///{tmp_path}/history.sqlite")
