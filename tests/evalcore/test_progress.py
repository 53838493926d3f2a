from __future__ import annotations

import io
import logging
import sys

import pytest

from evalcore import progress as progress_module
from evalcore.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def test_plain_lines_every_ten_seconds_and_at_the_end(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Progress("gsm8k", total=2000, done=1000) as progress:
        for _ in range(25):
            clock.now += 1
            progress.advance(samples=20, tokens=2000)
        clock.now += 25
        progress.advance(samples=500, tokens=50_000)

    # 1,000 that were there before do not make it look faster.
    assert caplog.messages == [
        "gsm8k: 1,200 of 2,000 samples, 2,000 tokens/s, 0:00:40 left",
        "gsm8k: 1,400 of 2,000 samples, 2,000 tokens/s, 0:00:30 left",
        "gsm8k: 2,000 of 2,000 samples, 2,000 tokens/s",
        "gsm8k: 2,000 of 2,000 samples, 2,000 tokens/s",
    ]


def test_nothing_done(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Progress("gsm8k", total=5):
        pass

    assert caplog.messages == ["gsm8k: 0 of 5 samples"]


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    caplog.set_level(logging.INFO)
    with Progress("gsm8k", total=10, done=4) as progress:
        progress.advance(samples=3, tokens=30)

    shown = terminal.getvalue()
    assert "gsm8k" in shown
    assert "7/10" in shown
    assert "tokens/s" in shown
    assert caplog.messages == []
