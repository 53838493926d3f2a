from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    DownstreamTasksSkipped,
    TaskDeferred,
)

from evalcore import fetch
from evalcore.sources.remote import Unavailable
from operators.fetch import FetchOperator
from operators.plan import PlanOperator
from task_instance import TaskInstance

pytestmark = pytest.mark.slow

CHECKPOINT = Path(__file__).parents[3] / "include" / "tiny" / "checkpoints" / "step-000900"
PARAMS: dict[str, Any] = {
    **dict.fromkeys(
        (
            "training_run",
            "name",
            "step",
            "benchmarks",
            "server_type",
            "server_address",
            "model",
            "max_problems",
        )
    ),
    **dict.fromkeys(("temperature", "top_p", "tokens_to_generate", "seed", "judge_model", "judge_address")),
    "suite": "tiny",
    "skip_greedy": False,
    "overrides": [],
    "dry_run": False,
}


class Noting(TaskInstance):
    """Gives back what was noted."""

    def xcom_pull(self, *, task_ids: str, key: str) -> Any:
        assert task_ids == self.task_id
        return self.xcoms[key]


@pytest.fixture
def ti() -> Noting:
    return Noting(task_id="fetch")


@pytest.fixture
def stored(tmp_path: Path) -> str:
    """A checkpoint in what is an object store as far as Airflow knows."""
    folder = tmp_path / "bucket" / "llama" / "step-000900"
    shutil.copytree(CHECKPOINT, folder)
    return f"file://{folder}"


def task(cluster: str = "local") -> FetchOperator:
    with DAG("d", schedule=None, params=PARAMS):
        fetching = FetchOperator(task_id="fetch", cluster=cluster, patience=0.0)
        fetching >> PlanOperator(task_id="plan", fetched=fetching.output) >> BaseOperator(task_id="convert")
    return fetching


def context(operator: FetchOperator, ti: Noting, results: Path, **params: Any) -> Any:
    return {"ti": ti, "task": operator, "params": {**PARAMS, "results": str(results), **params}}


@pytest.mark.parametrize("checkpoint", [None, "", str(CHECKPOINT), "relative/step-1"])
def test_a_path_needs_no_fetching(ti: Noting, tmp_path: Path, checkpoint: str | None) -> None:
    operator = task()
    with pytest.raises(AirflowSkipException):
        # Not even what is wrong with the rest is looked at: that is plan's.
        operator.execute(context(operator, ti, tmp_path, checkpoint=checkpoint, suite="nope"))
    assert ti.xcoms == {}


def test_the_worker_fetches_from_an_object_store(ti: Noting, tmp_path: Path, stored: str) -> None:
    operator = task()
    done = operator.execute(context(operator, ti, tmp_path / "r", checkpoint=f" {stored} "))
    revision = fetch.resolve(stored).revision
    folder = tmp_path / "r" / ".checkpoints" / f"llama-{revision}" / "step-000900"
    assert done == {"checkpoint": str(folder), "training_run": "llama", "step": 900}
    assert sorted(f.name for f in folder.iterdir()) == sorted(f.name for f in CHECKPOINT.iterdir())
    given = {"training_run": "mine", "step": 3}
    assert operator.execute(context(operator, ti, tmp_path / "r", checkpoint=stored, **given)) == {
        "checkpoint": str(folder),
        **given,
    }


def test_plan_takes_what_was_fetched(ti: Noting, tmp_path: Path, stored: str) -> None:
    operator = task()
    done = operator.execute(context(operator, ti, tmp_path, checkpoint=stored, training_run="mine"))
    planning = operator.dag.get_task("plan")
    planning.fetched = done
    planned: Any = context(operator, ti, tmp_path, checkpoint=stored, training_run="mine", cluster="local")
    planned["dag_run"] = type("DagRun", (), {"conf": None})
    [benchmark] = planning.execute(planned)
    assert benchmark["brings"][1] == str(tmp_path / "mine" / "step-000900" / "tiny-arithmetic")


