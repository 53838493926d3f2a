from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog.testing
from airflow.sdk import DAG
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)

from evalcore import jobs
from evalcore.backends import Local, Unreachable
from evalcore.errors import JobError
from hooks.backends import environment
from operators.convert import ConvertOperator
from operators.generate import GenerateOperator
from operators.grade import GradeOperator
from operators.job import JobFailed, JobLogLink, JobOperator, find_job
from operators.judge import JudgeOperator
from operators.summarize import SummarizeOperator
from operators.track import TrackOperator
from seen_processes import command_of
from task_instance import TaskInstance
from waiting import until

# They start processes, and wait for them.
pytestmark = pytest.mark.slow


@pytest.fixture
def context(tmp_path: Path) -> Iterator[dict[str, Any]]:
    yield {"ti": TaskInstance()}
    for job in jobs.running(tmp_path):
        jobs.cancel(job)


def operator(root: Path, script: str, **options: Any) -> JobOperator:
    return JobOperator(
        task_id="generate", argv=["bash", "-c", script], jobs_folder=str(root), **{"patience": 0, **options}
    )


def waiting_for(file: Path) -> str:
    return f"while [ ! -e {file} ]; do sleep 0.02; done"


def deferred(task: JobOperator, context: Any) -> Path:
    with pytest.raises(TaskDeferred) as stop:
        task.execute(context)
    assert stop.value.method_name == "resume"
    return Path(stop.value.trigger.job)


def ended(job: Path) -> None:
    until(lambda: jobs.status(job).state.is_over, f"the end of {job}")


def newest(context: Any) -> Path:
    """The newest attempt of the job that the task noted."""
    noted = Path(context["ti"].xcoms["job"].removeprefix("local:"))
    job = jobs.latest(noted.parent, noted.name)
    assert job is not None
    return job


def test_a_short_job_needs_no_deferral(tmp_path: Path, context: Any) -> None:
    task = operator(tmp_path, "echo hi", returns=[1, 2], patience=120)
    assert task.execute(context) == [1, 2]
    assert newest(context).parent.parent == tmp_path


def test_a_long_one_is_waited_for_deferred(tmp_path: Path, context: Any) -> None:
    task = operator(tmp_path, waiting_for(tmp_path / "go"), returns="done")
    job = deferred(task, context)
    # Airflow can call it too early, after a triggerer's restart for instance.
    with pytest.raises(TaskDeferred) as again:
        task.resume(context, {"job": str(job)})
    assert again.value.trigger.job == str(job)
    assert again.value.trigger.jobs_folder == str(tmp_path)
    (tmp_path / "go").touch()
    ended(job)
    assert task.resume(context, {"job": str(job)}) == "done"
    assert (job / jobs.CONSUMED).exists()


def test_the_trigger_is_silent_until_airflow_noticed_the_deferral(tmp_path: Path, context: Any) -> None:
    with pytest.raises(TaskDeferred) as stop:
        operator(tmp_path, "sleep 300", poll_interval=7).execute(context)
    assert (stop.value.trigger.delay, stop.value.trigger.poll_interval) == (2, 7)


def test_a_failure_is_the_commands_own_last_error(tmp_path: Path, context: Any) -> None:
    task = operator(
        tmp_path, "echo evalcore: error: gsm8k has no row 7; exit 1", subject="gsm8k", patience=120
    )
    with pytest.raises(JobFailed, match=r"gsm8k: gsm8k has no row 7 \(log: .*log.txt\)"):
        task.execute(context)
    assert context["ti"].xcoms["failure"] == "gsm8k has no row 7"


def test_the_end_of_the_jobs_log_is_in_the_tasks(tmp_path: Path, context: Any) -> None:
    with structlog.testing.capture_logs() as logged:
        operator(tmp_path, "seq 1 100", patience=120).execute(context)
    said = [entry["event"] for entry in logged]
    assert said[-20:] == [str(n) for n in range(81, 101)]
    assert "80" not in said


