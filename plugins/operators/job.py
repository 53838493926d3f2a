"""The operator that runs one ``evalcore`` command as a job and waits for it deferred.

    GradeOperator(task_id="grade", argv=["evalcore", "grade", folder], cluster="local", jobs_folder="results/.jobs")

The job's name follows from the DAG run, the task and its map index. A task that finds its job still
there (after a retry, or the death of a worker or triggerer) waits for that one; a job that was killed or
lost is made again and resumes where it stopped.

Marking the task as failed or success, or its run, cancels the job: in a worker ``on_kill`` does it, while
the task is deferred its trigger, and else (the trigger has not started, the task waits for a retry)
``listeners.job`` in the API server, which has to see the jobs folder for that. Clearing a task cancels its
job too, but for one case: a task cleared in the second or two before its trigger has started, or while no
triggerer runs, may leave the job alone; the next try then waits for it if the command is still the same.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

from airflow.sdk import (
    BaseOperator,
    BaseOperatorLink,
    ExceptionRetryPolicy,
    RetryAction,
    RetryRule,
    TaskInstanceState,
)
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from evalcore import jobs
from evalcore.backends import Backend, Local, Look, Unreachable, reason
from evalcore.errors import EvalError
from hooks.backends import backend, environment
from triggers.job import JobTrigger

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context
    from airflow.sdk.types import TaskInstanceKey

XCOM_JOB = "job"
"""Where a task notes its job: ``<profile>:<folder>``, the folder that of all attempts."""

MARKED = (TaskInstanceState.SUCCESS, TaskInstanceState.FAILED, TaskInstanceState.SKIPPED)
"""The states in which no task has a job that runs."""

XCOM_FAILURE = "failure"
"""Where a task notes why its job failed, in one line."""

PATIENCE = 600.0
"""Seconds for which a worker asks an unreachable backend again; then the task fails, and its retry goes on."""

_TAIL = 20
_T = TypeVar("_T")


class JobFailed(AirflowException):
    """The command exited with a code of its own. Trying again would fail again, so by default nobody does."""


_RETRY_POLICY = ExceptionRetryPolicy(
    [RetryRule(JobFailed, RetryAction.FAIL, reason="the command itself failed, and would again")]
)


class JobLogLink(BaseOperatorLink):
    """The whole log of the job; the task's own log repeats only its last lines."""

    name = "Job log"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        # A path only, so that it works under whatever name the browser knows the server by.
        prefix = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
        parts = (ti_key.dag_id, ti_key.run_id, ti_key.task_id, str(ti_key.map_index))
        return f"{prefix}/evalcore/jobs/{'/'.join(quote(part, safe='') for part in parts)}/log"


