from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog.testing
from airflow.sdk.module_loading import import_string

from evalcore import jobs
from evalcore.backends import Local, Look, Unreachable
from triggers import job as job_trigger
from triggers.job import JobTrigger
from waiting import until

# They start processes, and wait for them.
pytestmark = pytest.mark.slow


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    job = jobs.ensure(tmp_path, "a", ["sleep", "300"])
    yield job
    jobs.cancel(job)


async def fire(trigger: JobTrigger) -> object:
    async with asyncio.timeout(120):
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


def test_a_cluster_has_one_poller_for_all_folders_of_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = tmp_path / "env.toml"
    env.write_text('[here]\nexecutor = "slurm"\nremote_job_dir = "/lustre/me"\n')
    monkeypatch.setenv("EVALCORE_ENV_TOML", str(env))
    monkeypatch.setattr(job_trigger, "_pollers", {})
    assert job_trigger._poller("here", "/a/.jobs") is job_trigger._poller("here", "/b/.jobs")
    # A folder of local jobs is a backend of its own.
    assert job_trigger._poller("local", "/a/.jobs") is not job_trigger._poller("local", "/b/.jobs")


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


class Scripted(Local):
    """A backend whose looks find what they are told, the last of it again and again.

    told: what it was told; the first time it was not to be reached.
    """

    def __init__(self, root: Path, *looks: Look | Exception) -> None:
        super().__init__(root)
        self.looks = list(looks)
        self.offsets: list[dict[str, int]] = []
        self.told: list[str] = []

    def look(self, offsets: Mapping[str, int]) -> dict[str, Look]:
        self.offsets.append(dict(offsets))
        found = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(found, Exception):
            raise found
        return dict.fromkeys(offsets, found)

    def give_up(self, job: str) -> None:
        self._tell(f"give up {job}")

    def cancel(self, jobs_: Sequence[str]) -> None:
        self._tell(f"cancel {' '.join(jobs_)}")

    def _tell(self, what: str) -> None:
        self.told.append(what)
        if len(self.told) == 1:
            raise Unreachable("not now")


RUNNING = Look(jobs.Status(jobs.State.RUNNING), [], 0)
UNKNOWN = RUNNING._replace(is_unknown=True)
SUCCEEDED = Look(jobs.Status(jobs.State.SUCCEEDED), [], 0)


def scripted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *looks: Look | Exception
) -> tuple[Scripted, JobTrigger]:
    found = Scripted(tmp_path, *looks)
    found.poll_interval = 3600.0  # the trigger's own goes before it
    monkeypatch.setattr(job_trigger, "backend", lambda cluster, folder: found)
    return found, JobTrigger("/jobs/a/1", jobs_folder=str(tmp_path), poll_interval=0.01)


async def test_a_job_that_stays_unknown_is_given_up_as_soon_as_that_can_be_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found, trigger = scripted(monkeypatch, tmp_path, UNKNOWN)
    monkeypatch.setattr(job_trigger, "MAX_UNKNOWN", 0.3)
    started = time.monotonic()
    assert await fire(trigger) == {"job": "/jobs/a/1"}
    assert time.monotonic() - started >= 0.3
    assert found.told == ["give up /jobs/a/1"] * 2


async def test_a_cancellation_that_does_not_arrive_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(job_trigger, "_CANCEL_AGAIN", 0.01)
    found, trigger = scripted(monkeypatch, tmp_path, RUNNING)
    await trigger.on_kill()
    assert found.told == ["cancel /jobs/a/1"] * 2


def a_minute_passes_with_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    minutes = itertools.count()
    monkeypatch.setattr(job_trigger, "time", SimpleNamespace(monotonic=lambda: 60.0 * next(minutes)))
    monkeypatch.setattr(job_trigger, "MAX_UNKNOWN", 150.0)


