"""The DAGs with a human in the loop: what they ask for, and in which order."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization

DAGS = Path(__file__).parents[2] / "dags"
TASKS = {
    "acknowledge_alert": ["show", "ask", "acknowledge"],
    "promote_baseline": ["propose", "ask", "promote"],
}

AFTER = {"acknowledge_alert": ["release", "confirm"], "promote_baseline": []}


@pytest.fixture(scope="module")
def bag() -> DagBag:
    bag = DagBag(str(DAGS))
    assert bag.import_errors == {}
    return bag


@pytest.fixture(params=TASKS)
def dag(bag: DagBag, request: pytest.FixtureRequest) -> DAG:
    return bag.dags[request.param]


def test_it_can_be_stored(dag: DAG) -> None:
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert sorted(again.task_ids) == sorted(dag.task_ids)


def test_nothing_is_written_before_somebody_has_answered(dag: DAG) -> None:
    first, ask, last = TASKS[dag.dag_id]
    assert dag.get_task(ask).upstream_task_ids == {first}
    assert dag.get_task(last).upstream_task_ids == {first, ask}
    after = AFTER[dag.dag_id]
    assert dag.task_ids == [*TASKS[dag.dag_id], *after]
    for upstream, task in pairwise([last, *after]):
        assert dag.get_task(task).upstream_task_ids == {upstream}
    # What is skipped, or rejected, ends the run well.
    assert {task.trigger_rule.value for task in dag.tasks} == {"all_success"}


def test_it_is_started_by_hand_or_by_what_alerts_and_never_waits_to_be_unpaused(dag: DAG) -> None:
    assert (dag.schedule, dag.is_paused_upon_creation) == (None, False)
    assert dag.doc_md.startswith("# ")


def test_the_question_is_what_the_first_task_wrote(dag: DAG) -> None:
    first, ask, _ = TASKS[dag.dag_id]
    task = dag.get_task(ask)
    for name in ("subject", "body"):
        context = {"ti": Pulled(first, name)}
        # As it is: braces in a problem's id are no template.
        assert task.render_template(getattr(task, name), context) == f"the {{{{ {name} }}}}"
    assert list(task.params) == ["note"]


class Pulled:
    def __init__(self, task: str, key: str) -> None:
        self.expected = (task, key)

    def xcom_pull(self, *, task_ids: str, key: str) -> str:
        assert (task_ids, key) == self.expected
        return f"the {{{{ {key} }}}}"


def test_what_can_be_answered(bag: DagBag) -> None:
    ask = bag.dags["acknowledge_alert"].get_task("ask")
    assert type(ask) is HITLOperator
    assert ask.options == ["Acknowledge", "Leave open"]
    assert type(bag.dags["promote_baseline"].get_task("ask")) is ApprovalOperator


def test_every_param_says_what_it_is(dag: DAG) -> None:
    for name in dag.params:
        assert dag.params.get_param(name).description, name


@pytest.mark.parametrize(
    ("dag_id", "name", "value"),
    [
        ("acknowledge_alert", "alarms", []),
        ("acknowledge_alert", "alarms", ["1"]),
        ("acknowledge_alert", "alarms", 1),
        ("promote_baseline", "training_run", ""),
        ("promote_baseline", "checkpoint", None),
        ("promote_baseline", "benchmarks", "gsm8k"),
    ],
)
def test_bad_values(bag: DagBag, dag_id: str, name: str, value: Any) -> None:
    with pytest.raises(ParamValidationError):
        bag.dags[dag_id].params.get_param(name).resolve(value)
