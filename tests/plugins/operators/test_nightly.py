"""The nightly sweep's tasks: what is evaluated tonight, and who is told that the stack moved."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from evalcore.history import open_history
from evalcore.history.alarms import Alarms
from evalcore.regression.canary import lineage, night_name
from evaluations import checkpoint, record
from operators.nightly import CanariesOperator, StackOperator, SweepOperator
from task_instance import TaskInstance
from tiny_folder import write_checkpoint

pytestmark = pytest.mark.slow

NIGHT = datetime(2026, 11, 21, 2, tzinfo=UTC)


class Run(NamedTuple):
    run_after: datetime


@pytest.fixture
def include(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "include"
    for kind in ("tracked", "canaries"):
        (folder / kind).mkdir(parents=True)
    monkeypatch.setenv("EVALCORE_INCLUDE", str(folder))
    return folder


def context(ti: TaskInstance, night: datetime = NIGHT) -> Any:
    return {"ti": ti, "dag_run": Run(night)}


def complete(folder: Path, *steps: int) -> None:
    for step in steps:
        write_checkpoint(folder / f"step-{step}")
        (folder / f"step-{step}" / "tokenizer.json").write_text("{}")


def test_every_canary_is_evaluated_anew_each_night(include: Path) -> None:
    for name in ("a", "b"):
        (include / "canaries" / f"{name}.yaml").write_text(f"checkpoint: /ckpt/{name}\nsuite: tiny\n")
    (include / "canaries" / "torn.yaml").write_text("suite: tiny\n")
    ti = TaskInstance()
    asked = CanariesOperator(task_id="canaries").execute(context(ti))
    assert [run["trigger_run_id"] for run in asked] == [f"canary-{n}__2026-11-21T020000" for n in ("a", "b")]
    assert [run["conf"]["checkpoint"] for run in asked] == ["/ckpt/a", "/ckpt/b"]
    assert ti.xcoms["failures"] == ["canary torn: checkpoint: Field required"]


def test_the_newest_complete_checkpoint_has_the_nightly_suite(include: Path, tmp_path: Path) -> None:
    complete(tmp_path / "llama", 9, 10)
    write_checkpoint(tmp_path / "llama" / "step-11")  # no tokenizer yet
    (include / "tracked" / "llama.yaml").write_text(
        f"source: {{path: {tmp_path}/llama}}\nsuite: tiny\nbenchmarks: tiny-arithmetic:2\nnightly: default\n"
    )
    (include / "tracked" / "none.yaml").write_text(f"source: {{path: {tmp_path}/nowhere}}\nsuite: tiny\n")
    (tmp_path / "empty").mkdir()
    (include / "tracked" / "empty.yaml").write_text(f"source: {{path: {tmp_path}/empty}}\nsuite: tiny\n")
    ti = TaskInstance()
    (run,) = SweepOperator(task_id="models").execute(context(ti))
    assert run["conf"] == {
        "checkpoint": f"{tmp_path}/llama/step-10",
        "training_run": "llama",
        "step": 10,
        "suite": "default",
        "cluster": "local",
    }
    assert run["trigger_run_id"].endswith("__2026-11-21T020000")
    assert ti.xcoms["failures"] == [f"none: {tmp_path}/nowhere: no such folder"]
    (next_night,) = SweepOperator(task_id="models").execute(context(TaskInstance(), NIGHT.replace(day=22)))
    assert next_night["trigger_run_id"] != run["trigger_run_id"]


def test_whoever_moved_is_told_of(include: Path, tmp_path: Path) -> None:
    (include / "canaries" / "frozen.yaml").write_text("checkpoint: /ckpt/frozen\nsuite: tiny\n")
    task = StackOperator(task_id="stack")
    assert task.execute(context(TaskInstance())) == [], "nothing was evaluated"
    for day, right in ((21, 3), (22, 3), (23, 1)):
        night = NIGHT.replace(day=day)
        of = checkpoint(lineage("frozen"), day, name=night_name(night), digest="frozen")
        with open_history() as history:
            record(history, tmp_path, of, [right] * 40)
        told = task.execute(context(TaskInstance(), night))
        with open_history() as history:
            ids = [alarm.id for alarm in Alarms(history).find()]
        assert told == ([{"alarms": ids}] if day == 23 else [])
        assert len(ids) == (day == 23)
    # Changed while its night was evaluated: it is said by ``canaries``, and ends nothing here.
    (include / "canaries" / "frozen.yaml").write_text("suite: tiny\n")
    assert task.execute(context(TaskInstance(), night)) == []


def test_a_canary_that_is_another_checkpoint_is_a_failure_of_the_night(include: Path, tmp_path: Path) -> None:
    (include / "canaries" / "frozen.yaml").write_text("checkpoint: /ckpt/frozen\nsuite: tiny\n")
    for day, digest in ((21, "one"), (22, "one"), (23, "other")):
        night = NIGHT.replace(day=day)
        of = checkpoint(lineage("frozen"), day, name=night_name(night), digest=digest)
        with open_history() as history:
            record(history, tmp_path, of, [3] * 40)
        ti = TaskInstance()
        assert StackOperator(task_id="stack").execute(context(ti, night)) == []
        found = ["is not the checkpoint of the nights before" in failure for failure in ti.xcoms["failures"]]
        assert found == ([True] if day == 23 else [])
