"""The trigger that waits for a job, and stops it when a user clears or fails the task.

Its event is ``{"folder": "/results/.jobs/evaluate_checkpoint-generate-…/1"}``: the job says for itself
how it ended, and goes on saying so if the event is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from evalcore import jobs
from evalcore.errors import JobError

MAX_FAILED_POLLS = 150
"""Polls in a row that may fail, five minutes at the usual interval, before the task is told."""

MAX_LINES = 10
"""Lines of the job's log that one poll repeats in the task's log; the job's own log has them all."""


class JobTrigger(BaseTrigger):
    """Fires once, when the job is over.

    :param folder: folder of the job's attempt.
    :param delay: seconds until the first look at it.
    :param poll_interval: seconds between two looks at it.
    """

    def __init__(self, folder: str, *, delay: float = 0.0, poll_interval: float = 2.0) -> None:
        super().__init__()
        self.folder = folder
        self.delay = delay
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "triggers.job.JobTrigger", {
            "folder": self.folder,
            "delay": self.delay,
            "poll_interval": self.poll_interval,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        folder, offset, failures = Path(self.folder), 0, 0
        await asyncio.sleep(self.delay)
        while True:
            try:
                # Files may lie on a network share: never look at them in the event loop.
                status = await asyncio.to_thread(jobs.status, folder)
                offset = await self._repeat_log(folder, offset)
            except (OSError, JobError) as error:
                # A look that failed says nothing of the job. A folder that stays away does.
                failures += 1
                if failures > MAX_FAILED_POLLS:
                    raise
                self.log.warning("Cannot look at job %s (%s); trying again", folder, error)
            else:
                failures = 0
                if status.state.is_over:
                    yield TriggerEvent({"folder": self.folder})
                    return
            await asyncio.sleep(self.poll_interval)

    async def on_kill(self) -> None:
        # Not on a restart of the triggerer: then the next one goes on watching the same job.
        self.log.info("Task was cleared or marked: cancelling job %s", self.folder)
        await asyncio.to_thread(jobs.cancel, Path(self.folder))

    async def _repeat_log(self, folder: Path, offset: int) -> int:
        lines, offset = await asyncio.to_thread(jobs.read_log, folder, offset)
        if (skipped := len(lines) - MAX_LINES) > 0:
            self.log.info("(%d lines more in %s)", skipped, folder / jobs.LOG)
        for line in lines[-MAX_LINES:]:
            self.log.info("%s", line)
        return offset
