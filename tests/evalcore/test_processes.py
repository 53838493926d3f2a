"""Processes that are started to end with their starter: apart from its terminal, and whatever they do."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from evalcore import supervise
from evalcore.processes import start_supervised, stop_supervised, unwound_by_sigterm
from waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture
def supervised() -> Iterator[subprocess.Popen[bytes]]:
    """The supervisor of a command that runs."""
    with start_supervised(["sh", "-c", "echo up; exec sleep 300"], subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        left = psutil.Process(process.pid).children(recursive=True)
        try:
            yield process
        finally:
            process.kill()
            for it in left:
                with suppress(psutil.NoSuchProcess):
                    it.kill()


def test_ctrl_c_is_its_starters_alone(supervised: subprocess.Popen[bytes]) -> None:
    # A terminal sends it to the whole group in its foreground: a supervisor that dies of it ends nothing in order.
    assert os.getpgid(supervised.pid) != os.getpgid(0)
    stop_supervised(supervised)
    assert supervised.returncode == 128 + signal.SIGTERM


def test_a_command_that_asks_something_is_answered_by_nobody() -> None:
    # And not by the pipe that tells its supervisor to stop, on which it would wait for ever.
    with start_supervised(["sh", "-c", "cat"], subprocess.DEVNULL) as process:
        try:
            assert process.wait(60) == 0
        finally:
            stop_supervised(process)


def test_sigterm_is_afterwards_what_it_was() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with unwound_by_sigterm():
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_supervisor_that_does_not_end_is_killed(
    supervised: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervise, "GRACE", -9.9)
    supervised.send_signal(signal.SIGSTOP)
    until(lambda: psutil.Process(supervised.pid).status() == psutil.STATUS_STOPPED, "its stop")
    stop_supervised(supervised)
    assert supervised.returncode == -signal.SIGKILL
    assert "does not end; killing it" in caplog.text
