"""confirm_regression and nightly_regression as they are wired."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pendulum
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization

DAGS = Path(__file__).parents[2] / "dags"


@pytest.fixture(scope="module")
def dags() -> dict[str, DAG]:
    bag = DagBag(str(DAGS))
    assert bag.import_errors == {}
    return bag.dags


@pytest.mark.parametrize(
    ("name", "upstream", "rules"),
    [
        (
            "confirm_regression",
            {
                "confirm": set(),
                "again": {"confirm"},
                "settle": {"again"},
                "alert": {"settle"},
                "acknowledge": {"settle"},
            },
            # What could not be looked at again is told, too.
            {"settle": "all_done"},
        ),
        (
            "nightly_regression",
            {
                "canaries": set(),
                "canary": {"canaries"},
                "stack": {"canary"},
                "alert": {"stack"},
                "acknowledge": {"stack"},
                "models": {"stack"},
                "evaluate": {"models"},
                "failures": {"evaluate"},
                # What tonight's comparisons find again they have confirmed themselves.
                "release": {"evaluate"},
                "confirm": {"release"},
            },
            # One canary that fails does not keep the models from being evaluated, nor a model what was held.
            {"stack": "all_done", "models": "all_done", "failures": "all_done", "release": "all_done"},
        ),
    ],
)
def test_boxes(dags: dict[str, DAG], name: str, upstream: dict[str, set[str]], rules: dict[str, str]) -> None:
    dag = dags[name]
    assert {task.task_id: task.upstream_task_ids for task in dag.tasks} == upstream
    found = {task.task_id: task.trigger_rule.value for task in dag.tasks}
    assert {task: rule for task, rule in found.items() if rule != "all_success"} == rules
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert sorted(again.task_ids) == sorted(dag.task_ids)


def test_how_many_runs_go_at_once_and_none_for_what_was_missed(dags: dict[str, DAG]) -> None:
    assert {name: dag.max_active_runs for name, dag in dags.items()} == {
        # A second one would find what the first is about to start.
        "nightly_regression": 1,
        "discover_checkpoints": 1,
        # What nobody answers must not keep the next from being asked.
        "acknowledge_alert": 1000,
        "promote_baseline": 1000,
        # As Airflow is set.
        "confirm_regression": 16,
        "evaluate_checkpoint": 16,
    }
    assert not any(dag.catchup for dag in dags.values())


def test_the_sweep_is_every_night_at_two(dags: dict[str, DAG]) -> None:
    stored = DagSerialization.from_dict(DagSerialization.to_dict(dags["nightly_regression"]))
    # Over the end of a month, and a night without a two o'clock in Europe.
    for first in (pendulum.datetime(2026, 11, 29), pendulum.datetime(2026, 3, 28)):
        nights = stored.iter_dagrun_infos_between(first, first.add(days=3))
        assert [night.run_after for night in nights] == [first.add(days=day, hours=2) for day in range(3)]


def test_what_fails_is_tried_again_soon_and_twice(dags: dict[str, DAG]) -> None:
    told = {"alert": timedelta(seconds=30)}
    for dag in dags.values():
        for task in dag.tasks:
            # The last task only says what failed.
            last = task.task_id in ("failures", "report")
            number = 0 if last else 8 if task.task_id == "alert" else 2
            assert task.retries == number, (dag.dag_id, task.task_id)
            assert task.retry_delay == told.get(task.task_id, timedelta(seconds=10)), (
                dag.dag_id,
                task.task_id,
            )


def test_a_suspicion_is_looked_at_whether_or_not_anybody_switched_it_on(dags: dict[str, DAG]) -> None:
    paused = {name: dag.is_paused_upon_creation for name, dag in dags.items()}
    assert paused["confirm_regression"] is False
    assert paused["nightly_regression"] is True


def test_evaluations_that_are_waited_for_go_on_where_they_were(dags: dict[str, DAG]) -> None:
    for name, task_id in (
        ("confirm_regression", "again"),
        ("nightly_regression", "canary"),
        ("nightly_regression", "evaluate"),
    ):
        given = dags[name].get_task(task_id).partial_kwargs
        assert (given["reset_dag_run"], given["wait_for_completion"], given["deferrable"]) == (True,) * 3
        assert given["trigger_dag_id"] == "evaluate_checkpoint"


def test_a_confirmation_is_started_once_and_not_waited_for(dags: dict[str, DAG]) -> None:
    for name in ("evaluate_checkpoint", "nightly_regression", "acknowledge_alert"):
        given = dags[name].get_task("confirm").partial_kwargs
        assert given["trigger_dag_id"] == "confirm_regression"
        assert given["skip_when_already_exists"] is True
        assert not given.get("wait_for_completion")


@pytest.mark.parametrize(
    ("name", "told_by"),
    [("discover_checkpoints", ["discover"]), ("nightly_regression", ["canaries", "stack", "models"])],
)
def test_what_was_gone_past_fails_the_run_in_the_end(
    dags: dict[str, DAG], name: str, told_by: list[str]
) -> None:
    assert dags[name].get_task("failures").told_by == told_by
    assert set(told_by) < set(dags[name].task_ids)


def test_what_settles_looks_at_the_runs_that_looked_again(dags: dict[str, DAG]) -> None:
    assert dags["confirm_regression"].get_task("settle").confirmed_by == "again"


def test_telling_is_tried_for_hours(dags: dict[str, DAG]) -> None:
    for name in ("confirm_regression", "nightly_regression"):
        alert = dags[name].get_task("alert")
        assert (alert.retry_exponential_backoff, alert.max_retry_delay) == (2, timedelta(hours=1))


def test_somebody_is_asked_to_acknowledge_once_a_run(dags: dict[str, DAG]) -> None:
    for name in ("confirm_regression", "nightly_regression"):
        given = dags[name].get_task("acknowledge").partial_kwargs
        assert given["trigger_dag_id"] in dags
        assert (given["trigger_run_id"], given["skip_when_already_exists"]) == (
            "acknowledge__{{ run_id }}",
            True,
        )


def test_the_night_begins_when_it_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, cron in (("30 22 * * *", "30 22 * * *"), ("", "0 2 * * *")):
        monkeypatch.setenv("EVALCORE_NIGHTLY", said)
        bag = DagBag(str(DAGS / "nightly_regression.py"))
        night = DagSerialization.to_dict(bag.dags["nightly_regression"])["dag"]
        assert night["timetable"]["__var"]["expression"] == cron
