from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization

from evalcore import include
from evalcore.config import ServerType

DAGS = Path(__file__).parents[2] / "dags"


@pytest.fixture(scope="module")
def dag() -> DAG:
    bag = DagBag(str(DAGS))
    assert bag.import_errors == {}
    return bag.dags["evaluate_checkpoint"]


def test_it_can_be_stored(dag: DAG) -> None:
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert sorted(again.task_ids) == sorted(dag.task_ids)


def test_its_boxes_are_the_stages_in_their_order(dag: DAG) -> None:
    assert dag.task_ids == [
        "fetch",
        "plan",
        "convert",
        "generate",
        "score.grade",
        "score.judge",
        "score.summarize",
        "track",
        "record",
        "compare",
        "confirm",
        "report",
    ]
    edges = {task.task_id: task.upstream_task_ids - {"plan"} for task in dag.tasks}
    assert edges == {
        "fetch": set(),
        "plan": {"fetch"},
        "convert": set(),
        "generate": {"convert"},
        "score.grade": {"generate"},
        "score.judge": {"score.grade"},
        "score.summarize": {"score.judge"},
        "track": {"score.summarize"},
        "record": {"score.summarize"},
        "compare": {"record"},
        "confirm": {"compare"},
        "report": {"track", "confirm"},
    }


def test_a_failed_benchmark_does_not_lose_the_others(dag: DAG) -> None:
    rules = {task.task_id: task.trigger_rule.value for task in dag.tasks}
    assert rules == {
        "fetch": "all_success",
        "plan": "none_failed",
        "convert": "all_success",
        "generate": "all_success",
        "score.grade": "all_done",
        "score.judge": "all_success",
        "score.summarize": "none_failed",
        "track": "all_done_min_one_success",
        "record": "all_done_min_one_success",
        "compare": "all_success",
        "confirm": "all_success",
        "report": "all_done",
    }
    # One success among its upstreams would always be there if plan were one of them.
    assert dag.get_task("track").upstream_task_ids == {"score.summarize"}


def test_jobs_are_tried_again_after_a_dead_worker_and_what_only_reads_is_not(dag: DAG) -> None:
    retries = {task.task_id: task.retries for task in dag.tasks}
    assert {task for task, number in retries.items() if number == 0} == {"report"}
    assert {retries[task] for task in dag.task_ids if task != "report"} == {2}


def test_a_command_given_as_a_template_stays_a_list(dag: DAG) -> None:
    task = dag.get_task("track")
    context = {"ti": Pulled({"track": ["evalcore", "track"], "jobs_folder": "/results/.jobs"})}
    assert task.render_template(task.argv, context) == ["evalcore", "track"]
    assert task.render_template(task.jobs_folder, context) == "/results/.jobs"


@pytest.mark.parametrize("wanted", [True, False])
def test_every_job_knows_where_it_runs_and_whether_its_container_is_made_anew(dag: DAG, wanted: bool) -> None:
    params = {"cluster": "there", "force_squash": wanted}
    for task in dag.tasks:
        if task.task_id in ("plan", "record", "compare", "confirm", "report"):  # these run in a worker
            continue
        written = task.partial_kwargs if task.is_mapped else vars(task)
        for name, value in params.items():
            assert dag.get_task("track").render_template(written[name], {"params": params}) is value


class Pulled(NamedTuple):
    """What of a task instance a template uses."""

    xcoms: dict[str, Any]

    def xcom_pull(self, *, task_ids: str, key: str) -> Any:
        assert task_ids == "plan"
        return self.xcoms[key]


def test_the_form_offers_what_there_is(dag: DAG) -> None:
    assert dag.params.get_param("suite").schema["enum"] == include.names("suites")
    assert dag.params.get_param("server_type").schema["enum"] == [None, *get_args(ServerType)]
    assert dag.doc_md.startswith("# Evaluate a checkpoint")


def test_every_param_says_what_it_is(dag: DAG) -> None:
    for name in dag.params:
        param = dag.params.get_param(name)
        assert param.description, name
        assert "`" not in param.description, "the form shows it as it is"
        assert "type" in param.schema, name


@pytest.mark.parametrize("word", ["key", "token", "secret", "password"])
def test_no_param_asks_for_a_secret(dag: DAG, word: str) -> None:
    assert [name for name in dag.params if word in name] in ([], ["tokens_to_generate"])


def test_the_defaults_are_valid(dag: DAG) -> None:
    dag.params.validate()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("benchmarks", "gsm8k:4, aime24:64,math-500:0"),
        ("benchmarks", "comp-math-24-25"),
        ("server_address", "http://127.0.0.1:8000/v1"),
        ("temperature", 0),
        ("overrides", ["++inference.temperature=0.6", "server.args=[--x,1]"]),
    ],
)
def test_good_values(dag: DAG, name: str, value: Any) -> None:
    assert resolve(dag, name, value) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("benchmarks", "gsm8k:-1"),
        ("benchmarks", "gsm8k:4;rm -rf"),
        ("benchmarks", "../gsm8k"),
        ("suite", "no-such-suite"),
        ("server_type", "llamacpp"),
        ("server_address", "localhost:8000"),
        ("temperature", -1),
        ("top_p", 0),
        ("tokens_to_generate", 0),
        ("step", 1.5),
        ("max_problems", 0),
        ("cluster", "slurm"),
        ("results", ""),
        ("overrides", ["not an assignment"]),
        ("overrides", "inference.temperature=0.6"),
        ("dry_run", "yes"),
    ],
)
def test_bad_values(dag: DAG, name: str, value: Any) -> None:
    with pytest.raises(ParamValidationError):
        resolve(dag, name, value)


def resolve(dag: DAG, name: str, value: Any) -> Any:
    return dag.params.get_param(name).resolve(value)


@pytest.mark.slow
def test_reading_the_dag_imports_nothing_heavy() -> None:
    # The dag processor reads it again and again, and every task does before it starts.
    code = (
        f"import sys; sys.path[:0] = [{str(DAGS)!r}, {str(DAGS.parent / 'plugins')!r}]; import airflow.sdk;"
        "import evaluate_checkpoint as _;"
        "heavy = {'numpy', 'sympy', 'openai', 'wandb', 'omegaconf', 'tokenizers', 'aiohttp'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
