"""Somebody acknowledges an alert and promotes a baseline, in the real Airflow, through its REST API."""

from __future__ import annotations

from pathlib import Path

import pytest

from alarmed import confirmed
from demo.standalone import Airflow, AirflowError
from evalcore.history import open_history
from evalcore.history.alarms import Alarms, State
from required_action import answer, question

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


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
    assert airflow.wait(dag_id, first) == "success"
    with open_history(airflow.settings["EVALCORE_HISTORY"]) as history:
        [known] = Alarms(history).get([alarm.id])
    assert (known.state, known.acknowledged_by, known.note) == (
        State.ACKNOWLEDGED,
        "admin",
        "the learning rate",
    )

    # Another run that asked already, and one that comes later, end well and change nothing.
    answer(airflow, dag_id, second, "Acknowledge", "me too")
    assert airflow.wait(dag_id, second) == "success"
    late = airflow.trigger(dag_id, {"alarms": [alarm.id]})
    assert airflow.wait(dag_id, late) == "success"
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
    assert airflow.wait(dag_id, rejected) == "success"
    assert states(airflow, dag_id, rejected)["promote"] == "skipped"
    with open_history(airflow.settings["EVALCORE_HISTORY"]) as history:
        assert Alarms(history).promoted("promoted", "toy") is None
    answer(airflow, dag_id, approved, "Approve", "harder data")
    assert airflow.wait(dag_id, approved) == "success"
    with open_history(airflow.settings["EVALCORE_HISTORY"]) as history:
        assert Alarms(history).promoted("promoted", "toy") == alarm.evaluation
    assert "approved by admin" in airflow.log(dag_id, approved, "promote")
