"""Cancels the job of a task that is marked as failed or success.

The trigger of a deferred task does that too (``JobTrigger.on_kill``), but only once it has started: a task
marked within the first second, or while it waits for a retry after its worker died, has a job that nobody
watches. Airflow calls these functions where the state is changed, in the API server or the scheduler. Not
for a task that waits for its retry while its whole run is marked: such a job goes on to its end.
"""

from __future__ import annotations

import functools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow.listeners import hookimpl
from sqlalchemy import event, inspect

from evalcore.backends import Unreachable

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

Key = tuple[str, str, str, int]
"""DAG, run, task and map index."""

PATIENCE = 600.0
"""Seconds for which a cluster that is unreachable is asked again."""

to_stop: queue.Queue[tuple[Key, object, float]] = queue.Queue()
"""Marked tasks whose jobs are to be stopped: what each noted of its job, and until when it is tried."""

_PAUSE = 5.0


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
    key = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
    _when_committed(mapped.session, lambda: _stop(key, noted))


def _stop(key: Key, noted: object) -> None:
    to_stop.put((key, noted, time.monotonic() + PATIENCE))
    _start_to_stop(os.getpid())


@functools.cache
def _start_to_stop(_: int) -> None:
    """Start, once in a process, what stops jobs: neither the API server nor the scheduler shall wait for that."""
    threading.Thread(target=_stop_jobs, name="evalcore: stop jobs", daemon=True).start()


def _stop_jobs() -> None:
    """One after the other: a login node takes only a few connections at once."""
    while True:
        key, noted, deadline = to_stop.get()
        try:
            _cancel_if_running(key, noted)
        except Unreachable as error:
            if time.monotonic() < deadline:
                time.sleep(_PAUSE)
                to_stop.put((key, noted, deadline))
            else:
                log.warning("cannot cancel job %s of a marked task: %s", noted, error)
        except Exception as error:  # whatever it is, the next one is still to be stopped
            log.warning("cannot cancel job %s of a marked task: %s", noted, error)
        finally:
            to_stop.task_done()


def _cancel_if_running(key: Key, noted: object) -> None:
    from operators.job import find_job

    if found := find_job(*key, noted):
        runs_at, job = found
        if not runs_at.look({job: 0})[job].status.state.is_over:
            runs_at.cancel([job])


def _when_committed(session: Session, cancel_job: Callable[[], None]) -> None:
    """Cancel a job when the mark is visible, not before: a task that runs takes a job that was stopped without
    one for one to go on with. A mark that is taken back cancels nothing."""
    marked = [cancel_job]

    def cancel(_: Session) -> None:
        for stop in marked:
            stop()

    event.listen(session, "after_commit", cancel, once=True)
    event.listen(session, "after_rollback", lambda _: marked.clear(), once=True)
