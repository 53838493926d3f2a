"""What anybody who lists processes sees, and what only their owner does."""

from __future__ import annotations

import contextlib
from pathlib import Path

import orjson
import psutil

from evalcore import jobs


def command_lines() -> set[str]:
    """Those of all processes."""
    return {" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])}


def in_environment(variable: str, of: str) -> set[str]:
    """The values of a variable in the environments of the processes that have a text in their command line."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        if of in " ".join(process.info["cmdline"] or []):
            with contextlib.suppress(psutil.Error):
                found |= {process.environ().get(variable, "")}
    return found


def is_alive(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def supervisor_of(job: Path) -> psutil.Process:
    """Of a job that runs: what watches over its command."""
    return psutil.Process(orjson.loads((job / jobs.PIDS).read_bytes())["supervisor"])


def command_of(job: Path) -> psutil.Process:
    """The command of a job that runs, as its supervisor has started it."""
    [command] = supervisor_of(job).children()
    return command
