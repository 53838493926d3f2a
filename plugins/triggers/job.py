"""The trigger that waits for a job, and stops it when a user clears or fails the task.

Its event is ``{"job": "/results/.jobs/evaluate_checkpoint-generate-…/1"}``: the job says for itself how it
ended, and goes on saying so if the event is lost. All triggers of one cluster share one look at a time: the
number of commands that a cluster is asked does not depend on the number of jobs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from evalcore.backends import Backend, Look, Unreachable
from evalcore.slurm.cluster import Cluster
from hooks.backends import backend

MAX_UNREACHABLE = 24 * 3600.0
"""Seconds for which a backend may be away before the task is told."""

MAX_UNKNOWN = 600.0
"""Seconds for which a scheduler may not know a job before that is lost."""

MAX_LINES = 10
"""Lines of the job's log that one poll repeats in the task's log; the job's own log has them all."""

_CANCEL_AGAIN = 2.0


class JobTrigger(BaseTrigger):
    """Fires once, when the job is over.

    :param job: the job, as its backend knows it.
    :param cluster: name of the cluster profile.
    :param jobs_folder: where local jobs lie.
    :param delay: seconds until the first look at it.
    :param poll_interval: seconds between two looks; default: the backend's.
    """

    def __init__(
        self,
        job: str,
        *,
        cluster: str = "local",
        jobs_folder: str = "",
        delay: float = 0.0,
        poll_interval: float | None = None,
    ) -> None:
        super().__init__()
        self.job = job
        self.cluster = cluster
        self.jobs_folder = jobs_folder
        self.delay = delay
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "triggers.job.JobTrigger", {
            "job": self.job,
            "cluster": self.cluster,
            "jobs_folder": self.jobs_folder,
            "delay": self.delay,
            "poll_interval": self.poll_interval,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await asyncio.sleep(self.delay)
        poller = _poller(self.cluster, self.jobs_folder)
        answered = time.monotonic()
        unknown_since: float | None = None
        state = trouble = ""
        async for look in poller.watch(self.job, self.poll_interval):
            now = time.monotonic()
            if isinstance(look, Exception):
                # A look that failed says nothing of the job. One that fails for a day does.
                if now - answered > MAX_UNREACHABLE:
                    raise look
                trouble = self._say(str(look), trouble)
                unknown_since = None  # nor that a scheduler has lost it
                continue
            answered = now
            trouble = self._say(look.trouble, trouble)
            self._repeat_log(look)
            if str(look.status) != state:
                state = str(look.status)
                self.log.info("Job %s%s: %s", self.job, look.id and f" (id {look.id})", state)
            if not look.is_unknown:
                unknown_since = None
            elif unknown_since is None:
                unknown_since = now  # the last look that found it may have been long before
            elif now - unknown_since > MAX_UNKNOWN:
                try:
                    await asyncio.to_thread(poller.backend.give_up, self.job)
                    break
                except Unreachable as error:  # at the next look, then
                    trouble = self._say(str(error), trouble)
            if look.status.state.is_over:
                break
        yield TriggerEvent({"job": self.job})

    async def on_kill(self) -> None:
        # Not on a restart of the triggerer: then the next one goes on watching the same job.
        self.log.info("Task was cleared or marked: cancelling job %s", self.job)
        runs_at = _poller(self.cluster, self.jobs_folder).backend
        while True:  # Airflow ends it, after [triggerer] on_kill_timeout
            try:
                return await asyncio.to_thread(runs_at.cancel, [self.job])
            except Unreachable as error:
                self.log.warning("Cannot cancel job %s (%s); trying again", self.job, error)
            await asyncio.sleep(_CANCEL_AGAIN)

    def _say(self, trouble: str, said: str) -> str:
        """Log why looks fail, once for each reason; return what was said."""
        if trouble and trouble != said:
            self.log.warning("Cannot look at job %s (%s); trying again", self.job, trouble)
        return trouble

    def _repeat_log(self, look: Look) -> None:
        if (skipped := len(look.log) - MAX_LINES) > 0:
            self.log.info("(%d lines more in the job's log)", skipped)
        for line in look.log[-MAX_LINES:]:
            self.log.info("%s", line)


@dataclass(eq=False)
class _Watch:
    """A trigger that waits. offset: how much of the job's log it has."""

    job: str
    interval: float
    offset: int = 0
    looks: asyncio.Queue[Look | Exception] = field(default_factory=asyncio.Queue)


class _Poller:
    """Looks at the jobs of one backend, all at once, for as long as somebody watches one."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._watches: set[_Watch] = set()
        self._task: asyncio.Task[None] | None = None

    async def watch(self, job: str, interval: float | None) -> AsyncIterator[Look | Exception]:
        """What each look finds, or why it failed; the first one soon."""
        watch = _Watch(job, self.backend.poll_interval if interval is None else interval)
        self._watches.add(watch)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll())
        try:
            while True:
                yield await watch.looks.get()
        finally:
            self._watches.discard(watch)

    async def _poll(self) -> None:
        while self._watches:
            watches = list(self._watches)
            # Two may watch one job, while a triggerer is replaced: who has less of the log decides.
            offsets: dict[str, int] = {}
            for watch in watches:
                offsets[watch.job] = min(watch.offset, offsets.get(watch.job, watch.offset))
            try:
                # Over a network: never in the event loop.
                found = await asyncio.to_thread(self.backend.look, offsets)
            except Exception as error:  # whatever it is, who waits has to hear of it
                for watch in watches:
                    watch.looks.put_nowait(error)
            else:
                for watch in watches:
                    watch.offset = found[watch.job].offset
                    watch.looks.put_nowait(found[watch.job])
            await asyncio.sleep(min((watch.interval for watch in self._watches), default=0.0))


_pollers: dict[tuple[str, str], _Poller] = {}


def _poller(cluster: str, jobs_folder: str) -> _Poller:
    """The one poller of a cluster in this process, whatever folder of results its jobs are for."""
    key = (cluster, jobs_folder)
    if key not in _pollers:
        runs_at = backend(cluster, jobs_folder)
        shared = (cluster, "") if isinstance(runs_at, Cluster) else key
        _pollers[key] = _pollers.setdefault(shared, _Poller(runs_at))
    return _pollers[key]
