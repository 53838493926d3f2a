"""Cancels the job of a task that is marked as failed or success.

The trigger of a deferred task does that too (``JobTrigger.on_kill``), but only once it has started: a task
marked within the first second, or while it waits for a retry after its worker died, has a job that nobody
watches. Airflow calls these functions where the state is changed, in the API server or the scheduler. Not
for a task that waits for its retry while its whole run is marked: such a job goes on to its end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.listeners import hookimpl
from sqlalchemy import event, inspect

from evalcore import jobs

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)


@hookimpl
def on_task_instance_success(task_instance: TaskInstance | RuntimeTaskInstance) -> None:
    _cancel_job(task_instance)


@hookimpl
def on_task_instance_failed(task_instance: TaskInstance | RuntimeTaskInstance) -> None:
    _cancel_job(task_instance)


@hookimpl
def on_task_instance_skipped(task_instance: TaskInstance | RuntimeTaskInstance) -> None:
    _cancel_job(task_instance)


def _cancel_job(ti: TaskInstance | RuntimeTaskInstance) -> None:
    # In a worker, which calls this for every task there is, an operator sees to its job itself.
    mapped = inspect(ti, raiseerr=False)
    if mapped is None:
        return
    # Here, since every process of Airflow loads its plugins.
    from operators.job import MARKED, XCOM_JOB, find_job

    if ti.state not in MARKED:  # up for retry: the next try finds the job again
        return
    noted = ti.xcom_pull(task_ids=ti.task_id, key=XCOM_JOB, map_indexes=ti.map_index, session=mapped.session)
    if isinstance(noted, str) and not noted.startswith("/"):
        key = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
        # Over a network, which neither the API server nor the scheduler shall wait for.
        stop = threading.Thread(target=_cancel_elsewhere, args=(*key, noted), daemon=True)
        _when_committed(mapped.session, stop.start)
        return
    job = find_job(ti.dag_id, ti.run_id, ti.task_id, ti.map_index, noted)
    if job and jobs.status(job).state is jobs.State.RUNNING:
        _when_committed(mapped.session, lambda: _request_cancel(job))


def _request_cancel(job: Path) -> None:
    try:
        jobs.request_cancel(job)
    except OSError as error:  # raised, it would spoil the session that marks
        log.warning("cannot cancel job %s of a marked task: %s", job, error)


def _cancel_elsewhere(dag_id: str, run_id: str, task_id: str, map_index: int, noted: str) -> None:
    from evalcore.backends import Unreachable
    from evalcore.errors import EvalError
    from operators.job import find_job_elsewhere

    try:
        if found := find_job_elsewhere(dag_id, run_id, task_id, map_index, noted):
            runs_at, job = found
            runs_at.cancel([job])
    except (EvalError, Unreachable, OSError) as error:
        log.warning("cannot cancel job %s of a marked task: %s", noted, error)


def _when_committed(session: Session, cancel_job: Callable[[], None]) -> None:
    """Cancel a job when the mark is visible, not before: a task that runs takes a job that was stopped without
    one for one to go on with. A mark that is taken back cancels nothing."""
    marked = [cancel_job]

    def cancel(_: Session) -> None:
        for stop in marked:
            stop()

    event.listen(session, "after_commit", cancel, once=True)
    event.listen(session, "after_rollback", lambda _: marked.clear(), once=True)
