"""Waiting for what other processes do: long, since a slow or busy machine is no failure."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

Found = TypeVar("Found")

LONG = 1200.0
"""Seconds that a slow and busy machine may take for what takes a minute. Less than pytest's faulthandler_timeout,
which ends the whole run, so that a test can say what it has waited for."""


def until(holds: Callable[[], Found], what: str = "it", timeout: float = 300.0) -> Found:
    """What ``holds`` returns as soon as that is true; AssertionError if it does not become so in time."""
    deadline = time.monotonic() + timeout
    while not (found := holds()):
        assert time.monotonic() < deadline, f"waited {timeout:.0f} s for {what}"
        time.sleep(0.02)
    return found


def while_there(file: Path) -> str:
    """A shell's command that ends when a file is gone."""
    return f"while [ -e {file} ]; do sleep 0.05; done"


@contextmanager
def started(argv: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process, which afterwards is gone with all that it has started, however the test ends."""
    with subprocess.Popen(argv, **options) as process:
        try:
            yield process
        finally:
            for victim in [*_descendants(process.pid), process]:
                victim.kill()


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def bystander() -> AbstractContextManager[subprocess.Popen[bytes]]:
    """A process, leader of its group, that does nothing."""
    return started(["sleep", "300"], start_new_session=True)