def test_a_failure_is_not_tried_again_by_airflow_but_by_whoever_clears_it(
    tmp_path: Path, context: Any
) -> None:
    task = operator(tmp_path, "exit 1", patience=120)
    with pytest.raises(JobFailed) as failure:
        task.execute(context)
    assert task.retry_policy is not None
    assert task.retry_policy.evaluate(failure.value, 1, 3).action.value == "fail"
    assert task.retry_policy.evaluate(OSError(), 1, 3).action.value == "default"
    with pytest.raises(JobFailed):
        task.execute(context)
    assert newest(context).name == "2"


def test_a_new_try_finds_the_job_of_one_whose_worker_died(tmp_path: Path, context: Any) -> None:
    job = deferred(operator(tmp_path, "sleep 300"), context)
    assert deferred(operator(tmp_path, "sleep 300"), context) == job


def test_a_new_try_takes_a_result_nobody_took(tmp_path: Path, context: Any) -> None:
    script = f"{waiting_for(tmp_path / 'go')}; echo x >> {tmp_path}/starts"
    job = deferred(operator(tmp_path, script), context)
    (tmp_path / "go").touch()
    ended(job)
    operator(tmp_path, script, patience=120).execute(context)
    assert (tmp_path / "starts").read_text() == "x\n"


def test_a_killed_job_is_tried_again_three_times(tmp_path: Path, context: Any) -> None:
    task = operator(tmp_path, "sleep 300")
    job = deferred(task, context)
    for attempt in (2, 3):
        kill_command(job)
        with pytest.raises(TaskDeferred) as stop:
            task.resume(context, {"job": str(job)})
        job = Path(stop.value.trigger.job)
        assert job.name == str(attempt)
    kill_command(job)
    with pytest.raises(AirflowFailException, match="killed by SIGKILL, 3 times in a row"):
        task.resume(context, {"job": str(job)})


def kill_command(job: Path) -> None:
    command_of(job).kill()
    ended(job)


def test_a_job_cancelled_by_clearing_the_task_starts_anew(tmp_path: Path, context: Any) -> None:
    job = deferred(operator(tmp_path, "sleep 300"), context)
    jobs.cancel(job)
    assert deferred(operator(tmp_path, "sleep 300"), context).name == "2"


def stopped(task: JobOperator, context: Any) -> Path:
    with pytest.raises(AirflowException, match="cancelled, since its task was stopped"):
        task.execute(context)
    job = newest(context)
    assert jobs.status(job).state is jobs.State.CANCELLED
    return job


def test_stopping_the_task_while_it_waits_itself_cancels_the_job(tmp_path: Path, context: Any) -> None:
    task = operator(tmp_path, "sleep 300", patience=120)

    def stop() -> None:
        until(lambda: jobs.running(tmp_path))
        task.on_kill()

    stopper = threading.Thread(target=stop)
    stopper.start()
    assert stopped(task, context).name == "1"
    stopper.join()


def test_stopping_the_task_while_it_starts_its_job_cancels_that(tmp_path: Path, context: Any) -> None:
    task = operator(tmp_path, "sleep 300", patience=120)
    task.on_kill()
    stopped(task, context)


@pytest.mark.parametrize("mark", ["failed", "success", "skipped"])
def test_a_task_marked_before_its_job_started_does_not_leave_it_running(
    tmp_path: Path, context: Any, mark: str
) -> None:
    context["ti"].state = mark
    stopped(operator(tmp_path, "sleep 300"), context)


def test_a_job_stopped_for_a_marked_task_does_not_run_again(tmp_path: Path, context: Any) -> None:
    task = operator(tmp_path, "sleep 300")
    job = deferred(task, context)
    jobs.cancel(job)
    context["ti"].state = "failed"
    with pytest.raises(AirflowException, match="cancelled, since its task was stopped"):
        task.resume(context, {"job": str(job)})
    assert jobs.running(tmp_path) == []


