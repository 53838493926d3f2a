"""What a real Airflow asks somebody under Required Actions, and an answer to it."""

from __future__ import annotations

from typing import Any

from demo.standalone import FINAL, Airflow
from waiting import LONG, until


def question(airflow: Airflow, dag_id: str, run: str) -> dict[str, Any]:
    """What the run asks, once it does."""
    path = f"/dags/{dag_id}/dagRuns/{run}/hitlDetails"
    until(
        lambda: airflow.request("GET", path)["total_entries"] == 1 or airflow.state(dag_id, run) in FINAL,
        timeout=LONG,
    )
    # Answered before the scheduler has noticed that the worker which asked is done, Airflow takes the task that goes
    # on for that one, for lost, and asks again.
    log, noticed = airflow.home / "logs" / "scheduler.log", f"dag_id={dag_id}, task_id=ask, run_id={run}"
    until(lambda: f"TaskInstance Finished: {noticed}" in log.read_text(), "the worker's end", LONG)
    [asked] = airflow.request("GET", path)["hitl_details"]
    assert not asked["response_received"]
    return dict(asked)


def answer(airflow: Airflow, dag_id: str, run: str, chosen: str, note: str) -> None:
    path = f"/dags/{dag_id}/dagRuns/{run}/taskInstances/ask/-1/hitlDetails"
    airflow.request("PATCH", path, {"chosen_options": [chosen], "params_input": {"note": note}})