class JobOperator(BaseOperator):
    """Runs a command as a job.

    :param argv: the command; none skips the task.
    :param cluster: name of the cluster profile that says where jobs run.
    :param jobs_folder: where local jobs lie; every try of the task, and the triggerer, must see the same.
    :param subject: what the command is about, for the UI and the report; a benchmark's name for instance.
    :param returns: returned when the command succeeded, so that a mapped task can follow it.
    :param force_squash: on a cluster, have the container's squashfs file made anew, once for the DAG run.
    :param brings: ``[there, here]``: a result folder on the cluster, and where what it holds is brought to.
    :param patience: seconds to wait for a local job before deferring; most grading is over by then.
    :param poll_interval: seconds between two looks at the job once deferred; default: the backend's.
    """

    template_fields: Sequence[str] = (
        "argv",
        "cluster",
        "jobs_folder",
        "force_squash",
        "subject",
        "returns",
        "brings",
    )
    operator_extra_links = (JobLogLink(),)
    ui_color = "#e8f1fa"

    def __init__(
        self,
        *,
        argv: Sequence[str],
        jobs_folder: str,
        cluster: str = "local",
        force_squash: bool = False,
        subject: str = "",
        returns: Any = None,
        brings: Sequence[str] = (),
        patience: float = 5.0,
        poll_interval: float | None = None,
        **kwargs: Any,
    ) -> None:
        # A mapped operator passes None for what was not given, so setdefault would not do.
        kwargs["retry_policy"] = kwargs.get("retry_policy") or _RETRY_POLICY
        kwargs["map_index_template"] = kwargs.get("map_index_template") or "{{ task.subject }}"
        super().__init__(**kwargs)
        self.argv = argv
        self.cluster = cluster
        self.jobs_folder = jobs_folder
        self.force_squash = force_squash
        self.subject = subject
        self.returns = returns
        self.brings = brings
        self.patience = patience
        self.poll_interval = poll_interval
        self._job = ""
        self._runs_at: Backend | None = None
        self._is_killed = False

    def execute(self, context: Context) -> Any:
        if not self.argv:
            raise AirflowSkipException(f"{self.subject or self.task_id}: nothing to do")
        return self._run(context)

    def resume(self, context: Context, event: dict[str, Any]) -> Any:
        """Called when the job is over: take its result, or make another attempt of one that was stopped."""
        job, runs_at = event["job"], self._backend()
        look = self._outcome(job, "resume")
        state = look.status.state
        if state.is_resumable:
            self.log.warning("Job %s: %s; trying again where it stopped", job, look.status)
            return self._run(context)
        self._ended(context, look)
        if state is jobs.State.SUCCEEDED and self.brings:
            self._asked(lambda: runs_at.fetch(self.brings[0], Path(self.brings[1])))
        # From here on a new try of this task is a new attempt: the user wants it done again.
        self._asked(lambda: runs_at.consume(job))
        if state is not jobs.State.SUCCEEDED:
            self._fail(context, job, look)
        return self.returns

    def resume_prepared(self, context: Context, event: dict[str, Any]) -> Any:
        """Called when the job is over that this task's job had to wait for."""
        job, runs_at = event["job"], self._backend()
        look = self._outcome(job, "resume_prepared")
        if look.status.state.is_resumable:
            self.log.warning("Job %s: %s; trying again", job, look.status)
            return self._run(context)
        # Others may wait for the same one: they find its outcome, and who asks after them gets it made again.
        self._asked(lambda: runs_at.consume(job))
        if look.status.state is not jobs.State.SUCCEEDED:
            self._fail(context, job, look)
        return self._run(context)

    def on_kill(self) -> None:
        self._is_killed = True
        if self._job:
            self._backend().cancel([self._job])

    def _run(self, context: Context) -> Any:
        ti = context["ti"]
        name = jobs.job_name(ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
        try:
            runs_at = self._backend()
            # Noted before it starts and the task looked at after: whoever marks the task either finds the job
            # to stop (see listeners.job) or is noticed here.
            ti.xcom_push(XCOM_JOB, f"{self.cluster}:{runs_at.folder(name)}")
            # Two DAGs may have runs of the same id, as scheduled ones have.
            anew = f"{ti.dag_id}/{ti.run_id}" if self.force_squash else ""
            if first := self._asked(lambda: runs_at.prepare(anew)):
                self.log.info("Waiting first for job %s", first)
                return self._defer(first, "resume_prepared")
            job = self._job = self._asked(lambda: runs_at.ensure(name, self.argv, self._environment()))
        except EvalError as error:
            ti.xcom_push(XCOM_FAILURE, str(error))
            raise AirflowFailException(str(error)) from error
        self.log.info("Command: %s", shlex.join(self.argv))
        self.log.info("Job: %s", job)
        if self._is_killed or _state(ti) in MARKED:
            self.on_kill()
        if isinstance(runs_at, Local):
            deadline = time.monotonic() + self.patience
            while time.monotonic() < deadline and not jobs.status(Path(job)).state.is_over:
                time.sleep(0.2)
            if jobs.status(Path(job)).state.is_over:
                return self.resume(context, {"job": job})
        return self._defer(job)

    def _outcome(self, job: str, method: str) -> Look:
        """How a job ended, the end of its log repeated; defers again, to this method, if it has not."""
        runs_at = self._backend()
        look: Look = self._asked(lambda: runs_at.look({job: 0}))[job]
        if not look.status.state.is_over:
            self._defer(job, method)
        if self._is_killed:
            raise AirflowException(f"Job {job}: cancelled, since its task was stopped")
        if not look.status.state.is_resumable:
            for line in look.log[-_TAIL:]:
                self.log.info("%s", line)
        return look

    def _fail(self, context: Context, job: str, look: Look) -> NoReturn:
        context["ti"].xcom_push(XCOM_FAILURE, reason(look))
        raise JobFailed(f"{self.subject or self.task_id}: {reason(look)} (log: {job}/{jobs.LOG})")

    def _backend(self) -> Backend:
        if self._runs_at is None:
            self._runs_at = self._new_backend()
        return self._runs_at

    def _new_backend(self) -> Backend:
        return backend(self.cluster, self.jobs_folder)

    def _environment(self) -> dict[str, str]:
        return environment(self.cluster)

    def _ended(self, context: Context, look: Look) -> None:
        """Called once with what is known of a job that is over, whatever its end."""

    def _asked(self, ask: Callable[[], _T]) -> _T:
        """What a backend answers, asked again while it is unreachable."""
        deadline, pause = time.monotonic() + PATIENCE, 2.0
        while True:
            try:
                return ask()
            except Unreachable as error:
                if self._is_killed or time.monotonic() + pause > deadline:
                    raise AirflowException(f"cluster {self.cluster}: {error}") from error
                self.log.warning("Cluster %s: %s; asking again in %.0f s", self.cluster, error, pause)
            time.sleep(pause)
            pause = min(2 * pause, 60.0)

    def _defer(self, job: str, method: str = "resume") -> NoReturn:
        # Airflow (3.3) notices the end of a task's process up to a heartbeat late. A trigger that has
        # fired by then resumes the task, and its running is taken for a task that died.
        delay = conf.getint("workers", "min_heartbeat_interval") + 1
        trigger = JobTrigger(
            job,
            cluster=self.cluster,
            jobs_folder=self.jobs_folder,
            delay=delay,
            poll_interval=self.poll_interval,
        )
        self.defer(trigger=trigger, method_name=method)


def find_job(
    dag_id: str, run_id: str, task_id: str, map_index: int, noted: object
) -> tuple[Backend, str] | None:
    """Where a task's job runs, and its newest attempt, by what the task noted; None if it has none.

    Any task can note anything: a folder that is not named as this task's job is none.

    Raises:
        ConfigError: there is no such profile any more.
        Unreachable: its cluster cannot be asked.
    """
    cluster, _, folder = noted.partition(":") if isinstance(noted, str) else ("", "", "")
    name = jobs.job_name(dag_id, run_id, task_id, map_index)
    if Path(folder).name != name:
        return None
    runs_at = backend(cluster, str(Path(folder).resolve().parent))
    job = runs_at.newest(name)
    return (runs_at, job) if job else None


def _state(ti: Any) -> str | None:
    """The state that Airflow's database has for this very task now, a user's mark for instance."""
    found = ti.get_task_states(ti.dag_id, map_index=ti.map_index, task_ids=[ti.task_id], run_ids=[ti.run_id])
    return next(iter(found.get(ti.run_id, {}).values()), None)
