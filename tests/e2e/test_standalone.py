from __future__ import annotations

import json
import signal
import socket
import sys
import threading
from pathlib import Path

import psutil
import pytest

from demo.standalone import PORTS, Airflow, AirflowError, free_port
from seen_processes import is_alive
from waiting import bystander, started, until


def test_a_port_in_use_is_replaced_by_a_free_one() -> None:
    # One that the kernel would hand out may be somebody else's as soon as it is free.
    port = free_port(0)
    with socket.create_server(("127.0.0.1", port)):
        assert free_port(port) in set(PORTS) - {port}
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
        began = psutil.Process(left.pid).create_time()
        # The second has the pid that was recorded, but is another process.
        (tmp_path / "processes.json").write_text(json.dumps([(left.pid, began), (other.pid, 1.0)]))
        airflow = Airflow(tmp_path)
        airflow._take_home()
        airflow.stop()
        assert left.wait(60) == -signal.SIGKILL
        # A SIGKILL before this would be what it died of.
        other.terminate()
        assert other.wait(60) == -signal.SIGTERM


def test_what_is_killed_is_gone_before_another_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A leader that has ended at once, and a worker that takes a while.
    leave = "import os, time; os.fork() or os.execlp('sleep', 'sleep', '300'); time.sleep(300)"
    with started([sys.executable, "-c", leave], start_new_session=True) as leader:
        [worker] = until(lambda: psutil.Process(leader.pid).children(), "a worker")
        processes = [(leader.pid, psutil.Process(leader.pid).create_time())]
        (tmp_path / "processes.json").write_text(json.dumps(processes))

        def killpg(group: int, number: int) -> None:
            leader.kill()
            threading.Timer(1, worker.kill).start()

        monkeypatch.setattr("os.killpg", killpg)
        airflow = Airflow(tmp_path)
        airflow._take_home()
        airflow.stop()
        assert not is_alive(worker.pid)


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
