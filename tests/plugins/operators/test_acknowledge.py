"""Acknowledging and promoting as tasks: what is asked, and what is made of an answer."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from sqlalchemy import select

from alarmed import confirmed, evaluated, suspected
from evalcore.history import open_history, schema
from evalcore.history.alarms import Alarm, Alarms, State
from operators.acknowledge import (
    ACKNOWLEDGE,
    LEAVE_OPEN,
    AcknowledgeOperator,
    ShowAlarmsOperator,
    answered,
)
from operators.promote import PromoteOperator, ProposeOperator
from task_instance import TaskInstance

pytestmark = pytest.mark.slow


@pytest.fixture
def alarm(tmp_path: Path) -> Alarm:
    with open_history() as history:
        return confirmed(history, tmp_path / "results")


def answer(chosen: str, name: str = "ada", note: str | None = "looking") -> dict[str, Any]:
    """As a HITLOperator returns it."""
    return {
        "chosen_options": [chosen],
        "params_input": {"note": note},
        "responded_at": datetime.now(UTC),
        "responded_by_user": {"id": "7", "name": name},
    }


def run(operator: Any, **params: Any) -> tuple[list[int], TaskInstance]:
    ti = TaskInstance()
    return operator.execute({"ti": ti, "params": params}), ti


def show(*alarms: int) -> tuple[list[int], TaskInstance]:
    return run(ShowAlarmsOperator(task_id="show"), alarms=list(alarms))


def acknowledge(alarm: Alarm, given: dict[str, Any]) -> list[int]:
    return run(AcknowledgeOperator(task_id="acknowledge", alarms=[alarm.id], answer=given))[0]


def state(alarm: Alarm) -> Alarm:
    with open_history() as history:
        return Alarms(history).get([alarm.id])[0]


def test_what_was_alerted_about_is_shown(tmp_path: Path, alarm: Alarm) -> None:
    with open_history() as history:
        other = suspected(history, tmp_path / "results", run="other")
    ids, ti = show(alarm.id, other.id)
    assert ids == [alarm.id], "nobody has been told of the other one yet"
    assert ti.xcoms["subject"] == "llama/step-1500: worse on toy"
    assert "```\nsamples | benchmark" in ti.xcoms["body"]


def test_who_acknowledges_is_recorded_and_who_was_first_stays(alarm: Alarm) -> None:
    assert acknowledge(alarm, answer(ACKNOWLEDGE)) == [alarm.id]
    known = state(alarm)
    assert (known.state, known.acknowledged_by, known.note) == (State.ACKNOWLEDGED, "ada", "looking")
    assert acknowledge(alarm, answer(ACKNOWLEDGE, "eve", "me too")) == [alarm.id]
    assert state(alarm) == known
    with pytest.raises(AirflowSkipException, match="none of them waits"):
        show(alarm.id)


def test_left_open_it_waits_on(alarm: Alarm) -> None:
    assert acknowledge(alarm, answer(LEAVE_OPEN)) == []
    assert state(alarm) == alarm
    assert acknowledge(alarm, answer(ACKNOWLEDGE, note=None)) == [alarm.id]
    assert state(alarm).note == ""


@pytest.mark.parametrize(
    ("user", "written", "by"),
    [
        ({"id": "7", "name": "ada"}, {"note": "looking"}, ("ada", "looking")),
        ({"id": "7", "name": ""}, {}, ("7", "")),
        # Nobody is named where Airflow itself answers, when a question's time is up.
        (None, None, ("nobody", "")),
    ],
)
def test_who_answered(user: Any, written: Any, by: tuple[str, str]) -> None:
    assert answered({"responded_by_user": user, "params_input": written}) == by


def test_an_unknown_alarm_is_not_looked_for_again(alarm: Alarm) -> None:
    with pytest.raises(AirflowFailException, match="no alarm 99"):
        show(alarm.id, 99)


def propose(**params: Any) -> tuple[list[int], TaskInstance]:
    named = {"training_run": "llama", "checkpoint": "step-1500", "benchmarks": None}
    return run(ProposeOperator(task_id="propose"), **(named | params))


def test_a_checkpoint_is_proposed_with_old_and_new_numbers(alarm: Alarm) -> None:
    ids, ti = propose()
    assert ids == [alarm.evaluation]
    assert ti.xcoms["subject"] == "Baseline of llama: step-1500?"
    assert ti.xcoms["body"].startswith("```\nbenchmark | mode      | its baseline | correct")
    assert "step-900     | 81.25%" in ti.xcoms["body"]
    with pytest.raises(AirflowFailException, match="was not evaluated on 'gsm8k'; on toy"):
        propose(benchmarks=["gsm8k"])


def test_the_file_that_follows_the_run_says_whether_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alarm: Alarm
) -> None:
    tracked = tmp_path / "include" / "tracked"
    tracked.mkdir(parents=True)
    (tracked / "llama.yaml").write_text("source: {path: /ckpt}\nsuite: tiny\nbaseline: {run: other}\n")
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path / "include"))
    with pytest.raises(AirflowFailException, match="compared with the same step of other: nothing"):
        propose()
    with pytest.raises(AirflowFailException, match="no complete evaluation of 'step-9'"):
        propose(training_run="tiny", checkpoint="step-9")


def test_who_approves_promotes_once(tmp_path: Path, alarm: Alarm) -> None:
    with open_history() as history:
        other = evaluated(history, tmp_path / "results", 1500, name="aime24")
    approved = answer("Approve")
    ids = [alarm.evaluation, other]
    assert run(PromoteOperator(task_id="promote", evaluations=ids[:1], answer=approved))[0] == ids[:1]
    assert run(PromoteOperator(task_id="promote", evaluations=ids, answer=approved))[0] == ids[1:]
    with open_history() as history:
        assert [Alarms(history).promoted("llama", name) for name in ("toy", "aime24")] == ids
        with history.reading() as connection:
            table = schema.promotions.c
            found = connection.execute(select(table.evaluation_id, table.promoted_by, table.note)).all()
    assert found == [(id_, "ada", "looking") for id_ in ids]
