"""What is suspected is asked again on fresh seeds, and what then becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from evalcore.compare import compare_recorded
from evalcore.errors import ResultsError
from evalcore.history import open_history
from evalcore.history.alarms import Alarm, Alarms, Kind, State, Suspicion
from evalcore.history.database import said
from evalcore.history.store import History
from evalcore.rates import MARGINS, RateKind
from evalcore.regression.confirmation import (
    ALPHA,
    attempt_id,
    confirmations,
    requests,
    run_name,
    settle,
    suspicions,
    unconfirmable,
)
from evaluations import checkpoint, record

pytestmark = pytest.mark.slow

PROBLEMS = 40
GOOD, BAD = [3] * PROBLEMS, [1] * PROBLEMS
PARAMS: dict[str, Any] = {
    "checkpoint": "/ckpt/step-200",
    "training_run": None,
    "suite": "tiny",
    "benchmarks": "toy:4,other",
    "cluster": "slurm",
    "seed": 7,
    "dry_run": False,
    "compare": True,
    "force_squash": True,
    "server_address": None,
    "overrides": ["client.concurrency=8", "++inference.seed=7", "wandb.mode=online"],
}


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with open_history(f"sqlite:///{tmp_path}/history.sqlite") as opened:
        yield opened


@pytest.fixture
def alarms(history: History, tmp_path: Path) -> list[Alarm]:
    """The second checkpoint is worse than the first on one of two benchmarks."""
    chosen = []
    for benchmark, right in (("toy", BAD), ("other", GOOD)):
        base = record(history, tmp_path / "results", checkpoint("r", 100), GOOD, benchmark=benchmark, seed=5)
        new = record(history, tmp_path / "results", checkpoint("r", 200), right, benchmark=benchmark, seed=5)
        chosen.append((history.evaluation(new), history.evaluation(base)))
    compared = compare_recorded(history, chosen)
    return Alarms(history).raise_(suspicions(compared.benchmarks, chosen))


def look_again(history: History, folder: Path, alarms: list[Alarm], new: list[int], base: list[int]) -> None:
    """As the runs that were asked for would, were their models so good."""
    for side, right in ((alarms[0].checkpoint, new), (alarms[0].baseline, base)):
        named = checkpoint(run_name(alarms, side), side.step or 0, name=side.name, digest=side.digest)
        record(history, folder / "again", named, right, seed=6)


def test_of_the_alarms_of_a_run_something_becomes_of_all_or_of_none(
    history: History, alarms: list[Alarm]
) -> None:
    with pytest.raises(ResultsError, match="no alarm 99"):
        settle(history, [*alarms, replace(alarms[0], id=99)])
    assert Alarms(history).get([alarms[0].id]) == alarms, (
        "who is started again decides and tells of this one, too"
    )


def test_only_what_got_worse_is_an_alarm(alarms: list[Alarm]) -> None:
    assert [(alarm.benchmark, alarm.state) for alarm in alarms] == [("toy", State.SUSPECTED)]


def test_the_alarms_of_an_evaluation_are_confirmed_by_one_run(history: History, tmp_path: Path) -> None:
    raised = []
    for step, kind in ((200, Kind.REGRESSION), (300, Kind.REGRESSION), (200, Kind.LENGTH)):
        base, new = (record(history, tmp_path / "results", checkpoint("r", s), GOOD) for s in (100, step))
        raised_by = {"evaluation": f"ckpt__{step}", "params": {**PARAMS, "seed": step}}
        suspicion = Suspicion(kind, new, base, 0.01, 0.05)
        raised += Alarms(history).raise_([suspicion], held="it moved", raised_by=raised_by)
    first, second = confirmations(history, raised)
    assert first == {
        "trigger_run_id": "confirm__1_3__ckpt__200",
        "conf": {"alarms": [1, 3], "evaluation": "ckpt__200", "params": {**PARAMS, "seed": 200}},
    }
    assert (second["trigger_run_id"], second["conf"]["alarms"]) == ("confirm__2__ckpt__300", [2])
    assert confirmations(history, reversed(raised)) == [first, second], "in whichever order they are found"
    assert confirmations(history, []) == []


def test_an_alarm_has_the_run_that_it_had_whatever_became_of_the_others(
    history: History, tmp_path: Path
) -> None:
    store, suspected = Alarms(history), []
    base, new = (record(history, tmp_path / "results", checkpoint("r", s), GOOD) for s in (100, 200))
    raised_by = {"evaluation": "ckpt__1", "params": PARAMS}
    for kind in (Kind.REGRESSION, Kind.LENGTH, Kind.TRUNCATION):
        suspected += store.raise_([Suspicion(kind, new, base, 0.01, 0.05)], raised_by=raised_by)
    (run,) = confirmations(history, suspected[:2])
    store.settle(1, State.REFUTED)
    rest = [alarm for alarm in store.get([2, 3]) if alarm.state is State.SUSPECTED]
    again, other = confirmations(history, rest)
    assert again == {**run, "conf": {**run["conf"], "alarms": [2]}}
    assert (other["trigger_run_id"], other["conf"]["alarms"]) == ("confirm__3__ckpt__1", [3])
    # As they were before anybody had asked: of two tasks at once the second is told what the first has said.
    assert confirmations(history, suspected)[0] == run


def test_the_ids_of_confirmations_are_no_longer_than_airflow_takes(history: History, tmp_path: Path) -> None:
    base, new = (record(history, tmp_path / "results", checkpoint("r", s), GOOD) for s in (100, 200))
    raised_by = {"evaluation": "e" * 250, "params": {}}
    alarms = Alarms(history).raise_([Suspicion(Kind.REGRESSION, new, base, 0.01, 0.05)], raised_by=raised_by)
    (run,) = confirmations(history, alarms)
    ids = [attempt_id(run["trigger_run_id"], number) for number in (1, 2, 3, 999_999)]
    assert ids[0] == run["trigger_run_id"] == f"confirm__1__{'e' * 250}"[:237]
    assert len(set(ids)) == 4
    assert max(len(f"acknowledge__{id_}") for id_ in ids) <= 250, "what asks somebody has them in its own"
    assert attempt_id("confirm__1__ckpt__2", 2) == "confirm__1__ckpt__2__2"


def test_both_checkpoints_are_asked_again_alike_but_for_the_seed(
    history: History, alarms: list[Alarm]
) -> None:
    new, base = requests(history, alarms, PARAMS)
    assert new == {
        "checkpoint": "/ckpt/step-200",
        "training_run": "r+confirm-1",
        "name": "step-200",
        "step": 200,
        "suite": "tiny",
        "benchmarks": "toy:4",
        "cluster": "slurm",
        "seed": 6,
        "compare": False,
        "force_squash": False,
        "overrides": ["client.concurrency=8", "wandb.mode=disabled"],
    }
    of_baseline = {"checkpoint": "/ckpt/step-100", "name": "step-100", "step": 100}
    assert base == new | of_baseline
    assert requests(history, alarms, PARAMS) == [new, base], "tried again, it is the same work"


def test_several_baselines_are_each_asked_for_their_benchmarks(history: History, tmp_path: Path) -> None:
    bases = [
        record(history, tmp_path / "r", checkpoint(run, 100, digest=run), GOOD, benchmark=benchmark)
        for run, benchmark in (("a", "toy"), ("b", "other"), ("b", "third"))
    ]
    new = [
        record(history, tmp_path / "r", checkpoint("r", 200), BAD, benchmark=benchmark)
        for benchmark in ("toy", "other", "third")
    ]
    alarms = Alarms(history).raise_(
        [Suspicion("regression", *pair, 0.01, 0.05) for pair in zip(new, bases, strict=True)]  # type: ignore[arg-type]
    )
    asked = {run["training_run"]: run["benchmarks"] for run in requests(history, alarms, PARAMS)}
    assert asked == {
        "r+confirm-1": "toy:4,other:4,third:4",
        "a+confirm-1": "toy:4",
        "b+confirm-1": "other:4,third:4",
    }


def test_a_checkpoint_without_a_step_and_one_of_step_0(history: History, tmp_path: Path) -> None:
    sides = [checkpoint("r", 0), checkpoint("r", 9, name="final").model_copy(update={"step": None})]
    base, new = (record(history, tmp_path / "results", it, GOOD) for it in sides)
    alarms = Alarms(history).raise_([Suspicion(Kind.REGRESSION, new, base, 0.01, 0.05)])
    asked = {conf["name"]: conf for conf in requests(history, alarms, PARAMS)}
    assert asked["step-0"]["step"] == 0
    assert "step" not in asked["final"]


def test_each_alarm_is_confirmed_on_other_seeds_in_runs_of_its_own(history: History, tmp_path: Path) -> None:
    long = "r" * 200
    base, *new = (record(history, tmp_path / "results", checkpoint(long, s), GOOD) for s in (1, 2, 3))
    first, second = Alarms(history).raise_([Suspicion(Kind.REGRESSION, it, base, 0.01, 0.05) for it in new])
    seeds = {requests(history, [alarm], PARAMS)[0]["seed"] for alarm in (first, second)}
    assert len(seeds) == 2
    names = [run_name(alarms, first.checkpoint) for alarms in ([first, second], [second, first], [second])]
    assert names[0] == names[1] != names[2]
    assert max(map(len, names)) <= 200


def test_half_of_an_evaluation_confirms_nothing(
    history: History, alarms: list[Alarm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_again(history, tmp_path, alarms, GOOD, GOOD)
    whole = history.evaluations
    torn = lambda **of: [replace(it, complete=False) for it in whole(**of)]  # noqa: E731
    monkeypatch.setattr(history, "evaluations", torn)
    (settled,) = settle(history, alarms)
    assert settled.reason == "could not be confirmed: there is no whole evaluation of both on fresh seeds"


@pytest.mark.parametrize(("margin", "state"), [(0.01, State.CONFIRMED), (0.6, State.REFUTED)])
def test_it_is_confirmed_by_its_own_margin(
    history: History, tmp_path: Path, margin: float, state: State
) -> None:
    base, new = (record(history, tmp_path / "results", checkpoint("r", s), GOOD) for s in (100, 200))
    raised = Alarms(history).raise_([Suspicion(Kind.REGRESSION, new, base, margin, 0.05)])
    look_again(history, tmp_path, raised, BAD, GOOD)
    assert [it.state for it in settle(history, raised)] == [state]


def test_a_confirmation_is_one_test_however_many_nights_there_were(history: History, tmp_path: Path) -> None:
    """Of six problems that got worse one pattern of 64: enough for one test, though not for the hundredth night."""
    good, less = [3] * 6, [2] * 6
    base, new = (record(history, tmp_path / "results", checkpoint("r", s), good) for s in (100, 200))
    raised = Alarms(history).raise_([Suspicion(Kind.REGRESSION, new, base, 0.01, 1e-6)])
    look_again(history, tmp_path, raised, less, good)
    assert ALPHA > 1 / 64
    assert settle(history, raised)[0].state is State.CONFIRMED


def test_a_checkpoint_without_a_place_cannot_be_asked_again(alarms: list[Alarm]) -> None:
    (alarm,) = alarms
    lost = replace(alarm, baseline=alarm.baseline.model_copy(update={"path": None}))
    assert unconfirmable([lost], PARAMS) == "it is not known where r/step-100 is"


def test_worse_again_is_confirmed(history: History, alarms: list[Alarm], tmp_path: Path) -> None:
    look_again(history, tmp_path, alarms, BAD, GOOD)
    (settled,) = settle(history, alarms)
    assert settled.state is State.CONFIRMED
    assert settled.reason.startswith("-50.0 points (p = ")
    assert settled.reason.endswith(") on fresh seeds")
    assert settled.confirmation
    assert settled.base_confirmation
    names = [
        history.evaluation(id_).checkpoint.name for id_ in (settled.confirmation, settled.base_confirmation)
    ]
    assert names == ["step-200", "step-100"]


def test_not_seen_again_is_refuted(history: History, alarms: list[Alarm], tmp_path: Path) -> None:
    look_again(history, tmp_path, alarms, GOOD, GOOD)
    (settled,) = settle(history, alarms)
    assert settled.state is State.REFUTED
    assert settled.reason == "+0.0 points (p = 1) on fresh seeds"


@pytest.mark.parametrize(("again", "state"), [(3, State.CONFIRMED), (0, State.REFUTED)])
def test_a_rate_that_rose_is_an_alarm_of_its_own(
    history: History, tmp_path: Path, again: int, state: State
) -> None:
    sides = checkpoint("r", 100), checkpoint("r", 200)
    chosen = [
        history.evaluation(record(history, tmp_path / "results", side, GOOD, cut_off=cut))
        for side, cut in zip(sides, (0, 2), strict=True)
    ]
    pair = [(chosen[1], chosen[0])]
    raised = Alarms(history).raise_(suspicions(compare_recorded(history, pair).benchmarks, pair))
    assert [alarm.kind for alarm in raised] == [Kind.TRUNCATION], "as many are right as before"
    assert raised[0].margin == MARGINS[RateKind.TRUNCATION]
    for side, cut in zip(sides, (0, again), strict=True):
        named = side.model_copy(update={"run": run_name(raised, side)})
        record(history, tmp_path / "again", named, GOOD, seed=6, cut_off=cut)
    (settled,) = settle(history, raised)
    assert settled.state is state
    assert settled.reason.startswith(f"truncation 0.00% → {again / 4:.2%} (p = ")


def test_a_baseline_that_lost_as_much_is_the_stacks_fault(
    history: History, alarms: list[Alarm], tmp_path: Path
) -> None:
    look_again(history, tmp_path, alarms, BAD, BAD)
    assert settle(history, alarms)[0].state is State.REFUTED


def test_while_the_history_is_away_nothing_is_said_of_a_model(
    history: History, alarms: list[Alarm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_again(history, tmp_path, alarms, GOOD, GOOD)

    def away(*_: object, **__: object) -> None:
        with said(create_engine("sqlite://")):
            raise OperationalError("SELECT", {}, Exception("server closed the connection"))

    with monkeypatch.context() as once:
        once.setattr(history, "pairs", away)
        with pytest.raises(ResultsError, match="server closed the connection"):
            settle(history, alarms)
    assert Alarms(history).get([alarms[0].id]) == alarms
    assert settle(history, alarms)[0].state is State.REFUTED, "and nobody was told"


def test_what_cannot_be_looked_at_again_is_told_with_the_reason(
    history: History, alarms: list[Alarm], tmp_path: Path
) -> None:
    (settled,) = settle(history, alarms, "a run failed")
    assert (settled.state, settled.reason) == (State.CONFIRMED, "could not be confirmed: a run failed")
    assert settled.confirmation is None


def test_another_model_under_the_same_name_confirms_nothing(
    history: History, alarms: list[Alarm], tmp_path: Path
) -> None:
    for side, digest in ((alarms[0].checkpoint, "other"), (alarms[0].baseline, alarms[0].baseline.digest)):
        named = checkpoint(run_name(alarms, side), side.step or 0, name=side.name, digest=digest)
        record(history, tmp_path / "again", named, GOOD, seed=6)
    (settled,) = settle(history, alarms)
    assert settled.reason == "could not be confirmed: there is no whole evaluation of both on fresh seeds"


def test_what_is_not_comparable_confirms_nothing(
    history: History, alarms: list[Alarm], tmp_path: Path
) -> None:
    for side, seed in ((alarms[0].checkpoint, 6), (alarms[0].baseline, 5)):
        named = checkpoint(run_name(alarms, side), side.step or 0, name=side.name, digest=side.digest)
        record(history, tmp_path / "again", named, GOOD, seed=seed)
    (settled,) = settle(history, alarms)
    assert settled.state is State.CONFIRMED
    assert settled.reason == "could not be confirmed: sampling.seed: 6, not 5"


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        (PARAMS, ""),
        ({**PARAMS, "server_address": "http://host/v1"}, "a server that runs already was asked"),
    ],
)
def test_a_servers_answers_cannot_be_confirmed(
    alarms: list[Alarm], params: dict[str, Any], reason: str
) -> None:
    found = unconfirmable(alarms, params)
    assert found.startswith(reason)
    assert bool(found) == bool(reason)
