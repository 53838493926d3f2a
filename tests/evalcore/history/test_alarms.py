"""Alarms on SQLite and PostgreSQL: raised once, told once, promoted baselines."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evalcore.checkpoints import Checkpoint
from evalcore.errors import ResultsError
from evalcore.history import open_history
from evalcore.history.alarms import Alarms, Kind, State, Suspicion
from evalcore.history.store import History
from evalcore.summarize import summarize
from synthetic_results import Sample, manifest, write


def evaluated(history: History, folder: Path, step: int, *, name: str = "toy", run: str = "tiny") -> int:
    place = folder / run / f"step-{step}" / name
    checkpoint = Checkpoint(
        path=f"/ckpt/step-{step}", run=run, name=f"step-{step}", step=step, digest=f"d{step}"
    )
    write(place, manifest(1, 1, name=name, checkpoint=checkpoint), [Sample("a", 0, "1", True)])
    summarize(place)
    return history.record(place).id


def suspicion(new: int, base: int, kind: Kind = Kind.REGRESSION) -> Suspicion:
    return Suspicion(kind, new, base, margin=0.01, alpha=0.05)


def test_an_alarm_says_what_it_was_raised_about(history: History, tmp_path: Path) -> None:
    base, new = (evaluated(history, tmp_path, step) for step in (100, 200))
    (alarm,) = Alarms(history).raise_([suspicion(new, base)])
    assert (alarm.run, alarm.benchmark, alarm.kind, alarm.state) == (
        "tiny",
        "toy",
        Kind.REGRESSION,
        State.SUSPECTED,
    )
    assert (alarm.checkpoint.step, alarm.baseline.step) == (200, 100)
    assert (alarm.checkpoint.path, alarm.baseline.path) == ("/ckpt/step-200", "/ckpt/step-100")
    assert (alarm.evaluation, alarm.base_evaluation, alarm.margin, alarm.alpha) == (new, base, 0.01, 0.05)
    assert (alarm.confirmation, alarm.acknowledged_at, alarm.reason, alarm.note) == (None, None, "", "")


def test_raised_again_it_is_the_same_alarm(history: History, tmp_path: Path) -> None:
    base, new = (evaluated(history, tmp_path, step) for step in (100, 200))
    alarms = Alarms(history)
    (first,) = alarms.raise_([suspicion(new, base)])
    alarms.settle(first.id, State.REFUTED, reason="chance")
    again, other = alarms.raise_([suspicion(new, base), suspicion(new, base, Kind.TRUNCATION)])
    assert (again.id, again.state, again.reason) == (first.id, State.REFUTED, "chance")
    assert (other.kind, other.state) == (Kind.TRUNCATION, State.SUSPECTED)
    assert [alarm.id for alarm in alarms.find(state=State.SUSPECTED)] == [other.id]
    assert [alarm.id for alarm in alarms.find(run="tiny")] == [other.id, first.id]
    assert alarms.find(run="other") == alarms.find(kind=Kind.CANARY) == []


def test_of_two_suspicions_one_unknown_none_is_raised(history: History, tmp_path: Path) -> None:
    base, new = (evaluated(history, tmp_path, step) for step in (100, 200))
    with pytest.raises(ResultsError, match="no evaluation 99"):
        Alarms(history).raise_([suspicion(new, base), suspicion(new, 99)])
    assert Alarms(history).find() == []
    with pytest.raises(ResultsError, match="no alarm 7"):
        Alarms(history).get([7])


def test_what_is_held_is_suspected_when_nothing_holds_it_any_more(history: History, tmp_path: Path) -> None:
    base, new = (evaluated(history, tmp_path, step) for step in (100, 200))
    alarms = Alarms(history)
    (held,) = alarms.raise_([suspicion(new, base)], held="the canary moved")
    assert (held.state, held.reason) == (State.HELD, "the canary moved")
    (still,) = alarms.raise_([suspicion(new, base)], held="the canary moved again")
    assert still == held
    (released,) = alarms.raise_([suspicion(new, base)])
    assert (released.id, released.state, released.reason) == (held.id, State.SUSPECTED, "")
    (late,) = alarms.raise_([suspicion(new, base)], held="the canary moved")
    assert late.state is State.SUSPECTED, "it is being confirmed"


def test_what_is_held_is_released_and_nothing_else(history: History, tmp_path: Path) -> None:
    base, new = (evaluated(history, tmp_path, step) for step in (100, 200))
    alarms = Alarms(history)
    held, other = alarms.raise_(
        [suspicion(new, base), suspicion(new, base, Kind.LENGTH)], held="the canary moved"
    )
    (refuted,) = alarms.raise_([suspicion(new, base, Kind.TRUNCATION)])
    refuted = alarms.settle(refuted.id, State.REFUTED, reason="chance")
    first, second = alarms.release([refuted.id, held.id])
    assert first == refuted
    assert (second.id, second.state, second.reason) == (held.id, State.SUSPECTED, "")
    assert alarms.release([held.id]) == [second]
    assert alarms.get([other.id]) == [other]
    with pytest.raises(ResultsError, match="no alarm 99"):
        alarms.release([99])


def test_what_raised_an_alarm_first_stays(history: History, tmp_path: Path) -> None:
    base, new = (evaluated(history, tmp_path, step) for step in (100, 200))
    alarms = Alarms(history)
    run = {"evaluation": "ckpt__1", "params": {"suite": "tiny", "overrides": ["a=\u00e9"], "step": None}}
    (alarm,) = alarms.raise_([suspicion(new, base)], held="the canary moved", raised_by=run)
    assert alarm.raised_by == run
    (again,) = alarms.raise_([suspicion(new, base)], raised_by={"evaluation": "other", "params": {}})
    assert (again.id, again.raised_by) == (alarm.id, run)
    (canary,) = alarms.raise_([suspicion(new, base, Kind.CANARY)])
    assert canary.raised_by == {}
    assert alarms.get([canary.id, alarm.id]) == [canary, again]


def test_one_run_looks_at_an_alarm_whoever_asks_next(history: History, tmp_path: Path) -> None:
    base, *new = (evaluated(history, tmp_path, step) for step in (100, 200, 300))
    alarms = Alarms(history)
    first, second = (alarms.raise_([suspicion(id_, base)], held="the canary moved")[0] for id_ in new)
    assert (first.confirming, second.confirming) == ("", "")
    assert [it.confirming for it in alarms.claim([first.id], "run 1")] == ["run 1"]
    again = alarms.claim([second.id, first.id], "run 2")
    assert [(it.id, it.confirming) for it in again] == [(second.id, "run 2"), (first.id, "run 1")]
    assert alarms.find(state=State.HELD) == again, "they are held as before"
    with pytest.raises(ResultsError, match="no alarm 99"):
        alarms.claim([99], "run 3")


def test_of_two_runs_that_want_an_alarm_at_once_one_has_it(
    history: History, url: str, tmp_path: Path
) -> None:
    base, *new = (evaluated(history, tmp_path, step) for step in (100, 200, 300, 400))
    ids = [alarm.id for alarm in Alarms(history).raise_([suspicion(id_, base) for id_ in new])]
    start = threading.Barrier(4)
    found: list[list[str]] = []

    def claim(run: str) -> None:
        with open_history(url) as mine:
            start.wait(30)
            found.append([alarm.confirming for alarm in Alarms(mine).claim(ids, run)])

    threads = [threading.Thread(target=claim, args=(f"run {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [[found[0][0]] * 3] * 4, "all of them are told the same"
    assert [alarm.confirming for alarm in Alarms(history).get(ids)] == found[0]


def test_nobody_is_told_twice_of_one_baseline(history: History, tmp_path: Path) -> None:
    base, *new = (evaluated(history, tmp_path, step) for step in (100, 200, 300))
    alarms = Alarms(history)
    first, second = alarms.raise_([suspicion(id_, base) for id_ in new])
    assert alarms.settle(first.id, State.CONFIRMED).state is State.CONFIRMED
    assert alarms.settle(second.id, State.CONFIRMED, confirmation=base).state is State.REPEATED
    assert alarms.get([second.id])[0].confirmation == base
    alarms.acknowledge([first.id], by="ada")
    assert alarms.settle(second.id, State.CONFIRMED).state is State.REPEATED
    (other,) = alarms.raise_([suspicion(new[1], new[0])])
    assert alarms.settle(other.id, State.CONFIRMED).state is State.CONFIRMED, "of another baseline"


def test_of_two_confirmed_at_once_one_is_repeated(history: History, url: str, tmp_path: Path) -> None:
    base, *new = (evaluated(history, tmp_path, step) for step in (100, 200, 300, 400, 500))
    raised = Alarms(history).raise_([suspicion(id_, base) for id_ in new])
    start = threading.Barrier(len(raised))
    states: list[State] = []

    def confirm(id_: int) -> None:
        with open_history(url) as mine:
            start.wait(60)
            states.append(Alarms(mine).settle(id_, State.CONFIRMED).state)

    threads = [threading.Thread(target=confirm, args=(alarm.id,)) for alarm in raised]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(states) == [State.CONFIRMED] + [State.REPEATED] * 3


def test_who_acknowledged_first_stays(history: History, tmp_path: Path) -> None:
    base, new = (evaluated(history, tmp_path, step) for step in (100, 200))
    alarms = Alarms(history)
    (alarm,) = alarms.raise_([suspicion(new, base)])
    (untold,) = alarms.acknowledge([alarm.id], by="eve")
    assert untold.state is State.SUSPECTED, "nobody has been told of it yet"
    alarms.settle(alarm.id, State.CONFIRMED)
    (known,) = alarms.acknowledge([alarm.id], by="ada", note="the new tokenizer")
    assert (known.state, known.acknowledged_by, known.note) == (
        State.ACKNOWLEDGED,
        "ada",
        "the new tokenizer",
    )
    assert known.acknowledged_at
    assert known.raised_at <= known.acknowledged_at <= datetime.now(UTC)
    assert alarms.acknowledge([alarm.id], by="bob") == [known]
    assert alarms.settle(alarm.id, State.REFUTED) == known
    assert alarms.promoted("tiny", "toy") is None, "only a canary's numbers become its baseline by that"


def test_of_two_at_the_same_time_one_was_first(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, new = (evaluated(history, tmp_path, step) for step in (100, 200))
    alarms = Alarms(history)
    (alarm,) = alarms.raise_([suspicion(new, base)])
    open_ = alarms.settle(alarm.id, State.CONFIRMED)
    (known,) = alarms.acknowledge([alarm.id], by="ada")
    seen = iter([[open_], [known]])
    monkeypatch.setattr("evalcore.history.alarms._of", lambda *_: next(seen))
    alarms.acknowledge([alarm.id], by="bob")
    monkeypatch.undo()
    assert alarms.get([alarm.id]) == [known]


def test_each_channel_has_each_alarm_once(history: History, tmp_path: Path) -> None:
    base, *new = (evaluated(history, tmp_path, step) for step in (100, 200, 300))
    alarms = Alarms(history)
    ids = [alarm.id for alarm in alarms.raise_([suspicion(id_, base) for id_ in new])]
    alarms.delivered(ids[:1], "slack")
    alarms.delivered(ids[:1], "slack")
    assert alarms.undelivered(ids, "slack") == ids[1:]
    assert alarms.undelivered(ids, "mail") == ids


def test_the_last_promoted_is_the_baseline(history: History, tmp_path: Path) -> None:
    first, second = (evaluated(history, tmp_path, step) for step in (100, 200))
    elsewhere = evaluated(history, tmp_path, 100, run="other")
    alarms = Alarms(history)
    assert alarms.promoted("tiny", "toy") is None
    alarms.promote([second, elsewhere], by="ada")
    alarms.promote([first], by="ada")
    assert alarms.promoted("tiny", "toy") == first
    assert alarms.promoted("other", "toy") == elsewhere
    assert alarms.promoted("tiny", "gsm8k") is None
    with pytest.raises(ResultsError, match="no evaluation 99"):
        alarms.promote([99], by="ada")
