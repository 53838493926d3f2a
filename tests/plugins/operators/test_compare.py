"""record and compare as tasks, on a history in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowSkipException

from evalcore.checkpoints import Checkpoint
from evalcore.comparison import spent
from evalcore.history import open_history
from evalcore.history.alarms import Alarms, Kind, State
from evalcore.summarize import summarize
from operators.compare import CompareOperator
from operators.confirm import ReleaseOperator
from operators.record import RecordOperator
from synthetic_results import Sample, manifest, write
from task_instance import TaskInstance

pytestmark = pytest.mark.slow

SAMPLES = 4


class Pulled:
    """A task instance behind ``plan``."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self.planned = [{"name": name, "brings": ["/there", str(folder)]} for name, folder in folders.items()]
        self.settings = dict.fromkeys(folders, "5e771265")

    def xcom_pull(self, *, task_ids: str, key: str = "return_value") -> Any:
        assert task_ids == "plan"
        return self.settings if key == "settings" else self.planned


def results(
    folder: Path, step: int, right: int, *, run: str = "r", benchmark: str = "toy", problems: int = 40
) -> Path:
    checkpoint = Checkpoint(path=None, run=run, name=f"step-{step}", step=step, digest=f"{run}{step}")
    place = folder / run / f"step-{step}" / benchmark
    place.mkdir(parents=True)
    rows = [Sample(f"p{i}", s, "7", s < right) for i in range(problems) for s in range(SAMPLES)]
    summarize(write(place, manifest(problems, SAMPLES, name=benchmark, checkpoint=checkpoint), rows))
    return place


def record(**folders: Path) -> dict[str, int]:
    return RecordOperator(task_id="record").execute({"ti": Pulled(folders)})  # type: ignore[typeddict-item]


def to_confirm(recorded: dict[str, int], ti: TaskInstance, **params: Any) -> list[dict[str, Any]]:
    context: Any = {"ti": ti, "params": {"compare": True, "cluster": "local", **params}}
    return CompareOperator(task_id="compare", recorded=recorded).execute(context)


def compare(recorded: dict[str, int]) -> dict[str, Any]:
    ti = TaskInstance()
    to_confirm(recorded, ti)
    return ti.xcoms["compared"]  # type: ignore[no-any-return]


def test_the_third_checkpoint_is_worse_than_the_second(tmp_path: Path) -> None:
    with pytest.raises(AirflowSkipException, match="toy: there is no baseline yet"):
        compare(record(toy=results(tmp_path, 900, 2)))
    for step in (900, 1200, 1500):
        record(
            toy=results(tmp_path, step, 3, run="another, whose comparisons spend nothing of this one's alpha")
        )
    better = compare(record(toy=results(tmp_path, 1200, 3)))
    assert (better["verdict"], better["alpha"]) == ("ok", spent(0.05, 1))
    worse = compare(record(toy=results(tmp_path, 1500, 1)))
    assert worse == {
        "verdict": "regressed",
        "sentence": "r/step-1500 against r/step-1200: regressed on toy by 50.0 points",
        "alpha": spent(0.05, 2),
        "held": "",
    }


def test_what_got_worse_is_to_be_confirmed_once(tmp_path: Path) -> None:
    for step, right in ((900, 3), (1200, 3)):
        last = record(toy=results(tmp_path, step, right))
    ti = TaskInstance(run_id="ckpt__r__1")
    assert to_confirm(last, ti) == []
    recorded = record(toy=results(tmp_path, 1500, 1))
    (run,) = to_confirm(recorded, ti, suite="tiny")
    assert run == {
        "trigger_run_id": "confirm__1__ckpt__r__1",
        "conf": {
            "alarms": [1],
            "evaluation": "ckpt__r__1",
            "params": {"compare": True, "cluster": "local", "suite": "tiny"},
        },
    }
    assert to_confirm(recorded, ti, suite="tiny") == [run], "until something became of it"
    night = TaskInstance(run_id="ckpt__r__1__night")
    assert to_confirm(recorded, night) == [run], "whoever finds it, it is one and the same run"
    night.runs["confirm__1__ckpt__r__1"] = "running"
    assert to_confirm(recorded, night) == []
    with open_history() as history:
        (alarm,) = Alarms(history).find()
        assert (alarm.kind, alarm.state, alarm.alpha) == (Kind.REGRESSION, State.SUSPECTED, spent(0.05, 2))
        assert (alarm.checkpoint.name, alarm.baseline.name) == ("step-1500", "step-1200")
        Alarms(history).settle(alarm.id, State.REFUTED)
    assert to_confirm(recorded, ti, suite="tiny") == []