class Preparing(Local):
    """Needs a file, which a job of its own makes (or fails to)."""

    def __init__(self, root: Path, script: str) -> None:
        super().__init__(root)
        self.script, self.file = script, root / "image"
        self.anew: list[str] = []

    def prepare(self, anew: str = "") -> str | None:
        self.anew.append(anew)
        return None if self.file.exists() else self.ensure("squash", ["bash", "-c", self.script], os.environ)


def test_a_job_waits_for_the_one_it_needs(
    tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_at = Preparing(tmp_path, f"{waiting_for(tmp_path / 'go')}; touch {tmp_path / 'image'}")
    monkeypatch.setattr("operators.job.backend", lambda *_: runs_at)
    task = operator(tmp_path, f"test -e {runs_at.file}", patience=120, returns="done")
    with pytest.raises(TaskDeferred) as stop:
        task.execute(context)
    first = Path(stop.value.trigger.job)
    assert (first.parent.name, stop.value.method_name) == ("squash", "resume_prepared")
    assert [job.parent.name for job in jobs.running(tmp_path)] == ["squash"]
    (tmp_path / "go").touch()
    ended(first)
    assert task.resume_prepared(context, {"job": str(first)}) == "done"


@pytest.mark.parametrize(
    ("options", "anew"),
    [({}, ""), ({"force_squash": True}, "evaluate/manual__2026-11-21T00:00:00+00:00")],
)
def test_what_it_needs_is_made_anew_once_for_a_dag_run(
    tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], anew: str
) -> None:
    runs_at = Preparing(tmp_path, f"touch {tmp_path / 'image'}")
    monkeypatch.setattr("operators.job.backend", lambda *_: runs_at)
    task = operator(tmp_path, "true", patience=120, **options)
    with pytest.raises(TaskDeferred) as stop:
        task.execute(context)
    ended(Path(stop.value.trigger.job))
    task.resume_prepared(context, {"job": stop.value.trigger.job})
    context["ti"].task_id = "grade"
    task.execute(context)
    assert runs_at.anew == [anew] * 3, "the same text for each look and each task"