def test_what_is_wrong_is_said_before_anything_is_fetched(
    ti: Noting, tmp_path: Path, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = task()
    for params, message in (
        ({"benchmarks": "nope:1"}, "unknown benchmark 'nope'"),
        ({"checkpoint": f"{stored}0"}, "step-0009000: "),
        ({"checkpoint": "nosuch://bucket/step-1"}, "nosuch://bucket/step-1: "),
        ({"overrides": ["wrong"]}, "expected key.name=value"),
    ):
        with pytest.raises(AirflowFailException, match=message):
            operator.execute(context(operator, ti, tmp_path / "r", **{"checkpoint": stored, **params}))
        assert message in ti.xcoms["failure"]

    def away(url: str) -> None:
        raise Unavailable("the hub is away")

    monkeypatch.setattr("hooks.places.resolve", away)
    with pytest.raises(AirflowException, match="the hub is away") as failure:
        operator.execute(context(operator, ti, tmp_path / "r", checkpoint="hf://org/repo@step1"))
    assert not isinstance(failure.value, AirflowFailException), "another try may find it"
    assert not (tmp_path / "r").exists()


def test_a_dry_run_says_what_would_be_fetched(ti: Noting, tmp_path: Path, stored: str) -> None:
    operator = task()
    with structlog.testing.capture_logs() as logged, pytest.raises(DownstreamTasksSkipped) as skipped:
        operator.execute(context(operator, ti, tmp_path / "r", checkpoint=stored, dry_run=True))
    assert sorted(skipped.value.tasks) == ["convert", "plan"]
    lines = [entry["event"] % entry.get("positional_args", ()) for entry in logged]
    for stage in (f"fetch {stored} ", "convert ", "generate ", "grade "):
        assert [line for line in lines if line.startswith(f"evalcore {stage}")], lines
    assert not (tmp_path / "r").exists()
    # If it is there, plan says the rest.
    fetch.fetch(fetch.resolve(stored), tmp_path / "r")
    assert operator.execute(context(operator, ti, tmp_path / "r", checkpoint=stored, dry_run=True))


def test_on_a_cluster_a_job_does_it_with_the_credentials_there(
    ti: Noting, tmp_path: Path, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote"
    said = {"executor": "slurm", "tunnel": "local", "remote_job_dir": str(remote), "python": sys.executable}
    said |= {"gpus_per_node": 8, "nodes": 2, "partition": "batch"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in said.items()]
    (tmp_path / "env.toml").write_text("\n".join(["[cluster]", *lines, ""]))
    monkeypatch.setenv("EVALCORE_ENV_TOML", str(tmp_path / "env.toml"))
    (tmp_path / "bin").mkdir()
    for name, text in {"squeue": "exit 0", "sbatch": f"echo $* > {tmp_path}/options; echo 7"}.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("AIRFLOW_CONN_STORE", '{"conn_type": "generic"}')
    operator = task("cluster")
    url = stored.replace("://", "://store@")
    with pytest.raises(TaskDeferred):
        operator.execute(context(operator, ti, tmp_path / "here", checkpoint=url))
    found = fetch.resolve(stored)
    [job] = (remote / "jobs").glob("*/1/command.json")
    argv = json.loads(job.read_text())["argv"]
    assert argv[argv.index("fetch") :] == fetch.command(stored, found.revision, remote / "results")[1:]
    options = (tmp_path / "options").read_text()
    assert "--partition=batch" in options
    assert "--nodes=1" in options
    assert "gpus" not in options
    # What was deferred has forgotten all of it.
    again = task("cluster")
    again._recall({"ti": ti})  # type: ignore[typeddict-item]
    assert again.argv == fetch.command(stored, found.revision, remote / "results")
    assert again.returns["checkpoint"] == str(fetch.folder_of(found, remote / "results"))
    assert again.jobs_folder == str(tmp_path / "here" / ".jobs")
