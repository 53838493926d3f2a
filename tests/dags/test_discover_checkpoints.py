from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization

DAGS = Path(__file__).parents[2] / "dags"


@pytest.fixture(scope="module")
def bag() -> DagBag:
    bag = DagBag(str(DAGS))
    assert bag.import_errors == {}
    return bag


@pytest.fixture(scope="module")
def dag(bag: DagBag) -> DAG:
    return bag.dags["discover_checkpoints"]


def test_it_can_be_stored(dag: DAG) -> None:
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert sorted(again.task_ids) == ["discover", "evaluate", "failures"]


def test_it_looks_every_five_minutes_one_look_at_a_time_and_never_at_what_it_missed(dag: DAG) -> None:
    assert dag.schedule == timedelta(minutes=5)
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert dag.is_paused_upon_creation


def test_each_checkpoint_is_a_run_of_its_own_and_known_ones_are_skipped(bag: DagBag, dag: DAG) -> None:
    evaluate = dag.get_task("evaluate")
    assert evaluate.is_mapped
    assert evaluate.partial_kwargs["skip_when_already_exists"] is True
    assert evaluate.partial_kwargs["trigger_dag_id"] in bag.dags
    assert evaluate.partial_kwargs["trigger_dag_id"] == dag.get_task("discover").trigger_dag_id


def test_a_round_with_nothing_new_ends_well_and_one_that_failed_does_not(dag: DAG) -> None:
    failures = dag.get_task("failures")
    # The run's state is this task's: a failed look, or run that was not made, fails it; skipped ones do not.
    assert dag.leaves == [failures]
    assert failures.trigger_rule.value == "none_failed"
    assert failures.upstream_task_ids == {"discover", "evaluate"}
    assert failures.retries == 0
