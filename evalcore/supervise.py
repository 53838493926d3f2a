"""Run a command so that it never outlives whoever started it. Standard library only; run as a script.

``python supervise.py COMMAND…`` starts the command in a process group of its own and stops the whole group
when standard input ends: the starter holds the other end of that pipe, and the kernel closes it however the
starter dies. SIGTERM stops it too. Exits as the command did (128 + signal if by one), after killing what the
command left behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

GRACE = 10.0
"""Seconds a command has to end after SIGTERM, before SIGKILL."""


def main() -> None:
    stop = threading.Event()
    # Before there is a command, which would outlive a supervisor that SIGTERM kills.
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # A server's workers (vLLM has two for each model) are in its group; they must go too.
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_read_to_the_end, args=(stop,), daemon=True).start()
    threading.Thread(target=_stop, args=(stop, command.pid), daemon=True).start()
    # Looked at, not reaped yet: its pid still names the group and can be nobody else's.
    os.waitid(os.P_PID, command.pid, os.WEXITED | os.WNOWAIT)
    _signal_group(command.pid, signal.SIGKILL)
    code = command.wait()
    sys.exit(code if code >= 0 else 128 - code)


def _read_to_the_end(stop: threading.Event) -> None:
    while os.read(0, 1024):
        pass
    stop.set()


def _stop(stop: threading.Event, group: int) -> None:
    stop.wait()
    _signal_group(group, signal.SIGTERM)
    time.sleep(GRACE)
    _signal_group(group, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    main()