def test_a_job_whose_needs_fail_does_not_start(
    tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_at = Preparing(tmp_path, "echo evalcore: error: no such image; exit 1")
    monkeypatch.setattr("operators.job.backend", lambda *_: runs_at)
    task = operator(tmp_path, "true")
    with pytest.raises(TaskDeferred) as stop:
        task.execute(context)
    ended(Path(stop.value.trigger.job))
    with pytest.raises(JobFailed, match="no such image"):
        task.resume_prepared(context, {"job": stop.value.trigger.job})
    assert [folder.name for folder in tmp_path.iterdir()] == ["squash"]
    assert runs_at.prepare() == stop.value.trigger.job.replace("/1", "/2"), "whoever clears it tries again"


def test_without_a_command_the_task_is_skipped(tmp_path: Path, context: Any) -> None:
    task = JobOperator(task_id="judge", argv=[], jobs_folder=str(tmp_path), subject="gsm8k")
    with pytest.raises(AirflowSkipException, match="gsm8k: nothing to do"):
        task.execute(context)


def test_needs_that_were_stopped_are_made_again(
    tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_at = Preparing(tmp_path, "sleep 300")
    monkeypatch.setattr("operators.job.backend", lambda *_: runs_at)
    task = operator(tmp_path, "true")
    with pytest.raises(TaskDeferred) as stop:
        task.execute(context)
    first = stop.value.trigger.job
    # Airflow can call it too early, after a triggerer's restart for instance.
    with pytest.raises(TaskDeferred) as again:
        task.resume_prepared(context, {"job": first})
    assert (again.value.trigger.job, again.value.method_name) == (first, "resume_prepared")
    jobs.cancel(Path(first))
    with pytest.raises(TaskDeferred) as anew:
        task.resume_prepared(context, {"job": first})
    assert anew.value.trigger.job == first.replace("/1", "/2")
    assert anew.value.method_name == "resume_prepared"


class Away(Local):
    """A backend that is not there at first; what it fetches it only writes down."""

    def __init__(self, root: Path, times: int) -> None:
        super().__init__(root)
        self.times = times
        self.fetched: list[tuple[str, Path, bool]] = []

    def ensure(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> str:
        self.times -= 1
        if self.times >= 0:
            raise Unreachable("login: timed out")
        return super().ensure(name, argv, env)

    def fetch(self, folder: str, into: Path) -> None:
        self.fetched.append((folder, into, bool(list(self.root.glob("*/*/consumed")))))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the operator waited each time, without having to wait."""
    found: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(found), sleep=found.append)
    monkeypatch.setattr("operators.job.time", clock)
    return found


def test_a_backend_that_is_away_is_asked_again(
    tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    runs_at = Away(tmp_path, times=7)
    monkeypatch.setattr("operators.job.backend", lambda *_: runs_at)
    deferred(operator(tmp_path, "sleep 300"), context)
    assert pauses == [2, 4, 8, 16, 32, 60, 60]


def test_one_that_stays_away_is_left_to_airflows_retry(
    tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    runs_at = Away(tmp_path, times=1000)
    monkeypatch.setattr("operators.job.backend", lambda *_: runs_at)
    with pytest.raises(AirflowException, match="cluster local: login: timed out") as error:
        operator(tmp_path, "true").execute(context)
    assert not isinstance(error.value, AirflowFailException)
    assert 500 < sum(pauses) <= 600
    # Nobody waits for it in a task that is being stopped.
    pauses.clear()
    task = operator(tmp_path, "true")
    task.on_kill()
    with pytest.raises(AirflowException, match="login: timed out"):
        task.execute(context)
    assert pauses == []


def test_results_are_brought_of_what_succeeded_before_it_counts_as_reported(
    tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_at = Away(tmp_path, times=0)
    monkeypatch.setattr("operators.job.backend", lambda *_: runs_at)
    brings = {"brings": ["/there/gsm8k", "/here/gsm8k"], "patience": 120}
    with pytest.raises(JobFailed):
        operator(tmp_path, "exit 1", **brings).execute(context)
    assert runs_at.fetched == []
    shutil.rmtree(newest(context))
    operator(tmp_path, "true", **brings).execute(context)
    assert runs_at.fetched == [("/there/gsm8k", Path("/here/gsm8k"), False)]
    assert (newest(context) / jobs.CONSUMED).exists()


def test_a_folder_that_cannot_be_written_fails_at_once(tmp_path: Path, context: Any) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AirflowFailException, match="cannot start in"):
        operator(tmp_path / "file", "true").execute(context)
    assert "cannot start in" in context["ti"].xcoms["failure"]


def test_a_job_inherits_keys_but_nothing_of_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k")
    monkeypatch.setenv("AIRFLOW_CONN_SLURM", "ssh://u:p@h")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "sqlite://")
    monkeypatch.setenv("__AIRFLOW_SUPERVISOR_FD", "3")
    env = environment("local")
    assert env["WANDB_API_KEY"] == "k"
    assert not [name for name in env if "AIRFLOW_" in name]


def test_a_job_gets_what_its_profile_says(
    tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles = tmp_path / "env.toml"
    profiles.write_text('[local]\nenv = {PLAIN = "seen", KEY = "${oc.env:MINE}"}\n')
    monkeypatch.setenv("EVALCORE_ENV_TOML", str(profiles))
    monkeypatch.setenv("MINE", "mine")
    operator(tmp_path, "echo $PLAIN $KEY", patience=120).execute(context)
    assert (newest(context) / jobs.LOG).read_text() == "seen mine\n"


def test_the_link_is_below_the_servers_own_path(
    context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.com/airflow/")
    link = JobLogLink().get_link(operator(tmp_path, "true"), ti_key=TaskInstance())
    assert link.startswith("/airflow/evalcore/jobs/evaluate/")


def test_the_link_is_a_path_with_every_part_quoted(context: Any, tmp_path: Path) -> None:
    ti = TaskInstance(task_id="score.grade", map_index=3)
    link = JobLogLink().get_link(operator(tmp_path, "true"), ti_key=ti)
    assert link == "/evalcore/jobs/evaluate/manual__2026-11-21T00%3A00%3A00%2B00%3A00/score.grade/3/log"


KEY = ("evaluate", "r", "score.grade", 3)


@pytest.fixture
def noted(tmp_path: Path) -> str:
    """The folder of a job of the task KEY, which ended."""
    ended(jobs.ensure(tmp_path / ".jobs", jobs.job_name(*KEY), ["echo", "hi"]))
    return str(tmp_path / ".jobs" / jobs.job_name(*KEY))


def found_as(noted: object) -> str | None:
    found = find_job(*KEY, noted)
    return found[1] if found else None


def test_a_job_is_found_by_what_its_task_noted(noted: str) -> None:
    assert found_as(f"local:{noted}") == f"{noted}/1"
    jobs.consume(Path(noted) / "1")
    ended(jobs.ensure(Path(noted).parent, jobs.job_name(*KEY), ["true"]))
    assert found_as(f"local:{noted}") == f"{noted}/2"


def test_a_results_folder_may_be_a_link(noted: str, tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to(tmp_path)
    found = found_as(f"local:{tmp_path}/results/.jobs/{Path(noted).name}")
    assert found == f"{noted}/1"


@pytest.mark.parametrize(
    "elsewhere",
    [
        lambda noted: f"local:{noted}/1",
        lambda noted: f"local:{Path(noted).with_name('other')}",
        lambda noted: f"local:{noted}/..",
        lambda noted: f"local:/etc/{Path(noted).name}",
        lambda noted: noted,
        lambda noted: [f"local:{noted}"],
        lambda noted: None,
    ],
)
def test_what_is_not_this_tasks_job_is_not_found(noted: str, elsewhere: Callable[[str], object]) -> None:
    assert found_as(f"local:{noted}")
    assert found_as(elsewhere(noted)) is None


def test_the_job_of_another_task_is_not_found(noted: str) -> None:
    assert find_job("evaluate", "r", "score.grade", 4, f"local:{noted}") is None


def test_a_log_that_is_a_link_to_another_file_is_not_shown(noted: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    found = find_job(*KEY, f"local:{noted}")
    assert found is not None
    runs_at, job = found
    assert list(runs_at.log(job)) == ["hi\n"]
    with (Path(job) / jobs.LOG).open("a") as stream:
        stream.writelines(f"{n:09}\n" for n in range(20_000))
    assert "".join(runs_at.log(job)).splitlines() == ["hi", *(f"{n:09}" for n in range(20_000))]
    log = Path(job) / jobs.LOG
    log.unlink()
    log.symlink_to(tmp_path / "secret")
    with pytest.raises(JobError, match="is a link"):
        runs_at.log(job)


@pytest.mark.parametrize(
    "kind",
    [ConvertOperator, GenerateOperator, GradeOperator, JudgeOperator, SummarizeOperator, TrackOperator],
)
def test_the_operator_of_each_stage_can_be_mapped_and_keeps_the_policy(kind: type[JobOperator]) -> None:
    with DAG("d", schedule=None):
        mapped = kind.partial(task_id="stage", jobs_folder="j").expand(argv=[["true"]])
    task = mapped.unmap({"argv": ["true"]})
    assert task.argv == ["true"]
    assert task.retry_policy is not None
    assert task.map_index_template == "{{ task.subject }}"
    assert [link.name for link in task.operator_extra_links] == ["Job log"]
