"""A checkpoint against the baseline it has in its training run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evalcore.comparison import Verdict, spent
from evalcore.errors import ResultsError
from evalcore.history import open_history
from evalcore.history.alarms import Alarms, Kind, State, Suspicion
from evalcore.history.store import History
from evalcore.regression.canary import lineage
from evalcore.regression.lineage import judge_checkpoint
from evaluations import checkpoint, record

pytestmark = pytest.mark.slow

GOOD, WORSE = [3] * 40, [1] * 40


@pytest.fixture
def include(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "include"
    for kind in ("tracked", "canaries", "benchmarks"):
        (folder / kind).mkdir(parents=True)
    for name in ("toy", "toy2"):
        (folder / "benchmarks" / f"{name}.yaml").write_text(
            f"name: {name}\ndescription: sums\nsource: {{path: toy.jsonl}}\nprompt: tiny/arithmetic\n"
            "grader: math\nsamples: 1\n"
        )
    monkeypatch.setenv("EVALCORE_INCLUDE", str(folder))
    return folder


@pytest.fixture
def history(tmp_path: Path, include: Path) -> Iterator[History]:
    with open_history(f"sqlite:///{tmp_path}/history.sqlite") as history:
        yield history


def test_of_alpha_each_comparison_of_a_training_run_spends_less(history: History, tmp_path: Path) -> None:
    levels = []
    for step in (100, 200, 300, 400):
        id_ = record(history, tmp_path, checkpoint("run", step), GOOD)
        record(history, tmp_path, checkpoint("other", step), GOOD)  # no comparison of this one
        found = judge_checkpoint(history, [id_], "local")
        levels.append(found.alpha)
    assert levels == [spent(0.05, night) for night in (1, 1, 2, 3)]
    assert (found.compared.verdict, found.alarms) == (Verdict.OK, ())
    assert found.compared.benchmarks[0].baseline.name == "step-300"


def test_without_a_baseline_nothing_is_said(history: History, tmp_path: Path) -> None:
    found = judge_checkpoint(history, [record(history, tmp_path, checkpoint("run", 100), WORSE)], "local")
    assert (found.compared.benchmarks, found.alarms, found.held) == ((), (), "")
    assert found.compared.refused == {"toy": "there is no baseline yet"}
    with pytest.raises(ResultsError, match="no evaluation 4711"):
        judge_checkpoint(history, [4711], "local")


def test_what_is_advisory_alarms_nobody(history: History, include: Path, tmp_path: Path) -> None:
    (include / "tracked" / "run.yaml").write_text(
        "source: {path: /ckpt/run}\nsuite: tiny\nbenchmarks: toy,toy2\nnightly: both\ncritical: [toy2]\n"
    )
    (include / "suites").mkdir()
    (include / "suites" / "both.yaml").write_text("benchmarks: toy,toy2\n")
    for step, right in ((100, GOOD), (200, WORSE)):
        ids = [
            record(history, tmp_path, checkpoint("run", step), right, benchmark=b) for b in ("toy", "toy2")
        ]
    found = judge_checkpoint(history, ids, "local")
    assert [it.found.verdict for it in found.compared.benchmarks] == [Verdict.REGRESSED] * 2
    assert [(it.benchmark, it.kind, it.state) for it in found.alarms] == [
        ("toy2", Kind.REGRESSION, State.SUSPECTED)
    ]


def test_while_the_stack_has_moved_alarms_are_held(history: History, include: Path, tmp_path: Path) -> None:
    (include / "canaries" / "frozen.yaml").write_text("checkpoint: /ckpt/f\nsuite: tiny\ncluster: local\n")
    nights = [
        record(history, tmp_path, checkpoint(lineage("frozen"), day, digest="f"), right)
        for day, right in ((20, GOOD), (21, WORSE))
    ]
    alarms = Alarms(history)
    (moved,) = alarms.raise_([Suspicion(Kind.CANARY, nights[1], nights[0], margin=0.01, alpha=0.05)])
    alarms.settle(moved.id, State.CONFIRMED, reason="toy by -50.0 points")
    for step, right in ((100, GOOD), (200, WORSE)):
        id_ = record(history, tmp_path, checkpoint("run", step), right)
    run = {"evaluation": "ckpt__run", "params": {"cluster": "local"}}
    found = judge_checkpoint(history, [id_], "local", run)
    assert found.held.endswith("toy by -50.0 points")
    assert [(alarm.state, alarm.raised_by) for alarm in found.alarms] == [(State.HELD, run)]
    elsewhere = judge_checkpoint(history, [id_], "cluster")
    assert (elsewhere.held, [alarm.state for alarm in elsewhere.alarms]) == ("", [State.SUSPECTED])
