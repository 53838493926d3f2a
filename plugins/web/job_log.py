"""The page behind *Job log*: what a task's job printed, whole, while it still runs too.

``/evalcore/jobs/<dag>/<run>/<task>/<map index>/log`` as plain text, for whoever may read that task's
logs. Where the job lies says the task's own XCom, never the address.
"""

from __future__ import annotations

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models.xcom import XComModel
from fastapi import APIRouter, Depends, HTTPException
from fastapi.responses import StreamingResponse

from evalcore.backends import Unreachable
from evalcore.errors import EvalError
from operators.job import XCOM_JOB, find_job

router = APIRouter()


@router.get(
    "/jobs/{dag_id}/{run_id}/{task_id}/{map_index}/log",
    dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.TASK_LOGS))],
)
def job_log(dag_id: str, run_id: str, task_id: str, map_index: int, session: SessionDep) -> StreamingResponse:
    """The log of the newest attempt of a task's job; 404 if it has none, or none to be seen here."""
    query = XComModel.get_many(
        run_id=run_id, key=XCOM_JOB, task_ids=task_id, dag_ids=dag_id, map_indexes=map_index, limit=1
    )
    row = session.scalars(query).first()
    if row is None:
        raise HTTPException(404, f"Task {task_id} has not started a job")
    noted = XComModel.deserialize_value(row)
    try:
        found = find_job(dag_id, run_id, task_id, map_index, noted)
        if found is None:
            raise HTTPException(404, f"No job of this task in {noted}, seen from the API server")
        runs_at, job = found
        return StreamingResponse(runs_at.log(job), media_type="text/plain; charset=utf-8")
    except Unreachable as error:
        raise HTTPException(503, f"The cluster cannot be asked: {error}") from error
    except EvalError as error:
        raise HTTPException(404, str(error)) from error