async def test_only_an_unbroken_time_of_not_knowing_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    a_minute_passes_with_each_look(monkeypatch)
    monkeypatch.setattr(job_trigger, "MAX_UNREACHABLE", 150.0)
    away = [Unreachable("away")] * 2
    looks = [*[UNKNOWN] * 3, RUNNING, *[UNKNOWN] * 3, *away, RUNNING, *away, UNKNOWN, *away, UNKNOWN, RUNNING]
    found, trigger = scripted(monkeypatch, tmp_path, *looks, SUCCEEDED)
    assert await fire(trigger) == {"job": "/jobs/a/1"}
    assert found.told == []
    assert len(found.offsets) == len(looks) + 1


async def test_a_job_is_not_unknown_for_as_long_as_nobody_could_be_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What has ended meanwhile may be unknown for some seconds after it, too."""
    a_minute_passes_with_each_look(monkeypatch)
    away = [Unreachable("away")] * 5
    found, trigger = scripted(monkeypatch, tmp_path, RUNNING, *away, UNKNOWN, UNKNOWN, SUCCEEDED)
    assert await fire(trigger) == {"job": "/jobs/a/1"}
    assert found.told == []


async def test_each_line_of_the_log_is_repeated_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    looks = [RUNNING._replace(log=["one"], offset=4), RUNNING._replace(log=["two"], offset=8)]
    found, trigger = scripted(monkeypatch, tmp_path, *looks, SUCCEEDED._replace(offset=8))
    with structlog.testing.capture_logs() as logged:
        await fire(trigger)
    assert found.offsets == [{"/jobs/a/1": 0}, {"/jobs/a/1": 4}, {"/jobs/a/1": 8}]
    said = ["one", "Job /jobs/a/1: running", "two", "Job /jobs/a/1: succeeded"]
    assert [entry["event"] for entry in logged] == said


async def test_of_two_that_watch_a_job_the_one_that_came_later_decides_on_the_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found, trigger = scripted(monkeypatch, tmp_path, RUNNING._replace(offset=4))
    first = asyncio.create_task(fire(trigger))
    await asyncio.to_thread(until, lambda: {"/jobs/a/1": 4} in found.offsets, "the first to have the log")
    before = len(found.offsets)
    second = asyncio.create_task(fire(JobTrigger("/jobs/a/1", jobs_folder=str(tmp_path), poll_interval=0.01)))
    await asyncio.to_thread(
        until, lambda: {"/jobs/a/1": 0} in found.offsets[before:], "the log for the second"
    )
    found.looks = [SUCCEEDED]
    assert await first == await second == {"job": "/jobs/a/1"}


async def test_nobody_is_asked_for_whom_nobody_waits_and_who_comes_later_is_served(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found, trigger = scripted(monkeypatch, tmp_path, SUCCEEDED)
    await fire(trigger)
    await asyncio.sleep(0.3)
    asked = len(found.offsets)
    assert asked <= 2, "one under way when it was over"
    await asyncio.sleep(0.3)
    assert len(found.offsets) == asked
    await fire(trigger)
    assert found.offsets[-1] == {"/jobs/a/1": 0}


async def test_why_a_state_may_not_be_the_newest_is_said_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    troubled = RUNNING._replace(trouble="squeue: no answer", id="4711")
    _, trigger = scripted(monkeypatch, tmp_path, troubled, troubled, RUNNING, troubled, SUCCEEDED)
    with structlog.testing.capture_logs() as logged:
        await fire(trigger)
    warned = "Cannot look at job /jobs/a/1 (squeue: no answer); trying again"
    assert [entry["event"] for entry in logged] == [
        warned,
        "Job /jobs/a/1 (id 4711): running",
        warned,
        "Job /jobs/a/1: succeeded",
    ]


async def test_looks_are_as_far_apart_as_the_backend_wants_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found, _ = scripted(monkeypatch, tmp_path, RUNNING, RUNNING, SUCCEEDED)
    found.poll_interval = 0.3
    started = time.monotonic()
    await fire(JobTrigger("/jobs/a/1", jobs_folder=str(tmp_path)))
    assert time.monotonic() - started >= 0.6
