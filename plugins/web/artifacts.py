"""What a webhook of W&B's automations calls when an artifact has a new version, or an alias moves.

``POST /evalcore/artifacts`` with ``{"artifact": "${artifact_version_string}"}``, as W&B writes
``team/llama/checkpoints:v12``, and a token of Airflow's whose user may start runs of evaluate_checkpoint. The run is
the one that discovery would start; what no file in ``tracked/`` follows starts none.
"""

from __future__ import annotations

from typing import Annotated, Any

from airflow.api.common.trigger_dag import trigger_dag
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.exceptions import DagRunAlreadyExists
from airflow.utils.types import DagRunTriggeredByType
from fastapi import APIRouter, Body, Depends, HTTPException

from evalcore.discovery import find, request
from evalcore.errors import EvalError
from evalcore.publish import DAG_ID
from evalcore.sources.wandb import Artifacts
from evalcore.tracked import COLLECTION, Tracked, followed

router = APIRouter()


@router.post(
    "/artifacts",
    dependencies=[Depends(requires_access_dag("POST", DagAccessEntity.RUN, DAG_ID))],
)
def publish(
    artifact: Annotated[str, Body(embed=True, max_length=1000, pattern=rf"^{COLLECTION}$")], user: GetUserDep
) -> dict[str, Any]:
    """``{dag_run_id, is_new}``. 404 if nobody follows the artifact, 409 if it is not complete, 503 if W&B is away."""
    collection, _, alias = artifact.partition(":")
    if not alias:
        raise HTTPException(422, "Of which version? Expected entity/project/name:version")
    tracked = _follower(collection)
    try:
        # A version that discovery has found already is asked for once more: that is harmless.
        found, waiting = find(tracked, Artifacts(artifact), unknown=set, limit=1)
    except EvalError as error:
        raise HTTPException(503, str(error)) from error
    if not found:
        raise HTTPException(
            409, "; ".join(waiting) or f"{artifact} is before the step that {tracked.training_run} begins at"
        )
    asked = request(tracked, found[0])
    run_id = asked["trigger_run_id"]
    try:
        trigger_dag(
            DAG_ID,
            run_id=run_id,
            conf=asked["conf"],
            triggered_by=DagRunTriggeredByType.REST_API,
            triggering_user_name=user.get_name(),
        )
    except DagRunAlreadyExists:
        return {"dag_run_id": run_id, "is_new": False}
    return {"dag_run_id": run_id, "is_new": True}


def _follower(collection: str) -> Tracked:
    for tracked in followed():
        if isinstance(tracked, Tracked) and (tracked.source.wandb or "").partition(":")[0] == collection:
            return tracked
    raise HTTPException(404, f"No training run in tracked/ has checkpoints in {collection}")
