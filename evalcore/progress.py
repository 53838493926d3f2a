"""How far a stage is: a bar on a terminal, a log line every ten seconds elsewhere.

with Progress("gsm8k", total=10_552, done=3_000) as progress:
    progress.advance(samples=1, tokens=187)

gsm8k: 4,211 of 10,552 samples, 5,310 tokens/s, 0:03:41 left
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

log = logging.getLogger(__name__)

_LOG_SECONDS = 10.0

console = Console(stderr=True)
"""Shared with the command line's log, so that its lines stand above the bar and do not tear it."""


class Progress:
    """Counts samples and tokens of one label; rates and the time left are those since it was entered.

    done: samples that were there before, counted as done but not into the rates.
    """

    def __init__(self, label: str, total: int, *, done: int = 0) -> None:
        self.label = label
        self.total = total
        self.done = done
        self.tokens = 0
        self._found = done
        self._bar: Bar | None = None
        if console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rates]}"),
                console=console,
            )

    def __enter__(self) -> Self:
        self._started = self._logged = time.monotonic()
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total, completed=self.done, rates="")
        return self

    def advance(self, *, samples: int, tokens: int) -> None:
        """Count what has just been finished."""
        self.done += samples
        self.tokens += tokens
        if self._bar:
            self._bar.update(self._task, completed=self.done, rates=self.rates())
        elif time.monotonic() - self._logged >= _LOG_SECONDS:
            self._log()

    def rates(self) -> str:
        """``5,310 tokens/s, 0:03:41 left``; no tokens/s where none are counted, nothing left at the end."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        fresh = self.done - self._found
        rates = []
        if self.tokens:
            rates.append(f"{self.tokens / elapsed:,.0f} tokens/s")
        if fresh and self.done < self.total:
            left = timedelta(seconds=round(elapsed * (self.total - self.done) / fresh))
            rates.append(f"{left} left")
        return ", ".join(rates)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        else:
            self._log()

    def _log(self) -> None:
        self._logged = time.monotonic()
        rates = f", {self.rates()}" if self.rates() else ""
        log.info("%s: %s of %s samples%s", self.label, f"{self.done:,}", f"{self.total:,}", rates)
