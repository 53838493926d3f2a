"""confirm and settle as tasks: the runs that look again, and who is told of what they found."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from airflow.sdk.exceptions import AirflowFailException

from evalcore.checkpoints import Checkpoint
from evalcore.history import open_history
from evalcore.history.alarms import Alarm, Alarms, Kind, State, Suspicion
from evalcore.regression.confirmation import run_name
from evaluations import checkpoint, record
from operators import confirm
from operators.confirm import ConfirmOperator, ReleaseOperator, SettleOperator
from task_instance import TaskInstance

pytestmark = pytest.mark.slow

GOOD, BAD = [3] * 40, [1] * 40
PARAMS = {"checkpoint": "/ckpt/step-200", "suite": "tiny", "overrides": [], "cluster": "local"}


class Run(NamedTuple):
    run_id: str


class Finished(TaskInstance):
    """A task instance behind runs that ended so."""

    ended = ("success", "success")

    def get_task_breadcrumbs(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        assert (dag_id, run_id) == (self.dag_id, self.run_id)
        again = [{"task_id": "again", "map_index": i, "state": state} for i, state in enumerate(self.ended)]
        return [*again, {"task_id": "settle", "map_index": -1, "state": "running"}]


@pytest.fixture
def alarm(tmp_path: Path) -> Alarm:
    with open_history() as history:
        base, new = (
            record(history, tmp_path, checkpoint("r", step), right)
            for step, right in ((100, GOOD), (200, BAD))
        )
        return Alarms(history).raise_([Suspicion(Kind.REGRESSION, new, base, 0.01, 0.05)])[0]


def look_again(alarm: Alarm, folder: Path, new: list[int]) -> None:
    def again(side: Checkpoint) -> Checkpoint:
        return side.model_copy(update={"run": run_name([alarm], side)})

    with open_history() as history:
        record(history, folder, again(alarm.checkpoint), new, seed=1)
        record(history, folder, again(alarm.baseline), GOOD, seed=1)


def context(alarm: Alarm, ti: TaskInstance, **params: Any) -> Any:
    asked = {"alarms": [alarm.id], "evaluation": "ckpt__r", "params": PARAMS | params}
    return {"ti": ti, "params": asked, "dag_run": Run("confirm__1")}


def settle(alarm: Alarm, ti: TaskInstance, **params: Any) -> list[dict[str, list[int]]]:
    task = SettleOperator(task_id="settle", confirmed_by="again")
    return task.execute(context(alarm, ti, **params))


def held(folder: Path, step: int) -> Alarm:
    raised_by = {"evaluation": f"ckpt__{step}", "params": PARAMS}
    with open_history() as history:
        base, new = (record(history, folder, checkpoint("r", s), GOOD) for s in (100, step))
        suspicion = Suspicion(Kind.REGRESSION, new, base, 0.01, 0.05)
        return Alarms(history).raise_([suspicion], held="the stack moved", raised_by=raised_by)[0]


def release(**runs: str) -> list[dict[str, Any]]:
    """runs: the states of runs of confirm_regression that are there already."""
    return ReleaseOperator(task_id="release").execute({"ti": TaskInstance(runs=runs)})  # type: ignore[typeddict-item]


def test_what_nothing_holds_any_more_has_one_run_that_releases_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (held(tmp_path, step) for step in (200, 300))
    with monkeypatch.context() as moved:
        moved.setattr(
            "evalcore.regression.confirmation.hold", lambda _, cluster: f"the stack of {cluster} moved"
        )
        assert release() == []
    runs = release()
    assert [run["trigger_run_id"] for run in runs] == ["confirm__1__ckpt__200", "confirm__2__ckpt__300"]
    assert runs[0]["conf"] == {"alarms": [first.id], "evaluation": "ckpt__200", "params": PARAMS}
    assert release() == runs, "tried again, or by two at once"
    asked: Any = {"params": runs[0]["conf"], "dag_run": Run(runs[0]["trigger_run_id"])}
    again = ConfirmOperator(task_id="confirm").execute(asked)
    assert [run["conf"]["checkpoint"] for run in again] == ["/ckpt/step-200", "/ckpt/step-100"]
    with open_history() as history:
        states = [it.state for it in Alarms(history).get([first.id, second.id])]
    assert states == [State.SUSPECTED, State.HELD]
    assert release(confirm__1__ckpt__200="running") == runs[1:]


@pytest.mark.parametrize("began", [False, True])
def test_a_run_that_failed_is_started_again_as_another_until_something_became_of_the_alarm(
    tmp_path: Path, began: bool
) -> None:
    alarm = held(tmp_path, 200)
    first, second, third = (f"confirm__1__ckpt__200{nth}" for nth in ("", "__2", "__3"))
    (run,) = release()
    assert run["trigger_run_id"] == first
    if began:
        ConfirmOperator(task_id="confirm").execute({"params": run["conf"], "dag_run": Run(first)})  # type: ignore[typeddict-item]
    for state in ("queued", "running", "success"):
        assert release(**{first: state}) == []
    again = [{**run, "trigger_run_id": second}]
    assert release(**{first: "failed"}) == again
    assert release(**{first: "failed"}) == again, "two tasks at once start the same one"
    assert release(**{first: "failed", second: "running"}) == []
    assert release(**{first: "failed", second: "failed"}) == [{**run, "trigger_run_id": third}]
    with open_history() as history:
        Alarms(history).settle(alarm.id, State.REFUTED)
    assert release(**{first: "failed", second: "failed"}) == []


def test_what_was_told_by_a_run_that_failed_later_is_not_looked_at_again(alarm: Alarm) -> None:
    with open_history() as history:
        (claimed,) = Alarms(history).claim([alarm.id], "confirm__1__ckpt__r")
    assert settle(claimed, Finished()) == [{"alarms": [alarm.id]}]
    assert release(confirm__1__ckpt__r="failed") == []


def test_no_more_are_released_at_once_than_airflow_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (200, 300, 400):
        held(tmp_path, step)
    assert confirm._AT_ONCE <= 1024
    monkeypatch.setattr(confirm, "_AT_ONCE", 2)
    assert [run["conf"]["alarms"] for run in release()] == [[1], [2]], "the first raised first"


def test_both_sides_have_a_run_of_their_own(alarm: Alarm) -> None:
    asked = ConfirmOperator(task_id="confirm").execute(context(alarm, TaskInstance()))
    assert [run["trigger_run_id"] for run in asked] == ["confirm__1__0", "confirm__1__1"]
    assert [run["conf"]["checkpoint"] for run in asked] == ["/ckpt/step-200", "/ckpt/step-100"]


def test_what_cannot_be_asked_again_has_no_run_and_is_told(alarm: Alarm) -> None:
    served = {"server_address": "http://host/v1"}
    assert ConfirmOperator(task_id="confirm").execute(context(alarm, TaskInstance(), **served)) == []
    assert settle(alarm, Finished(), **served) == [{"alarms": [alarm.id]}]
    with open_history() as history:
        assert "a server that runs already was asked" in Alarms(history).get([alarm.id])[0].reason


@pytest.mark.parametrize(("again", "state"), [(BAD, State.CONFIRMED), (GOOD, State.REFUTED)])
def test_what_was_seen_again_is_told(alarm: Alarm, tmp_path: Path, again: list[int], state: State) -> None:
    look_again(alarm, tmp_path, again)
    assert settle(alarm, Finished()) == ([{"alarms": [alarm.id]}] if state is State.CONFIRMED else [])
    with open_history() as history:
        assert Alarms(history).get([alarm.id])[0].state is state


def test_runs_that_left_nothing_are_no_runs_that_failed(alarm: Alarm) -> None:
    assert settle(alarm, Finished()) == [{"alarms": [alarm.id]}]
    with open_history() as history:
        reason = Alarms(history).get([alarm.id])[0].reason
    assert reason == "could not be confirmed: there is no whole evaluation of both on fresh seeds"


def test_the_ids_of_its_runs_are_no_longer_than_airflow_takes(alarm: Alarm) -> None:
    of = context(alarm, TaskInstance()) | {"dag_run": Run("r" * 250)}
    ids = {run["trigger_run_id"] for run in ConfirmOperator(task_id="confirm").execute(of)}
    assert len(ids) == 2
    assert max(map(len, ids)) <= 250


def test_a_run_that_failed_is_the_reason(alarm: Alarm) -> None:
    ti = Finished()
    ti.ended = ("success", "failed")
    assert settle(alarm, ti) == [{"alarms": [alarm.id]}]
    with open_history() as history:
        reason = Alarms(history).get([alarm.id])[0].reason
    assert reason == "could not be confirmed: a run that was to look again failed"


def test_without_alarms_there_is_nothing_to_confirm() -> None:
    with pytest.raises(AirflowFailException, match="no alarms are given"):
        ConfirmOperator(task_id="confirm").execute({"params": {"alarms": [], "params": {}}})  # type: ignore[typeddict-item]
