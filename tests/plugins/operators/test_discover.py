"""discover as a task: what is new, at most so much at once, whatever single training runs suffer from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from airflow.sdk import DAG

from evalcore.backends import Unreachable
from evalcore.config import EvalConfig
from evalcore.discovery import Folder
from evalcore.slurm.cluster import Cluster
from operators import discover
from operators.discover import DiscoverOperator
from operators.plan import config_from_params
from task_instance import TaskInstance
from tiny_folder import write_checkpoint


class Runs(TaskInstance):
    """A task instance in an Airflow with some runs of evaluate_checkpoint. asked: how often it was, for how many."""

    def __init__(self, *known: str) -> None:
        super().__init__()
        self.known = set(known)
        self.asked: list[int] = []

    def get_dr_count(self, dag_id: str, run_ids: list[str]) -> int:
        assert dag_id == "evaluate_checkpoint"
        assert run_ids, "without ids Airflow counts all runs"
        self.asked.append(len(run_ids))
        return len(self.known.intersection(run_ids))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path / "include"))
    (tmp_path / "include" / "tracked").mkdir(parents=True)
    return tmp_path


def follow(folder: Path, name: str, more: str = "", steps: range = range(0)) -> None:
    (folder / "include" / "tracked" / f"{name}.yaml").write_text(
        f"source: {{path: {folder / name}}}\nsuite: tiny\n{more}"
    )
    (folder / name).mkdir()
    for step in steps:
        (folder / name / f"step-{step}").mkdir()


@pytest.fixture
def all_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Folder, "missing", lambda self, found: [""] * len(found))


def run(ti: Runs) -> list[dict[str, Any]]:
    with DAG("d", schedule=None):
        task = DiscoverOperator(task_id="discover", trigger_dag_id="evaluate_checkpoint")
    context: Any = {"ti": ti}
    return task.execute(context)


def ids(asked: list[dict[str, Any]]) -> list[str]:
    return [a["trigger_run_id"] for a in asked]


def test_complete_and_new_ones_become_runs_that_evaluate_checkpoint_takes(folder: Path) -> None:
    follow(folder, "llama", "overrides: [inference.seed=3]\n")
    write_checkpoint(folder / "llama" / "step-7")
    (folder / "llama" / "step-7" / "tokenizer.json").write_text("{}")
    write_checkpoint(folder / "llama" / "step-8")
    ti = Runs()
    with structlog.testing.capture_logs() as logged:
        [asked] = run(ti)
    assert any(
        "step-8: no tokenizer yet" in entry["event"] % entry.get("positional_args", ()) for entry in logged
    )
    assert ti.xcoms["failures"] == []
    empty = dict.fromkeys(
        (
            "benchmarks",
            "max_problems",
            "server_type",
            "server_address",
            "model",
            "temperature",
            "top_p",
            "seed",
        )
    ) | dict.fromkeys(("tokens_to_generate", "judge_model", "judge_address", "skip_greedy", "name"))
    config = config_from_params({**empty, "results": "/r", **asked["conf"]})
    assert isinstance(config, EvalConfig)
    assert (config.checkpoint, config.training_run, config.step) == (
        str(folder / "llama" / "step-7"),
        "llama",
        7,
    )
    assert config.inference.seed == 3
    assert run(Runs(asked["trigger_run_id"])) == []


@pytest.mark.usefixtures("all_complete")
def test_known_ones_are_left_out_and_few_questions_tell_which(folder: Path) -> None:
    follow(folder, "llama", steps=range(1000))
    everything: list[str] = []
    while rest := ids(run(Runs(*everything))):
        everything += rest
    assert len(set(everything)) == len(everything) == 1000
    steps = [int(i.split("__")[2].removeprefix("step-")) for i in everything]
    assert steps == sorted(steps), "the oldest first, in rounds"
    ti = Runs(*everything)
    assert run(ti) == []
    assert len(ti.asked) == 10
    assert max(ti.asked) <= 100, "more would not fit into an address"
    ti = Runs(*everything[:500], *everything[501:])
    assert ids(run(ti)) == [everything[500]]
    assert len(ti.asked) < 30


@pytest.mark.usefixtures("all_complete")
def test_a_round_is_no_more_than_airflow_maps_and_training_runs_take_turns(folder: Path) -> None:
    follow(folder, "long", steps=range(1100))
    follow(folder, "short", steps=range(3))
    found = ids(run(Runs()))
    assert len(found) == discover._AT_ONCE < 1024
    assert [i.split("__")[1] for i in found[:8]] == [*["long", "short"] * 3, "long", "long"]


@pytest.mark.usefixtures("all_complete")
def test_what_cannot_be_looked_at_is_said_after_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> bytes:
        raise Unreachable("login01: timed out")

    env = folder / "env.toml"
    env.write_text('[far]\nexecutor = "slurm"\nremote_job_dir = "/lustre/me"\n')
    monkeypatch.setenv("EVALCORE_ENV_TOML", str(env))
    monkeypatch.setattr(Cluster, "run", away)
    follow(folder, "a-wrong", "suit: tiny\n")
    follow(folder, "b-away", "cluster: far\n")
    follow(folder, "c-gone")
    (folder / "c-gone").rmdir()
    follow(folder, "d-good", steps=range(2))
    (folder / "include" / "tracked" / "e-odd.yaml").write_text(
        f"source: {{path: /{'x' * 300}}}\nsuite: tiny\n"
    )
    ti = Runs()
    assert [i.split("__")[1] for i in ids(run(ti))] == ["d-good", "d-good"]
    wrong, far, gone, odd = ti.xcoms["failures"]
    assert wrong.startswith("tracked a-wrong: unknown key 'suit'")
    assert far == "b-away: login01: timed out"
    assert gone == f"c-gone: {folder / 'c-gone'}: no such folder"
    assert odd.startswith("e-odd: [Errno 36] File name too long")
