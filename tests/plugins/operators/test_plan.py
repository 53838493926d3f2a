from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
import structlog.testing
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, DownstreamTasksSkipped

from evalcore.backends import Unreachable
from evalcore.config import EvalConfig
from evalcore.plan import plan
from evalcore.settings import Wandb
from evalcore.slurm.cluster import Cluster
from operators.plan import PlanOperator, config_from_params
from task_instance import TaskInstance

# They start processes, and wait for them.
pytestmark = pytest.mark.slow

CHECKPOINT = sorted((Path(__file__).parents[3] / "include" / "tiny" / "checkpoints").glob("step-*"))[1]
EMPTY = {
    **dict.fromkeys(
        ("checkpoint", "training_run", "name", "step", "benchmarks", "server_type", "server_address", "model")
    ),
    **dict.fromkeys(("temperature", "top_p", "tokens_to_generate", "seed", "max_problems")),
    **dict.fromkeys(("judge_model", "judge_address")),
    "suite": "tiny",
    "cluster": "local",
    "skip_greedy": False,
    "overrides": [],
    "dry_run": False,
}


class DagRun(NamedTuple):
    """What of a DAG run the operator uses."""

    conf: dict[str, Any] | None


@pytest.fixture
def task() -> PlanOperator:
    with DAG("d", schedule=None, params={**EMPTY, "results": "/r"}):
        plan = PlanOperator(task_id="plan")
        plan >> BaseOperator(task_id="generate") >> BaseOperator(task_id="report", trigger_rule="all_done")
    return plan


def run(
    task: PlanOperator, results: Path, conf: dict[str, Any] | None = None, **params: Any
) -> tuple[Any, dict[str, Any]]:
    ti = TaskInstance()
    context: Any = {
        "ti": ti,
        "dag_run": DagRun(conf),
        "task": task,
        "params": {**EMPTY, "checkpoint": str(CHECKPOINT), "results": str(results), **params},
    }
    return task.execute(context), ti.xcoms


def test_it_lays_out_the_commands_of_every_stage(task: PlanOperator, tmp_path: Path) -> None:
    benchmarks, xcoms = run(task, tmp_path, judge_model="gpt")
    assert [b["name"] for b in benchmarks] == ["tiny-arithmetic"]
    folder = str(tmp_path / "tiny" / CHECKPOINT.name / "tiny-arithmetic")
    assert benchmarks[0]["brings"] == [folder, folder]
    settings = xcoms["settings"]["tiny-arithmetic"]
    assert benchmarks[0]["grade"] == ["evalcore", "grade", folder, "--settings", settings]
    assert xcoms["convert"][:2] == ["evalcore", "convert"]
    assert [job["subject"] for job in xcoms["generate"]] == ["tiny-arithmetic:8"]
    assert xcoms["generate"][0]["argv"][:2] == ["evalcore", "generate"]
    assert xcoms["track"][:2] == ["evalcore", "track"]
    assert xcoms["jobs_folder"] == str(tmp_path / ".jobs")


def test_params_become_settings() -> None:
    params = {
        **EMPTY,
        "checkpoint": " /ckpt/step-7 ",
        "training_run": "llama",
        "step": 7,
        "benchmarks": "gsm8k:4",
        "results": "/r",
        "server_type": "vllm",
        "model": "",
        "skip_greedy": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "tokens_to_generate": 64,
        "seed": 3,
        "judge_model": "gpt",
        "judge_address": "http://judge/v1",
        "max_problems": 5,
        "overrides": ["inference.temperature=0.6", "client.concurrency=8"],
    }
    config = config_from_params(params)
    assert (config.checkpoint, config.training_run, config.step) == ("/ckpt/step-7", "llama", 7)
    assert [str(b) for b in config.benchmarks] == ["gsm8k:4"]
    assert (config.server.type, config.server.model, config.skip_greedy) == ("vllm", None, True)
    # A dotted override wins over the form's own field.
    assert (config.inference.temperature, config.inference.top_p) == (0.6, 0.9)
    assert (config.inference.tokens_to_generate, config.inference.seed) == (64, 3)
    assert (config.judge.model, config.judge.address) == ("gpt", "http://judge/v1")
    assert (config.max_problems, config.client.concurrency) == (5, 8)