def test_the_next_checkpoint_finds_that_the_confirmation_of_the_last_one_failed(tmp_path: Path) -> None:
    for step, right in ((900, 3), (1200, 1)):
        recorded = record(toy=results(tmp_path, step, right))
        record(toy=results(tmp_path, step, right, run="other"))
    (lost,) = to_confirm(recorded, TaskInstance(run_id="ckpt__r__1200"))
    recorded = record(toy=results(tmp_path, 1500, 1))
    ti = TaskInstance(run_id="ckpt__r__1500", runs={lost["trigger_run_id"]: "failed"})
    assert to_confirm(recorded, ti) == [{**lost, "trigger_run_id": "confirm__1__ckpt__r__1200__2"}]
    with open_history() as history:
        evaluation = history.evaluations(run="other")[0].id
    ti.run_id = "ckpt__other__1200"
    (own,) = to_confirm({"toy": evaluation}, ti)
    assert own["trigger_run_id"] == "confirm__2__ckpt__other__1200", (
        "of another training run nothing is started"
    )


def test_compared_again_after_others_were_evaluated_it_is_judged_as_it_was(tmp_path: Path) -> None:
    record(toy=results(tmp_path, 900, 3))
    recorded = record(toy=results(tmp_path, 1200, 2))
    ti = TaskInstance(run_id="ckpt__r__1")
    first, found = to_confirm(recorded, ti), ti.xcoms["compared"]
    assert (found["verdict"], found["alpha"]) == ("regressed", spent(0.05, 1))
    for step in range(1500, 1510):
        record(toy=results(tmp_path, step, 3))
    assert to_confirm(recorded, ti) == first
    assert ti.xcoms["compared"] == found


def test_a_run_may_say_not_to_compare(tmp_path: Path) -> None:
    for step, right in ((900, 3), (1200, 1)):
        recorded = record(toy=results(tmp_path, step, right))
    with pytest.raises(AirflowSkipException, match="params say not to compare"):
        to_confirm(recorded, TaskInstance(), compare=False)
    with open_history() as history:
        assert Alarms(history).find() == []


def test_recorded_again_it_is_the_same_evaluation(tmp_path: Path) -> None:
    folder = results(tmp_path, 900, 2)
    assert record(toy=folder) == record(toy=folder)
    with open_history() as history:
        assert len(history.evaluations()) == 1


def test_a_benchmark_without_a_scorecard_does_not_lose_the_others(tmp_path: Path) -> None:
    folder = results(tmp_path, 900, 2)
    assert list(record(toy=folder, torn=tmp_path / "nowhere")) == ["toy"]
    with pytest.raises(AirflowException, match=r"nothing could be recorded: .*nowhere"):
        record(torn=tmp_path / "nowhere")


def test_a_scorecard_of_other_settings_is_none_of_this_run(tmp_path: Path) -> None:
    ti = Pulled({"toy": results(tmp_path, 900, 2)})
    ti.settings = {"toy": "0f0f0f0f"}
    with pytest.raises(AirflowException, match=r"nothing could be recorded: .*written by another evaluation"):
        RecordOperator(task_id="record").execute({"ti": ti})  # type: ignore[typeddict-item]


