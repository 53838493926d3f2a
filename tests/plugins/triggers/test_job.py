from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import structlog.testing
from airflow.sdk.module_loading import import_string

from evalcore import jobs
from evalcore.backends import Local, Look, Unreachable
from triggers import job as job_trigger
from triggers.job import JobTrigger
from waiting import until


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    job = jobs.ensure(tmp_path, "a", ["sleep", "300"])
    yield job
    jobs.cancel(job)


async def fire(trigger: JobTrigger) -> object:
    return (await anext(aiter(trigger.run()))).payload


def test_it_survives_serialisation() -> None:
    trigger = JobTrigger(
        "/results/.jobs/a/1", cluster="cluster", jobs_folder="/results/.jobs", delay=6, poll_interval=0.5
    )
    path, arguments = trigger.serialize()
    again = import_string(path)(**json.loads(json.dumps(arguments)))
    assert type(again) is JobTrigger
    assert again.serialize() == trigger.serialize()
    assert set(arguments.values()) == {"/results/.jobs/a/1", "cluster", "/results/.jobs", 6, 0.5}


async def test_it_fires_when_the_job_is_over(tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = jobs.ensure(tmp_path, "a", ["bash", "-c", f"while [ ! -e {go} ]; do sleep 0.02; done"])
    task = asyncio.create_task(fire(JobTrigger(str(job), poll_interval=0.02)))
    await asyncio.sleep(0.1)
    assert not task.done()
    go.touch()
    assert await task == {"job": str(job)}
    assert jobs.status(job).state is jobs.State.SUCCEEDED


async def test_it_does_not_fire_before_its_delay(tmp_path: Path) -> None:
    job = jobs.ensure(tmp_path, "a", ["true"])
    started = time.monotonic()
    await fire(JobTrigger(str(job), delay=0.5, poll_interval=0.05))
    assert time.monotonic() - started >= 0.5


async def test_looks_that_fail_say_nothing_of_the_job(running: Path) -> None:
    away = running.with_name("away")
    running.rename(away)
    with structlog.testing.capture_logs() as logged:
        task = asyncio.create_task(fire(JobTrigger(str(running), poll_interval=0.02)))
        await asyncio.to_thread(until, lambda: logged, "a look that fails")
        await asyncio.sleep(0.2)
    assert not task.done()
    # Once for each reason, however often looks fail.
    assert [entry["event"].partition(" (")[0] for entry in logged] == [f"Cannot look at job {running}"]
    away.rename(running)
    await asyncio.to_thread(jobs.cancel, running)
    assert await task == {"job": str(running)}


async def test_a_job_that_stays_out_of_sight_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_trigger, "MAX_UNREACHABLE", 0.1)
    with pytest.raises(Unreachable, match="no such job"):
        await fire(JobTrigger(str(tmp_path / "gone"), poll_interval=0.01))


async def test_the_end_of_a_triggerer_does_not_end_the_job(running: Path) -> None:
    task = asyncio.create_task(fire(JobTrigger(str(running), poll_interval=0.02)))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert jobs.status(running).state is jobs.State.RUNNING


async def test_a_user_who_clears_the_task_ends_the_job(running: Path) -> None:
    await JobTrigger(str(running)).on_kill()
    assert jobs.status(running).state is jobs.State.CANCELLED


async def test_a_slow_file_system_does_not_stop_the_event_loop(
    running: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_seen = threading.Event()

    def slow(folder: Path) -> jobs.Status:
        # Only if the loop still turns does anybody say so.
        assert is_seen.wait(60)
        return jobs.Status(jobs.State.SUCCEEDED)

    monkeypatch.setattr(jobs, "status", slow)
    task = asyncio.create_task(fire(JobTrigger(str(running))))
    await asyncio.sleep(0.1)
    is_seen.set()
    assert await task == {"job": str(running)}


async def test_it_repeats_the_last_new_lines_of_the_log(tmp_path: Path) -> None:
    job = jobs.ensure(tmp_path, "a", ["seq", "1", "100"])
    until(lambda: jobs.status(job).state.is_over)
    with structlog.testing.capture_logs() as logged:
        await fire(JobTrigger(str(job)))
    *lines, ended = [entry["event"] for entry in logged]
    last = [str(n) for n in range(101 - job_trigger.MAX_LINES, 101)]
    assert lines == ["(90 lines more in the job's log)", *last]
    assert ended == f"Job {job}: succeeded"


class Failing(Local):
    """A backend whose first look goes wrong in a way that nobody has thought of."""

    looks = 0

    def look(self, offsets: Mapping[str, int]) -> dict[str, Look]:
        self.looks += 1
        if self.looks == 1:
            raise ZeroDivisionError("unthought of")
        return super().look(offsets)


async def test_all_jobs_of_a_backend_are_looked_at_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Failing(tmp_path)
    monkeypatch.setattr(job_trigger, "backend", lambda cluster, folder: found)
    ended = [jobs.ensure(tmp_path, f"job-{i}", ["true"]) for i in range(5)]
    for job in ended:
        until(lambda job=job: jobs.status(job).state.is_over)
    triggers = [JobTrigger(str(job), jobs_folder=str(tmp_path), poll_interval=0.02) for job in ended]
    events = await asyncio.gather(*map(fire, triggers))
    assert events == [{"job": str(job)} for job in ended]
    assert found.looks == 2, "the one that failed, and one for all"
