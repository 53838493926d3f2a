"""Somebody acknowledges an alert and promotes a baseline, in the real Airflow, through its REST API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alarmed import confirmed
from demo.standalone import FINAL, Airflow, AirflowError
from evalcore.history import open_history
from evalcore.history.alarms import Alarms, State
from waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

LONG = 300.0


def question(airflow: Airflow, dag_id: str, run: str) -> dict[str, Any]:
    """What the run asks, once it does."""
    path = f"/dags/{dag_id}/dagRuns/{run}/hitlDetails"
    until(
        lambda: airflow.request("GET", path)["total_entries"] == 1 or ended(airflow, dag_id, run),
        timeout=LONG,
    )
    # Answered before the scheduler has noticed that the worker which asked is done, Airflow takes the task that goes
    # on for that one, for lost, and asks again.
    log, noticed = airflow.home / "logs" / "scheduler.log", f"dag_id={dag_id}, task_id=ask, run_id={run}"
    until(lambda: f"TaskInstance Finished: {noticed}" in log.read_text(), "the worker's end", LONG)
    [asked] = airflow.request("GET", path)["hitl_details"]
    assert not asked["response_received"]
    return dict(asked)


def ended(airflow: Airflow, dag_id: str, run: str) -> bool:
    return airflow.state(dag_id, run) in FINAL


def answer(airflow: Airflow, dag_id: str, run: str, chosen: str, note: str) -> None:
    path = f"/dags/{dag_id}/dagRuns/{run}/taskInstances/ask/-1/hitlDetails"
    airflow.request("PATCH", path, {"chosen_options": [chosen], "params_input": {"note": note}})


def states(airflow: Airflow, dag_id: str, run: str) -> dict[str, str]:
    return {task["task_id"]: task["state"] for task in airflow.tasks(dag_id, run)}


def test_an_alarm_is_acknowledged_by_whoever_answers(airflow: Airflow, tmp_path: Path) -> None:
    dag_id = "acknowledge_alert"
    with open_history(airflow.settings["EVALCORE_HISTORY"]) as history:
        alarm = confirmed(history, tmp_path, run="acknowledged")
    first, second = (airflow.trigger(dag_id, {"alarms": [alarm.id]}) for _ in range(2))
    asked = question(airflow, dag_id, first)
    assert asked["subject"] == "acknowledged/step-1500: worse on toy"
    assert asked["options"] == ["Acknowledge", "Leave open"]
    assert "```\nsamples | benchmark | mode      | baseline" in asked["body"]
    question(airflow, dag_id, second)

    answer(airflow, dag_id, first, "Acknowledge", "the learning rate")
    with pytest.raises(AirflowError, match="409"):
        answer(airflow, dag_id, first, "Leave open", "a second answer")
    assert airflow.wait(dag_id, first, LONG) == "success"
    with open_history(airflow.settings["EVALCORE_HISTORY"]) as history:
        [known] = Alarms(history).get([alarm.id])
    assert (known.state, known.acknowledged_by, known.note) == (
        State.ACKNOWLEDGED,
        "admin",
        "the learning rate",
    )

    # Another run that asked already, and one that comes later, end well and change nothing.
    answer(airflow, dag_id, second, "Acknowledge", "me too")
    assert airflow.wait(dag_id, second, LONG) == "success"
    late = airflow.trigger(dag_id, {"alarms": [alarm.id]})
    assert airflow.wait(dag_id, late, LONG) == "success"
    assert set(states(airflow, dag_id, late).values()) == {"skipped"}
    with open_history(airflow.settings["EVALCORE_HISTORY"]) as history:
        assert Alarms(history).get([alarm.id]) == [known]


def test_a_baseline_is_promoted_by_whoever_approves(airflow: Airflow, tmp_path: Path) -> None:
    dag_id = "promote_baseline"
    with open_history(airflow.settings["EVALCORE_HISTORY"]) as history:
        alarm = confirmed(history, tmp_path, run="promoted")
    conf = {"training_run": "promoted", "checkpoint": "step-1500"}
    rejected, approved = (airflow.trigger(dag_id, conf) for _ in range(2))
    asked = question(airflow, dag_id, approved)
    assert asked["subject"] == "Baseline of promoted: step-1500?"
    assert "| step-900     | 81.25%" in asked["body"]
    question(airflow, dag_id, rejected)

    answer(airflow, dag_id, rejected, "Reject", "")
    assert airflow.wait(dag_id, rejected, LONG) == "success"
    assert states(airflow, dag_id, rejected)["promote"] == "skipped"
    with open_history(airflow.settings["EVALCORE_HISTORY"]) as history:
        assert Alarms(history).promoted("promoted", "toy") is None
    answer(airflow, dag_id, approved, "Approve", "harder data")
    assert airflow.wait(dag_id, approved, LONG) == "success"
    with open_history(airflow.settings["EVALCORE_HISTORY"]) as history:
        assert Alarms(history).promoted("promoted", "toy") == alarm.evaluation
    assert "approved by admin" in airflow.log(dag_id, approved, "promote")
