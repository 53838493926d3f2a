"""Processes that are known by a variable in their environment, wherever they have moved to.

>>> kill_marked("EVALCORE_JOB", "/data/results/.jobs/evaluate_checkpoint-grade-0/1")
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import psutil

_LOADING_SECONDS = 5.0


def kill_marked(variable: str, value: str) -> None:
    """SIGKILL every process but this one whose environment has that, and what those it finds start meanwhile."""
    # For all together: a kernel that never tells where an environment is must not cost that for each process.
    deadline = time.monotonic() + _LOADING_SECONDS
    killed: set[psutil.Process] = set()
    # Whoever is told to die starts nobody any more, but may have since the processes were listed.
    while found := [
        it for it in psutil.process_iter() if it not in killed and _has(it, variable, value, deadline)
    ]:
        killed.update(found)
        for process in found:
            with contextlib.suppress(psutil.Error):  # gone meanwhile
                process.kill()


def _has(process: psutil.Process, variable: str, value: str, deadline: float) -> bool:
    try:
        return process.pid != os.getpid() and _environment(process, deadline).get(variable) == value
    except (psutil.Error, OSError):
        return False  # gone meanwhile, or somebody else's


def _environment(process: psutil.Process, deadline: float) -> dict[str, str]:
    """A process's environment. While it becomes another program it has none to be seen, and is looked at again."""
    found = process.environ()
    while not found and time.monotonic() < deadline:
        place = _place(process.pid)
        found = process.environ()
        if place and place == _place(process.pid):
            break  # the same program all the while: it is empty, or overwritten
        time.sleep(0.001)
    return found


def _place(pid: int) -> tuple[int, int] | None:
    """Where in its memory the kernel has put a program's environment; None if it has not yet (Linux)."""
    # proc_pid_stat(5). The third field is the first after the program's name, which may have anything in it.
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    memory, start, end = (int(fields[number - 3]) for number in (23, 50, 51))
    return (start, end) if end or not memory else None
