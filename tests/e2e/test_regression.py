"""A loss is confirmed before anybody is told, once; a stack that moved holds back what is said of models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import yaml

from demo.standalone import ROOT, Airflow
from evalcore.history import open_history
from evalcore.history.alarms import Alarm, Alarms, Kind, State
from evalcore.manifest import GRADES
from evalcore.summarize import summarize
from receivers import Webhook
from required_action import answer, question

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

EVALUATION, CONFIRMATION, NIGHT = "evaluate_checkpoint", "confirm_regression", "nightly_regression"
ACKNOWLEDGEMENT = "acknowledge_alert"
CHECKPOINTS = sorted((ROOT / "include" / "tiny" / "checkpoints").glob("step-*"))
HOW = {
    "suite": "tiny",
    "benchmarks": "tiny-arithmetic:4",
    "overrides": ["max_problems=40", "skip_greedy=true"],
}


@pytest.fixture
def include(airflow: Airflow) -> Iterator[Path]:
    """Where training runs and canaries are followed from; what a test wrote is removed."""
    folder = Path(airflow.settings["EVALCORE_INCLUDE"])
    before = set(folder.rglob("*.yaml"))
    yield folder
    for file in set(folder.rglob("*.yaml")) - before:
        file.unlink()


def write(file: Path, **content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump({"alerts": ["e2e_alerts"], **HOW, **content}))


def evaluate(airflow: Airflow, checkpoint: Path, results: Path, run: str) -> str:
    """A finished run of evaluate_checkpoint."""
    conf = {"checkpoint": str(checkpoint), "training_run": run, "results": str(results), **HOW}
    made = airflow.trigger(EVALUATION, conf)
    assert airflow.wait(EVALUATION, made) == "success"
    return made


def alarms(airflow: Airflow, run: str) -> list[Alarm]:
    with open_history(airflow.settings["EVALCORE_HISTORY"]) as history:
        return Alarms(history).find(run=run)


def states(airflow: Airflow, dag: str, run: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for task in airflow.tasks(dag, run):
        found.setdefault(task["task_id"], []).append(task["state"])
    return found


def test_a_loss_is_confirmed_on_fresh_seeds_and_told_once(
    airflow: Airflow, include: Path, tmp_path: Path, alerted: Webhook
) -> None:
    write(include / "tracked" / "loss.yaml", source={"path": str(CHECKPOINTS[0].parent)}, training_run="loss")
    _, good, bad = CHECKPOINTS
    first = evaluate(airflow, good, tmp_path, "loss")
    assert states(airflow, EVALUATION, first)["compare"] == ["skipped"], "there is nothing to compare with"

    alerted.answers.append(500)  # the channel fails once
    worse = evaluate(airflow, bad, tmp_path, "loss")
    (confirmation,) = airflow.xcom(EVALUATION, worse, "compare")
    run = confirmation["trigger_run_id"]
    assert airflow.wait(CONFIRMATION, run) == "success"
    (alarm,) = alarms(airflow, "loss")
    assert (alarm.kind, alarm.state) == (Kind.REGRESSION, State.CONFIRMED)
    with open_history(airflow.settings["EVALCORE_HISTORY"]) as history:
        suspected, confirmed = (
            history.evaluation(id_) for id_ in (alarm.evaluation, alarm.confirmation or 0)
        )
        seeds = [
            history.fingerprint_parts(it.fingerprint)["sampling"]["seed"] for it in (suspected, confirmed)
        ]
    assert seeds[0] != seeds[1]
    assert suspected.checkpoint.digest == confirmed.checkpoint.digest
    (said,) = alerted.received
    assert said["title"] == "loss/step-002200: worse on tiny-arithmetic"
    assert "fresh" in said["message"]
    assert quote(worse, safe="") in said["message"]
    (alert,) = [task for task in airflow.tasks(CONFIRMATION, run) if task["task_id"] == "alert"]
    assert alert["try_number"] == 2

    # The same evaluation looked at again is neither confirmed nor told again.
    airflow.clear(EVALUATION, worse, "compare")
    assert airflow.wait(EVALUATION, worse) == "success"
    assert states(airflow, EVALUATION, worse)["confirm"] == ["removed"], "there is none to start any more"
    assert len(alerted.received) == 1


def test_a_stack_that_moved_holds_back_what_is_said_of_models_until_somebody_knows(
    airflow: Airflow, include: Path, tmp_path: Path, alerted: Webhook
) -> None:
    early, good, bad = CHECKPOINTS
    write(include / "canaries" / "frozen.yaml", checkpoint=str(early))
    folder = tmp_path / "ckpt"
    folder.mkdir()
    (folder / "step-1").symlink_to(good)
    # The sweep asks with the suite itself, which is all of the benchmark.
    write(
        include / "tracked" / "model.yaml", source={"path": str(folder)}, nightly="tiny", training_run="model"
    )

    first = sweep(airflow)
    assert states(airflow, NIGHT, first)["alert"] == ["skipped"]
    assert alarms(airflow, "canary-frozen") == []

    make_look_better(airflow)
    (folder / "step-2").symlink_to(bad)
    second = sweep(airflow)
    (moved,) = alarms(airflow, "canary-frozen")
    assert (moved.kind, moved.state) == (Kind.CANARY, State.CONFIRMED)
    assert states(airflow, NIGHT, second)["alert"] == ["success"]
    (said,) = alerted.received
    assert "stack has moved" in said["title"]
    (held,) = alarms(airflow, "model")
    assert held.state is State.HELD
    assert held.reason.startswith("the stack moved: canary-frozen of ")
    ran = airflow.xcom(NIGHT, second, "models")[0]["trigger_run_id"]
    for dag, run in ((EVALUATION, ran), (NIGHT, second)):
        assert states(airflow, dag, run)["confirm"] == ["skipped"], "nobody confirms what is held back"

    # A run that fails before it knows of its alarm: another one takes its place.
    failed = airflow.trigger(CONFIRMATION, {}, f"confirm__{held.id}__{ran}")
    airflow.wait(CONFIRMATION, failed)
    airflow.request("PATCH", f"/dags/{CONFIRMATION}/dagRuns/{quote(failed, safe='')}", {"state": "failed"})

    # Acknowledged, nothing holds it any more: it is asked again under the stack of the day, and told.
    asked = airflow.request("GET", f"/dags/{ACKNOWLEDGEMENT}/dagRuns")["dag_runs"]
    (waiting,) = [run["dag_run_id"] for run in asked if run["conf"] == {"alarms": [moved.id]}]
    question(airflow, ACKNOWLEDGEMENT, waiting)
    answer(airflow, ACKNOWLEDGEMENT, waiting, "Acknowledge", "the new driver")
    assert airflow.wait(ACKNOWLEDGEMENT, waiting) == "success"
    (confirmation,) = airflow.xcom(ACKNOWLEDGEMENT, waiting, "release")
    assert confirmation["conf"]["evaluation"] == ran
    assert confirmation["trigger_run_id"] == f"{failed}__2"
    assert airflow.wait(CONFIRMATION, confirmation["trigger_run_id"]) == "success"
    (told,) = alarms(airflow, "model")
    assert (told.id, told.state) == (held.id, State.CONFIRMED)
    assert told.reason.endswith("on fresh seeds")
    assert [said["title"] for said in alerted.received[1:]] == ["model/step-2: worse on tiny-arithmetic"]


def sweep(airflow: Airflow) -> str:
    """A finished night."""
    airflow.request("PATCH", f"/dags/{NIGHT}", {"is_paused": False})
    try:
        run = airflow.trigger(NIGHT, {})
        assert airflow.wait(NIGHT, run) == "success"
    finally:
        airflow.request("PATCH", f"/dags/{NIGHT}", {"is_paused": True})
    return run


def make_look_better(airflow: Airflow) -> None:
    """The first night's canary, graded as if the stack had been another then."""
    with open_history(airflow.settings["EVALCORE_HISTORY"]) as history:
        (night,) = history.evaluations(run="canary-frozen")
        for file in (night.folder / GRADES).glob("*.jsonl"):
            rows = [
                orjson.loads(line) | {"symbolic_correct": True} for line in file.read_bytes().splitlines()
            ]
            file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        summarize(night.folder)
        history.record(night.folder)
