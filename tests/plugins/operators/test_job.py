from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)

from evalcore import jobs
from operators.convert import ConvertOperator
from operators.generate import GenerateOperator
from operators.grade import GradeOperator
from operators.job import JobFailed, JobLogLink, JobOperator, _environment
from operators.judge import JudgeOperator
from operators.summarize import SummarizeOperator
from operators.track import TrackOperator


class TaskInstance(NamedTuple):
    """What of a task instance the operator uses."""

    xcoms: dict[str, Any]
    dag_id: str = "evaluate"
    run_id: str = "manual__2026-11-21T00:00:00+00:00"
    task_id: str = "generate"
    map_index: int = -1

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value


@pytest.fixture
def context(tmp_path: Path) -> Iterator[dict[str, Any]]:
    yield {"ti": TaskInstance({})}
    for lock in tmp_path.glob("*/*/lock"):
        jobs.cancel(lock.parent)


def operator(root: Path, script: str, **options: Any) -> JobOperator:
    return JobOperator(
        task_id="generate", argv=["bash", "-c", script], jobs_folder=str(root), **{"patience": 0, **options}
    )


def deferred(task: JobOperator, context: Any) -> Path:
    with pytest.raises(TaskDeferred) as stop:
        task.execute(context)
    assert stop.value.method_name == "resume"
    return Path(stop.value.trigger.folder)


def ended(job: Path) -> None:
    while not jobs.status(job).state.is_over:
        time.sleep(0.02)


def test_a_short_job_needs_no_deferral(tmp_path: Path, context: Any) -> None:
    task = operator(tmp_path, "echo hi", returns=[1, 2], patience=10)
    assert task.execute(context) == [1, 2]
    assert Path(context["ti"].xcoms["job"]).parent.parent == tmp_path


def test_a_long_one_is_waited_for_deferred(tmp_path: Path, context: Any) -> None:
    task = operator(tmp_path, "sleep 0.5", returns="done")
    job = deferred(task, context)
    ended(job)
    assert task.resume(context, {"folder": str(job)}) == "done"
    assert (job / jobs.CONSUMED).exists()


def test_the_trigger_is_silent_until_airflow_noticed_the_deferral(tmp_path: Path, context: Any) -> None:
    with pytest.raises(TaskDeferred) as stop:
        operator(tmp_path, "sleep 300", poll_interval=7).execute(context)
    assert (stop.value.trigger.delay, stop.value.trigger.poll_interval) == (2, 7)


def test_a_failure_is_the_commands_own_last_error(tmp_path: Path, context: Any) -> None:
    task = operator(
        tmp_path, "echo evalcore: error: gsm8k has no row 7; exit 1", subject="gsm8k", patience=10
    )
    with pytest.raises(JobFailed, match=r"gsm8k: gsm8k has no row 7 \(log: .*log.txt\)"):
        task.execute(context)


def test_a_failure_is_not_tried_again_by_airflow_but_by_whoever_clears_it(
    tmp_path: Path, context: Any
) -> None:
    task = operator(tmp_path, "exit 1", patience=10)
    with pytest.raises(JobFailed) as failure:
        task.execute(context)
    assert task.retry_policy is not None
    assert task.retry_policy.evaluate(failure.value, 1, 3).action.value == "fail"
    assert task.retry_policy.evaluate(OSError(), 1, 3).action.value == "default"
    with pytest.raises(JobFailed):
        task.execute(context)
    assert jobs.latest(tmp_path, Path(context["ti"].xcoms["job"]).parent.name) == Path(
        context["ti"].xcoms["job"]
    )
    assert Path(context["ti"].xcoms["job"]).name == "2"


def test_a_new_try_finds_the_job_of_one_whose_worker_died(tmp_path: Path, context: Any) -> None:
    job = deferred(operator(tmp_path, "sleep 300"), context)
    assert deferred(operator(tmp_path, "sleep 300"), context) == job


def test_a_new_try_takes_a_result_nobody_took(tmp_path: Path, context: Any) -> None:
    job = deferred(operator(tmp_path, f"sleep 0.3; echo x >> {tmp_path}/starts"), context)
    ended(job)
    operator(tmp_path, f"sleep 0.3; echo x >> {tmp_path}/starts", patience=10).execute(context)
    assert (tmp_path / "starts").read_text() == "x\n"


def test_a_killed_job_is_tried_again_three_times(tmp_path: Path, context: Any) -> None:
    task = operator(tmp_path, "sleep 300")
    job = deferred(task, context)
    for attempt in (2, 3):
        kill_command(job)
        with pytest.raises(TaskDeferred) as stop:
            task.resume(context, {"folder": str(job)})
        job = Path(stop.value.trigger.folder)
        assert job.name == str(attempt)
    kill_command(job)
    with pytest.raises(AirflowFailException, match="killed by SIGKILL, 3 times in a row"):
        task.resume(context, {"folder": str(job)})


def kill_command(job: Path) -> None:
    os.kill(orjson.loads((job / jobs.PIDS).read_bytes())["command"], signal.SIGKILL)
    ended(job)


def test_a_job_cancelled_by_clearing_the_task_starts_anew(tmp_path: Path, context: Any) -> None:
    job = deferred(operator(tmp_path, "sleep 300"), context)
    jobs.cancel(job)
    assert deferred(operator(tmp_path, "sleep 300"), context).name == "2"


def test_stopping_the_task_while_it_waits_itself_cancels_the_job(tmp_path: Path, context: Any) -> None:
    task = operator(tmp_path, "sleep 300", patience=60)
    threading.Timer(0.5, task.on_kill).start()
    with pytest.raises(AirflowException, match="cancelled, since its task was stopped"):
        task.execute(context)
    job = Path(context["ti"].xcoms["job"])
    assert jobs.status(job).state is jobs.State.CANCELLED
    assert job.name == "1"


def test_without_a_command_the_task_is_skipped(tmp_path: Path, context: Any) -> None:
    task = JobOperator(task_id="judge", argv=[], jobs_folder=str(tmp_path), subject="gsm8k")
    with pytest.raises(AirflowSkipException, match="gsm8k: nothing to do"):
        task.execute(context)


def test_a_folder_that_cannot_be_written_fails_at_once(tmp_path: Path, context: Any) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AirflowFailException, match="cannot write"):
        operator(tmp_path / "file", "true").execute(context)


def test_a_job_inherits_keys_but_nothing_of_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k")
    monkeypatch.setenv("AIRFLOW_CONN_SLURM", "ssh://u:p@h")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "sqlite://")
    monkeypatch.setenv("__AIRFLOW_SUPERVISOR_FD", "3")
    env = _environment()
    assert env["WANDB_API_KEY"] == "k"
    assert not [name for name in env if "AIRFLOW_" in name]


def test_the_link_is_a_path_with_every_part_quoted(context: Any, tmp_path: Path) -> None:
    ti = context["ti"]._replace(task_id="score.grade", map_index=3)
    link = JobLogLink().get_link(operator(tmp_path, "true"), ti_key=ti)
    assert link == "/evalcore/jobs/evaluate/manual__2026-11-21T00%3A00%3A00%2B00%3A00/score.grade/3/log"


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