def test_empty_fields_leave_it_to_the_suite() -> None:
    config = config_from_params({**EMPTY, "checkpoint": "/c", "results": "/r"})
    assert [str(b) for b in config.benchmarks] == ["tiny-arithmetic:8"]
    assert config.inference.temperature is None
    assert not config.skip_greedy


ENV_TOML = """
[wandb]
project = "file"
entity = "team"

[there]
executor = "slurm"
remote_job_dir = "/lustre/me"
"""


@pytest.fixture
def env_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "env.toml").write_text(ENV_TOML)
    monkeypatch.setenv("EVALCORE_ENV_TOML", str(tmp_path / "env.toml"))


@pytest.mark.usefixtures("env_toml")
def test_what_env_toml_says_of_wandb_lies_under_the_overrides() -> None:
    params = {**EMPTY, "checkpoint": "/c", "results": "/r"}
    assert config_from_params(params).wandb == Wandb(project="file", entity="team")
    params["overrides"] = ["wandb.project=mine"]
    assert config_from_params(params).wandb == Wandb(project="mine", entity="team")


@pytest.mark.usefixtures("env_toml")
def test_what_env_toml_says_here_is_what_a_cluster_plans_with(
    task: PlanOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(cluster: Cluster, module: str, *, stdin: bytes, timeout: float) -> bytes:
        assert module == "evalcore.plan"
        return orjson.dumps(plan(EvalConfig.model_validate_json(stdin)))

    monkeypatch.setattr(Cluster, "run", answer)
    _, xcoms = run(task, tmp_path, cluster="there", overrides=["wandb.project=mine"])
    assert xcoms["track"][2].startswith("/lustre/me/results/tiny/")
    assert xcoms["track"][3:5] == ["wandb.project=mine", "wandb.entity=team"]
    assert "wandb.mode=null" not in xcoms["track"], "nobody said so"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"checkpoint": "/no/such"}, "checkpoint /no/such: no such folder"),
        ({"benchmarks": "nope:4"}, "unknown benchmark 'nope'; valid: .*tiny-arithmetic"),
        (
            {"overrides": ["inference.temprature=1"]},
            "unknown key 'inference.temprature'; valid: .*temperature",
        ),
        ({"overrides": ["wrong"]}, "expected key.name=value"),
        ({"checkpoint": None}, "give a checkpoint, or server.address"),
        ({"server_type": "openai"}, "server.type=openai needs server.address"),
    ],
)
def test_a_wrong_request_fails_at_once_in_one_line(
    task: PlanOperator, tmp_path: Path, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(AirflowFailException, match=message) as failure:
        run(task, tmp_path, **params)
    assert "\n" not in str(failure.value)


def test_why_it_failed_is_left_for_the_report(task: PlanOperator, tmp_path: Path) -> None:
    ti = TaskInstance()
    params = {**EMPTY, "results": str(tmp_path), "suite": "nope"}
    context: Any = {"ti": ti, "dag_run": DagRun(None), "params": params}
    with pytest.raises(AirflowFailException):
        task.execute(context)
    assert ti.xcoms["error"].startswith("unknown suite 'nope'")


def test_a_cluster_that_cannot_be_reached_is_tried_again(
    task: PlanOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> bytes:
        raise Unreachable("login: timed out")

    env = tmp_path / "env.toml"
    env.write_text('[far]\nexecutor = "slurm"\nremote_job_dir = "/lustre/me"\n')
    monkeypatch.setenv("EVALCORE_ENV_TOML", str(env))
    monkeypatch.setattr(Cluster, "run", away)
    ti = TaskInstance()
    params = {**EMPTY, "checkpoint": "/c", "results": str(tmp_path), "cluster": "far"}
    context: Any = {"ti": ti, "dag_run": DagRun(None), "task": task, "params": params}
    with pytest.raises(AirflowException, match="cluster far: login: timed out") as failure:
        task.execute(context)
    assert not isinstance(failure.value, AirflowFailException)
    # And if that was the last try, the report says why.
    assert ti.xcoms["error"] == "cluster far: login: timed out"


def test_an_unknown_key_of_the_runs_conf_fails_too(task: PlanOperator, tmp_path: Path) -> None:
    with pytest.raises(
        AirflowFailException, match="unknown param 'max_problem'; valid: benchmarks, "
    ) as failure:
        run(task, tmp_path, conf={"max_problem": 5, "suite": "tiny"})
    assert "max_problems, " in str(failure.value)
    assert run(task, tmp_path, conf={"suite": "tiny", "max_problems": 5})[0]


def test_a_dry_run_prints_every_command_and_skips_everything(task: PlanOperator, tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logged, pytest.raises(DownstreamTasksSkipped) as skipped:
        run(task, tmp_path, dry_run=True)
    assert sorted(skipped.value.tasks) == ["generate", "report"]
    lines = [entry["event"] for entry in logged]
    for stage in ("convert", "generate", "grade", "summarize", "track"):
        assert [line for line in lines if line.startswith(f"evalcore {stage} ")]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("mounts", "seen"),
    [
        ([f"{CHECKPOINT}:{CHECKPOINT}:ro"], True),
        ([f"{CHECKPOINT.parent}"], True),
        ([f"{CHECKPOINT.parent}:{CHECKPOINT.parent}"], True),
        ([], False),
        ([f"{CHECKPOINT.parent}:/checkpoints"], False),
        ([f"{CHECKPOINT.parent}/other"], False),
        ([f"{CHECKPOINT}0"], False),
    ],
)
def test_a_checkpoint_has_to_be_in_the_containers_too(
    task: PlanOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: list[str], seen: bool
) -> None:
    profiles = tmp_path / "env.toml"
    profiles.write_text(f'[box]\nexecutor = "docker"\ncontainer_image = "evalcore"\nmounts = {mounts}\n')
    monkeypatch.setenv("EVALCORE_ENV_TOML", str(profiles))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    if seen:
        assert run(task, tmp_path, cluster="box")[0]
    else:
        with pytest.raises(AirflowFailException, match=f"no container sees {CHECKPOINT}; add it"):
            run(task, tmp_path, cluster="box")
    # Results are mounted in any case.
    copied = tmp_path / "results" / CHECKPOINT.name
    copied.parent.mkdir()
    copied.symlink_to(CHECKPOINT)
    assert run(task, copied.parent, checkpoint=str(copied), cluster="box")[0]


def on_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **keys: object) -> Path:
    """Makes a profile ``cluster`` whose login node is here; returns its remote_job_dir."""
    remote = tmp_path / "remote"
    said = {"executor": "slurm", "tunnel": "local", "remote_job_dir": str(remote), "python": sys.executable}
    lines = [f"{key} = {json.dumps(value)}" for key, value in {**said, **keys}.items()]
    (tmp_path / "env.toml").write_text("\n".join(["[cluster]", *lines, ""]))
    monkeypatch.setenv("EVALCORE_ENV_TOML", str(tmp_path / "env.toml"))
    return remote


def test_on_a_cluster_commands_are_laid_out_over_there(
    task: PlanOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = on_cluster(tmp_path, monkeypatch)
    here = tmp_path / "here"
    benchmarks, xcoms = run(task, here, cluster="cluster")
    part = Path("tiny", CHECKPOINT.name, "tiny-arithmetic")
    there = str(remote / "results" / part)
    assert benchmarks[0]["brings"] == [there, str(here / part)]
    assert benchmarks[0]["grade"][:3] == ["evalcore", "grade", there]
    assert xcoms["jobs_folder"] == str(here / ".jobs")
    assert not here.exists()


@pytest.mark.parametrize(
    ("keys", "params", "message"),
    [
        ({}, {"checkpoint": "/no/such"}, "checkpoint /no/such: no such folder"),
        ({"remote_job_dir": "/dev/null/jobs"}, {}, "cluster cluster: /dev/null/.*: Not a directory"),
    ],
)
def test_what_is_wrong_there_fails_the_task_at_once(
    task: PlanOperator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keys: dict[str, object],
    params: dict[str, Any],
    message: str,
) -> None:
    on_cluster(tmp_path, monkeypatch, **keys)
    with pytest.raises(AirflowFailException, match=message) as failure:
        run(task, tmp_path / "here", cluster="cluster", **params)
    assert "\n" not in str(failure.value)
