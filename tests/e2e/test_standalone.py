from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import psutil
import pytest

from demo.standalone import PORTS, Airflow, AirflowError, free_port
from waiting import bystander


def test_a_port_in_use_is_replaced_by_a_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port(port) in PORTS
    assert free_port(port) == port
    assert free_port(0) in PORTS


def test_a_home_has_one_airflow_at_a_time(tmp_path: Path) -> None:
    first, second = Airflow(tmp_path), Airflow(tmp_path)
    first._take_home()
    with pytest.raises(AirflowError, match="another Airflow runs in"):
        second._take_home()
    first.stop()
    second._take_home()
    second.stop()


def test_what_a_killed_airflow_left_running_is_killed_by_the_next(tmp_path: Path) -> None:
    with bystander() as left, bystander() as other:
        started = psutil.Process(left.pid).create_time()
        # The second has the pid that was recorded, but is another process.
        (tmp_path / "processes.json").write_text(json.dumps([(left.pid, started), (other.pid, 1.0)]))
        airflow = Airflow(tmp_path)
        airflow._take_home()
        airflow.stop()
        assert left.wait(60) == -signal.SIGKILL
        # A SIGKILL before this would be what it died of.
        other.terminate()
        assert other.wait(60) == -signal.SIGTERM


def test_settings_of_another_airflow_do_not_reach_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW_CONN_X", "http://u:p@h")
    monkeypatch.setenv("WANDB_API_KEY", "k")
    environment = Airflow(tmp_path, settings={"AIRFLOW__CORE__PARALLELISM": "2"})._environment()
    assert environment["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert environment["AIRFLOW__CORE__PARALLELISM"] == "2"
    assert environment["WANDB_API_KEY"] == "k"
    assert "AIRFLOW_CONN_X" not in environment
