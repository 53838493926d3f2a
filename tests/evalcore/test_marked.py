"""Processes that are found by their environment, also at the moments in which they cannot be seen."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from evalcore.marked import _LOADING_SECONDS, kill_marked
from waiting import started, until

# They start processes, and wait for them.
pytestmark = pytest.mark.slow

SLEEP = ["sleep", "300"]


@pytest.fixture
def marked(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "MARK": str(tmp_path)}


def test_who_is_started_while_the_others_are_killed_is_killed_too(
    marked: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, late = psutil.process_iter, list[subprocess.Popen[bytes]]()

    def list_and_start() -> Iterator[psutil.Process]:
        found = list(listed())
        if not late:
            late.append(subprocess.Popen(SLEEP, env=marked))
        yield from found

    monkeypatch.setattr(psutil, "process_iter", list_and_start)
    with started(SLEEP, env=marked) as first, started(SLEEP) as other:
        kill_marked("MARK", str(tmp_path))
        assert first.wait() == -signal.SIGKILL
        assert late[0].wait() == -signal.SIGKILL
        # A SIGKILL before this would be what it died of.
        other.terminate()
        assert other.wait() == -signal.SIGTERM


def test_who_becomes_another_program_just_then_is_killed(
    marked: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = psutil.Process.environ
    looks: list[int] = []

    def environ(process: psutil.Process) -> dict[str, str]:
        if process.pid != it.pid:
            return seen(process)
        looks.append(process.pid)
        if len(looks) == 2:
            it.stdin.close()
            until(lambda: process.cmdline() == SLEEP, "the next program")
        return (
            seen(process) if len(looks) > 2 else {}
        )  # so does the kernel say of what is no more, or not yet

    with started(["sh", "-c", f"read x; exec {' '.join(SLEEP)}"], env=marked, stdin=subprocess.PIPE) as it:
        assert it.stdin
        monkeypatch.setattr("evalcore.marked._LOADING_SECONDS", 1e9)
        monkeypatch.setattr(psutil.Process, "environ", environ)
        kill_marked("MARK", str(tmp_path))
        assert len(looks) == 3
        assert it.wait() == -signal.SIGKILL


def test_who_has_no_environment_is_left_alone_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalcore.marked._LOADING_SECONDS", 1e9)
    with started(SLEEP, env={}) as other:
        until(lambda: psutil.Process(other.pid).cmdline() == SLEEP, "its start")
        kill_marked("MARK", str(tmp_path))
        other.terminate()
        assert other.wait() == -signal.SIGTERM


def test_a_kernel_that_never_tells_costs_all_processes_together_a_few_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(waited), sleep=waited.append)
    monkeypatch.setattr("evalcore.marked.time", clock)
    monkeypatch.setattr("evalcore.marked._place", lambda _: None)
    with started(SLEEP, env={}) as one, started(SLEEP, env={}) as other:
        for process in (one, other):
            until(lambda pid=process.pid: psutil.Process(pid).cmdline() == SLEEP, "its start")
        kill_marked("MARK", str(tmp_path))
    assert 0 < sum(waited) < _LOADING_SECONDS + 0.1
