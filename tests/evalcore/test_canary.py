"""A canary tells whether the stack moved, and holds back what is said of models while it has."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evalcore.canary import Canary, canaries, hold, judge_stack, lineage, night_name, request, unwatched
from evalcore.errors import ConfigError
from evalcore.history import open_history
from evalcore.history.alarms import Alarm, Alarms, Kind, State
from evalcore.history.store import History
from evaluations import checkpoint, record

PROBLEMS = 60
USUAL = [2, 3] * (PROBLEMS // 2)
CANARY = Canary(checkpoint="/ckpt/frozen", suite="tiny", cluster="local")


def night(day: int) -> datetime:
    return datetime(2026, 11, day, 2, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path / "include"))
    folder = tmp_path / "include" / "canaries"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def history(tmp_path: Path, folder: Path) -> Iterator[History]:
    (folder / "frozen.yaml").write_text("checkpoint: /ckpt/frozen\nsuite: tiny\n")
    with open_history(f"sqlite:///{tmp_path}/history.sqlite") as opened:
        yield opened


def evaluated(history: History, folder: Path, day: int, right: list[int], version: str = "1") -> list[Alarm]:
    of = checkpoint(lineage("frozen"), day, name=night_name(night(day)), digest="frozen")
    record(history, folder / "results", of, right, evalcore=version)
    return judge_stack(history, "frozen", CANARY, night(day))


def test_nights_that_are_alike_hold_nothing_back(history: History, tmp_path: Path) -> None:
    for day in range(1, 6):
        noise = [right - (i == day) for i, right in enumerate(USUAL)]
        assert evaluated(history, tmp_path, day, noise) == []
    assert hold(history, "local") == ""


@pytest.mark.parametrize(("by", "points"), [(-1, "-25.0"), (+1, "+25.0")])
def test_a_stack_that_moved_either_way_holds_back_its_clusters_models(
    history: History, tmp_path: Path, by: int, points: str
) -> None:
    evaluated(history, tmp_path, 1, USUAL)
    (alarm,) = evaluated(history, tmp_path, 2, [right + by for right in USUAL], version="2")
    assert (alarm.kind, alarm.state, alarm.run) == (Kind.CANARY, State.CONFIRMED, "canary-frozen")
    assert alarm.reason == f"toy by {points} points, after evalcore 1 → 2"
    assert hold(history, "local").startswith("the stack moved: canary-frozen of ")
    assert hold(history, "other") == ""


def test_it_is_told_once_and_over_when_the_numbers_are_back(history: History, tmp_path: Path) -> None:
    moved = [right - 1 for right in USUAL]
    evaluated(history, tmp_path, 1, USUAL)
    assert len(evaluated(history, tmp_path, 2, moved)) == 1
    assert evaluated(history, tmp_path, 3, moved) == []
    assert hold(history, "local")
    assert evaluated(history, tmp_path, 4, USUAL) == []
    assert hold(history, "local") == ""


def test_acknowledged_the_moved_numbers_are_the_new_baseline(history: History, tmp_path: Path) -> None:
    moved = [right - 1 for right in USUAL]
    evaluated(history, tmp_path, 1, USUAL)
    (alarm,) = evaluated(history, tmp_path, 2, moved)
    Alarms(history).acknowledge([alarm.id], by="ada")
    assert hold(history, "local") == ""
    assert evaluated(history, tmp_path, 3, moved) == []
    assert hold(history, "local") == ""
    (back,) = evaluated(history, tmp_path, 4, USUAL)
    assert "+25.0 points" in back.reason


def test_tried_again_it_is_the_same_alarm(history: History, tmp_path: Path) -> None:
    evaluated(history, tmp_path, 1, USUAL)
    first = evaluated(history, tmp_path, 2, [1] * PROBLEMS)
    assert judge_stack(history, "frozen", CANARY, night(2)) == first


def test_another_prompt_is_another_baseline(history: History, tmp_path: Path) -> None:
    evaluated(history, tmp_path, 1, USUAL)
    of = checkpoint(lineage("frozen"), 2, name=night_name(night(2)), digest="frozen")
    record(history, tmp_path / "results", of, [0] * PROBLEMS, chat_template="other")
    assert judge_stack(history, "frozen", CANARY, night(2)) == []


def test_each_night_is_an_evaluation_of_its_own() -> None:
    asked = request("frozen", CANARY, night(2))
    assert asked == {
        "trigger_run_id": "canary-frozen__2026-11-02T020000",
        "conf": {
            "checkpoint": "/ckpt/frozen",
            "training_run": "canary-frozen",
            "name": "2026-11-02T020000",
            "step": 20261102,
            "compare": False,
            "suite": "tiny",
            "cluster": "local",
        },
    }
    assert request("frozen", CANARY, night(2)) == asked
    assert request("frozen", CANARY, night(3))["conf"]["name"] != asked["conf"]["name"]


def test_a_file_that_cannot_be_used_does_not_stop_the_others(folder: Path) -> None:
    (folder / "a.yaml").write_text("checkpoint: /ckpt/a\nsuite: nope\n")
    (folder / "b.yaml").write_text("checkpoint: /ckpt/b\nsuite: tiny\n")
    (folder / "c.yaml").write_text("enabled: false\nsuite: tiny\ncheckpoint: /ckpt/c\n")
    (folder / "d.yaml").write_text("checkpoint: /ckpt/d\nsuite: tiny\nmargins: {hle: 0.1}\n")
    found = dict(canaries())
    assert list(found) == ["a", "b", "d"]
    assert isinstance(found["b"], Canary)
    for name, message in (("a", "unknown suite 'nope'"), ("d", "margins: 'hle' is not evaluated")):
        assert isinstance(found[name], ConfigError)
        assert message in str(found[name])


def test_a_checkpoint_that_was_overwritten_is_said_to_be_another(history: History, tmp_path: Path) -> None:
    for day in (1, 2):
        evaluated(history, tmp_path, day, USUAL)
    assert unwatched(history, "frozen", night(2)) is None
    for day in (3, 4):
        of = checkpoint(lineage("frozen"), day, name=night_name(night(day)), digest="overwritten")
        record(history, tmp_path / "results", of, [0] * PROBLEMS)
        assert judge_stack(history, "frozen", CANARY, night(day)) == []
        missing = unwatched(history, "frozen", night(day))
        if day == 4:
            assert missing is None, "it is said once"
            continue
        assert missing is not None
        assert missing.changed
        assert "is not the checkpoint of the nights before" in missing.reason


def test_what_cannot_be_looked_at_is_not_where_it_was(history: History, tmp_path: Path) -> None:
    missing = unwatched(history, "frozen", night(1))
    assert missing == ("canary frozen: there is no whole evaluation of it tonight", False)
    evaluated(history, tmp_path, 1, USUAL)
    missing = unwatched(history, "frozen", night(1))
    assert missing == ("canary frozen: of toy this is the first night, as it is asked now", False)


def test_a_night_that_is_judged_again_is_judged_as_it_was(history: History, tmp_path: Path) -> None:
    moved = [right - 1 for right in USUAL]
    evaluated(history, tmp_path, 1, USUAL)
    evaluated(history, tmp_path, 2, USUAL)
    (alarm,) = evaluated(history, tmp_path, 3, moved)
    for day in (1, 2):
        assert judge_stack(history, "frozen", CANARY, night(day)) == []
    assert hold(history, "local"), "what is found later is not over"
    Alarms(history).acknowledge([alarm.id], by="ada")
    for day in (1, 2, 3):
        assert judge_stack(history, "frozen", CANARY, night(day)) == []
    assert hold(history, "local") == ""


def test_files_whose_nights_nobody_would_find_cannot_be_used(folder: Path) -> None:
    (folder / "a").mkdir()
    for name in ("a b", "b\u00e9", "a-c", "a/c"):
        (folder / f"{name}.yaml").write_text("checkpoint: /ckpt/a\nsuite: tiny\n")
    found = {name: str(it) for name, it in canaries() if isinstance(it, ConfigError)}
    assert found.keys() == {"a b", "b\u00e9", "a/c"}
    assert found["a b"] == "canary a b: letters, digits and . _ + = - make a name; rename the file"
    assert found["a/c"] == "canary a/c: its nights would be those of a-c; rename the file"


def test_a_file_that_cannot_be_used_ends_no_hold(history: History, folder: Path, tmp_path: Path) -> None:
    evaluated(history, tmp_path, 1, USUAL)
    evaluated(history, tmp_path, 2, [right - 1 for right in USUAL])
    (folder / "frozen.yaml").write_text("checkpoint: /ckpt/frozen\nsuite: tinny\n")
    assert hold(history, "local").startswith("the stack moved: canary-frozen")
