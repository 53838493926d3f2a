"""What the standard library lacks for processes that must end well, or not outlive others."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from evalcore import supervise

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent, of that pid, is gone (Linux; elsewhere nothing)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before the kernel was told
        os._exit(1)


@contextlib.contextmanager
def unwound_by_sigterm(say: str | None = None) -> Iterator[None]:
    """SIGTERM raises SystemExit here, so that files are closed and children stopped, with exit code 143.

    say: a warning to log then. Nothing changes off the main thread, which alone may set handlers, or where
    SIGTERM has one already, whose owner decides.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if say:
            log.warning("stopped by SIGTERM; %s", say)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def start_supervised(
    command: Sequence[str], output: IO[bytes] | int, holding: Sequence[IO[bytes]] = ()
) -> subprocess.Popen[bytes]:
    """Start a command that does not outlive this process; returns its supervisor, which exits as the command does.

    output: of both its streams, as ``stdout`` of ``Popen``. holding: files that the supervisor keeps open, locks for
    instance, until the command and all of its process group are gone, be it that this process was killed.
    """
    return subprocess.Popen(
        [sys.executable, supervise.__file__, *command],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is ours; what we have started is stopped after that
        pass_fds=[file.fileno() for file in holding],
    )


def stop_supervised(process: subprocess.Popen[bytes]) -> None:
    """Stop what ``start_supervised`` has started, and wait until it is gone."""
    assert process.stdin
    process.stdin.close()  # which tells the supervisor
    try:
        process.wait(supervise.GRACE + 10)
    except subprocess.TimeoutExpired:
        log.warning("the supervisor (pid %d) does not end; killing it", process.pid)
        process.kill()
        process.wait()


@contextlib.contextmanager
def locked(file: Path, what: str) -> Iterator[IO[bytes]]:
    """Keep every other process, on any host, from here; a kill ends that too. what: it does, for the log.

    Yields the lock: a child that has it open keeps it, also when this process is gone.
    """
    # A file, since NFS and Lustre let no other host know of a lock on a folder. It stays: once it is removed,
    # those who wait for it and those who come later would each have a lock of their own.
    with file.open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process, which %s", what)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
