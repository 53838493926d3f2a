"""The nightly sweep's tasks: what is evaluated tonight, and who is told that the stack moved."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from airflow.sdk.exceptions import AirflowFailException

from evalcore.canary import lineage, night_name
from evalcore.history import open_history
from evalcore.history.alarms import Alarms
from evaluations import checkpoint, record
from operators.nightly import CanariesOperator, NightFailuresOperator, StackOperator, SweepOperator
from task_instance import TaskInstance
from tiny_folder import write_checkpoint

NIGHT = datetime(2026, 11, 21, 2, tzinfo=UTC)


class Run(NamedTuple):
    run_after: datetime


class Night(TaskInstance):
    """A task instance of a night. failed: (task, map index) of those that failed."""

    failed: tuple[tuple[str, int], ...] = ()

    def xcom_pull(self, *, task_ids: str, key: str) -> Any:
        return self.xcoms.get(f"{task_ids}/{key}")

    def get_task_breadcrumbs(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        ended = [{"task_id": "evaluate", "map_index": 7, "state": "success"}]
        return ended + [{"task_id": t, "map_index": i, "state": "failed"} for t, i in self.failed]


@pytest.fixture
def include(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVALCORE_HISTORY", f"sqlite:///{tmp_path}/history.sqlite")
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
    ti = Night()
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
    ti = Night()
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
    (next_night,) = SweepOperator(task_id="models").execute(context(Night(), NIGHT.replace(day=22)))
    assert next_night["trigger_run_id"] != run["trigger_run_id"]


def test_whoever_moved_is_told_of(include: Path, tmp_path: Path) -> None:
    (include / "canaries" / "frozen.yaml").write_text("checkpoint: /ckpt/frozen\nsuite: tiny\n")
    task = StackOperator(task_id="stack")
    assert task.execute(context(Night())) == [], "nothing was evaluated"
    for day, right in ((21, 3), (22, 3), (23, 1)):
        night = NIGHT.replace(day=day)
        of = checkpoint(lineage("frozen"), day, name=night_name(night), digest="frozen")
        with open_history() as history:
            record(history, tmp_path, of, [right] * 40)
        told = task.execute(context(Night(), night))
        with open_history() as history:
            ids = [alarm.id for alarm in Alarms(history).find()]
        assert told == ([{"alarms": ids}] if day == 23 else [])
        assert len(ids) == (day == 23)


def test_what_failed_fails_the_night(include: Path) -> None:
    task = NightFailuresOperator(task_id="failures", told_by=["canaries", "models"])
    task.execute(context(Night()))
    ti = Night({"models/failures": ["llama: no such folder"]})
    ti.failed = (("canary", 0),)
    with pytest.raises(AirflowFailException, match=r"^llama: no such folder; canary 0: see its run$"):
        task.execute(context(ti))
