"""What the standard library lacks for processes that must end well, or not outlive others."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

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


@contextlib.contextmanager
def locked(file: Path, what: str) -> Iterator[None]:
    """Keep every other process, on any host, from here; a kill ends that too. what: it does, for the log."""
    # A file, since NFS and Lustre let no other host know of a lock on a folder. It stays: once it is removed,
    # those who wait for it and those who come later would each have a lock of their own.
    with file.open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process, which %s", what)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
