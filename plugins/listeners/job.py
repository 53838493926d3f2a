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
from typing import TYPE_CHECKING

from airflow.listeners import hookimpl
from sqlalchemy import event, inspect

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
    from operators.job import MARKED, XCOM_JOB

    if ti.state not in MARKED:  # up for retry: the next try finds the job again
        return
    noted = ti.xcom_pull(task_ids=ti.task_id, key=XCOM_JOB, map_indexes=ti.map_index, session=mapped.session)
    if noted is None:
        return
    # A cluster is asked over a network, and a job is given time to stop: neither the API server nor the
    # scheduler shall wait for that.
    key = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
    stop = threading.Thread(
        target=_cancel_if_running, args=(*key, noted), name=f"cancel {noted}", daemon=True
    )
    _when_committed(mapped.session, stop.start)


def _cancel_if_running(dag_id: str, run_id: str, task_id: str, map_index: int, noted: object) -> None:
    from evalcore.backends import Unreachable
    from evalcore.errors import EvalError
    from operators.job import find_job

    try:
        if found := find_job(dag_id, run_id, task_id, map_index, noted):
            runs_at, job = found
            if not runs_at.look({job: 0})[job].status.state.is_over:
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