def test_the_file_that_follows_the_run_says_what_is_compared_with_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked = tmp_path / "include" / "tracked"
    tracked.mkdir(parents=True)
    benchmarks = tmp_path / "include" / "benchmarks"
    benchmarks.mkdir()
    (benchmarks / "toy.yaml").write_text(
        "name: toy\ndescription: sums\nsource: {path: toy.jsonl}\nprompt: tiny/arithmetic\ngrader: math\nsamples: 1\n"
    )
    (tracked / "r.yaml").write_text(
        "source: {path: /ckpt/r}\nsuite: tiny\nbenchmarks: toy\nbaseline: {pinned: step-900}\nmargins: {toy: 0.4}\n"
    )
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path / "include"))
    record(toy=results(tmp_path, 900, 2))
    better = record(toy=results(tmp_path, 1200, 4))
    recorded = record(toy=results(tmp_path, 1500, 1))
    found = compare(recorded)
    assert found["verdict"] == "ok", "a quarter less than step-900, of which it may lose two fifths"
    assert found["sentence"] == "r/step-1500 against r/step-900: ok"
    with open_history() as history:
        Alarms(history).promote(better.values(), by="ada")
    assert compare(recorded)["sentence"].startswith("r/step-1500 against r/step-1200: regressed on toy")


def test_alarms_are_of_what_is_critical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("tracked", "benchmarks"):
        (tmp_path / "include" / kind).mkdir(parents=True)
    for name in ("toy", "minor"):
        (tmp_path / "include" / "benchmarks" / f"{name}.yaml").write_text(
            f"name: {name}\ndescription: sums\nsource: {{path: toy.jsonl}}\nprompt: tiny/arithmetic\n"
            "grader: math\nsamples: 1\n"
        )
    (tmp_path / "include" / "tracked" / "r.yaml").write_text(
        "source: {path: /ckpt/r}\nsuite: tiny\nbenchmarks: toy,minor\ncritical: [toy]\n"
    )
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path / "include"))

    def evaluated(step: int, toy: int, minor: int) -> dict[str, int]:
        return record(
            toy=results(tmp_path, step, toy, problems=6),
            minor=results(tmp_path, step, minor, benchmark="minor"),
        )

    evaluated(900, 3, 3)
    ti = TaskInstance()
    assert to_confirm(evaluated(1200, 3, 1), ti) == []
    assert ti.xcoms["compared"]["sentence"].endswith(": regressed on minor by 50.0 points")
    # One of 64, at an alpha of 0.03: enough, so long as the other is none of the critical ones.
    (tmp_path / "second").mkdir()
    monkeypatch.setenv("EVALCORE_HISTORY", f"sqlite:///{tmp_path}/second/history.sqlite")
    evaluated(1500, 3, 3)
    assert to_confirm(evaluated(1800, 2, 3), TaskInstance())[0]["conf"]["alarms"] == [1]


def test_while_the_stack_has_moved_alarms_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("lineage", "confirmation"):
        monkeypatch.setattr(
            f"evalcore.regression.{module}.hold", lambda _, cluster: f"the stack of {cluster} moved"
        )
    for step, right in ((900, 3), (1200, 1)):
        recorded = record(toy=results(tmp_path, step, right))
    ti = TaskInstance()
    assert to_confirm(recorded, ti) == []
    assert ti.xcoms["compared"]["held"] == "the stack of local moved"
    with open_history() as history:
        assert [(it.state, it.reason) for it in Alarms(history).find()] == [
            (State.HELD, "the stack of local moved")
        ]
    # The run that goes on, whoever is first to find that nothing holds it any more.
    monkeypatch.setattr("evalcore.regression.confirmation.hold", lambda _, cluster: "")
    released = ReleaseOperator(task_id="release").execute({"ti": ti})  # type: ignore[typeddict-item]
    assert [run["trigger_run_id"] for run in released] == [f"confirm__1__{ti.run_id}"]
    monkeypatch.setattr("evalcore.regression.lineage.hold", lambda _, cluster: "")
    assert to_confirm(recorded, ti) == released
