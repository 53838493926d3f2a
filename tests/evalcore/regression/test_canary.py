"""A canary tells whether the stack moved, and holds back what is said of models while it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from evalcore.comparison import ALPHA, spent
from evalcore.errors import ConfigError
from evalcore.history import open_history
from evalcore.history.alarms import Alarm, Alarms, Kind, State, Suspicion
from evalcore.history.store import Evaluation, History
from evalcore.regression.canary import (
    Canary,
    canaries,
    hold,
    judge_stack,
    lineage,
    night_name,
    request,
    unwatched,
)
from evalcore.regression.confirmation import to_confirm
from evaluations import checkpoint, record

pytestmark = pytest.mark.slow

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


def test_nights_spend_alpha_each_its_own_part_and_anew_after_a_change(
    history: History, tmp_path: Path
) -> None:
    moved = [right - 1 for right in USUAL]
    for day in (1, 2):
        assert evaluated(history, tmp_path, day, USUAL) == []
    (alarm,) = evaluated(history, tmp_path, 3, moved)
    assert alarm.alpha == pytest.approx(spent(ALPHA, 2))
    for day, right in ((4, USUAL), (5, moved)):
        of = checkpoint(lineage("frozen"), day, name=night_name(night(day)), digest="frozen")
        record(history, tmp_path / "results", of, right, chat_template="other")
        found = judge_stack(history, "frozen", CANARY, night(day))
    assert found[0].alpha == pytest.approx(spent(ALPHA, 1))


def test_half_a_night_and_other_weights_say_nothing_of_the_stack(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated(history, tmp_path, 1, USUAL)
    of = checkpoint(lineage("frozen"), 2, name=night_name(night(2)), digest="thawed")
    record(history, tmp_path / "results", of, [0] * PROBLEMS)
    assert judge_stack(history, "frozen", CANARY, night(2)) == []
    of = checkpoint(lineage("frozen"), 3, name=night_name(night(3)), digest="frozen")
    record(history, tmp_path / "results", of, [0] * PROBLEMS)
    all_of = history.evaluations
    for torn_step in (3, 1):

        def torn(step: int = torn_step, **of: Any) -> list[Evaluation]:
            return [replace(it, complete=it.checkpoint.step != step) for it in all_of(**of)]

        with monkeypatch.context() as patch:
            patch.setattr(history, "evaluations", torn)
            assert judge_stack(history, "frozen", CANARY, night(3)) == []
    assert len(judge_stack(history, "frozen", CANARY, night(3))) == 1


def test_as_far_as_its_margin_a_canary_may_move(history: History, tmp_path: Path) -> None:
    lenient = CANARY.model_copy(update={"margins": {"toy": 0.3}})
    for day, by in ((1, 0), (2, -1), (3, +1)):
        of = checkpoint(lineage("frozen"), day, name=night_name(night(day)), digest="frozen")
        record(history, tmp_path / "results", of, [right + by for right in USUAL])
        assert judge_stack(history, "frozen", lenient, night(day)) == []
    assert len(judge_stack(history, "frozen", CANARY, night(3))) == 1


def test_a_night_without_a_benchmark_does_not_say_that_it_is_back(history: History, tmp_path: Path) -> None:
    for day, right, benchmarks in ((1, USUAL, "ab"), (2, [0] * PROBLEMS, "a"), (3, USUAL, "b")):
        of = checkpoint(lineage("frozen"), day, name=night_name(night(day)), digest="frozen")
        for benchmark in benchmarks:
            record(history, tmp_path / "results", of, right, benchmark=benchmark)
        judge_stack(history, "frozen", CANARY, night(day))
    assert "a by -62.5 points" in hold(history, "local")


def raised(history: History, folder: Path, run: str, cluster: str = "local", held: bool = True) -> int:
    """An alarm of a model, held or suspected."""
    new, base = (
        record(history, folder / "results", checkpoint(run, step), [right] * PROBLEMS)
        for step, right in ((200, 1), (100, 3))
    )
    (alarm,) = Alarms(history).raise_(
        [Suspicion(Kind.REGRESSION, new, base, 0.01, ALPHA)],
        held="the stack moved" if held else "",
        raised_by={"evaluation": f"ckpt__{run}", "params": {"cluster": cluster}},
    )
    return alarm.id


def free(history: History) -> list[int]:
    return [alarm.id for alarm in to_confirm(history)]


@pytest.mark.parametrize("ends", ["back", "acknowledged", "file"])
def test_what_was_held_goes_on_when_nothing_holds_it_any_more(
    history: History, folder: Path, tmp_path: Path, ends: str
) -> None:
    evaluated(history, tmp_path, 1, USUAL)
    (moved,) = evaluated(history, tmp_path, 2, [right - 1 for right in USUAL])
    # One was suspected when it moved, and the run that was to look at it may have failed.
    ids = [raised(history, tmp_path, run, held=run == "a") for run in "ab"]
    elsewhere = raised(history, tmp_path, "c", cluster="slurm")
    assert free(history) == [elsewhere], "no canary watches over that one"
    if ends == "back":
        evaluated(history, tmp_path, 3, USUAL)
    elif ends == "acknowledged":
        Alarms(history).acknowledge([moved.id], by="ada")
    else:
        (folder / "frozen.yaml").unlink()
    assert free(history) == [*ids, elsewhere]
    assert [alarm.id for alarm in to_confirm(history, "b")] == ids[1:]
    Alarms(history).release(ids)
    assert free(history) == [*ids, elsewhere], "until something became of them"
    for id_ in ids:
        Alarms(history).settle(id_, State.REFUTED)
    assert free(history) == [elsewhere]


def test_every_canary_of_the_cluster_has_to_be_done_with(
    history: History, folder: Path, tmp_path: Path
) -> None:
    (folder / "second.yaml").write_text("checkpoint: /ckpt/second\nsuite: tiny\n")
    moved = []
    for name in ("frozen", "second"):
        for day, right in ((1, 3), (2, 1)):
            of = checkpoint(lineage(name), day, name=night_name(night(day)), digest=name)
            record(history, tmp_path / "results", of, [right] * PROBLEMS)
        moved += judge_stack(history, name, CANARY, night(2))
    held = raised(history, tmp_path, "r")
    first, second = (alarm.id for alarm in moved)
    Alarms(history).acknowledge([first], by="ada")
    assert free(history) == []
    (folder / "second.yaml").write_text("checkpoint: /ckpt/second\nsuite: tinny\n")
    assert free(history) == [], "a mistyped file ends nothing"
    Alarms(history).acknowledge([second], by="ada")
    assert free(history) == [held]


@pytest.mark.parametrize("nights", [(4, 3), (3, 4)], ids=["down", "up"])
@pytest.mark.parametrize(("benchmarks", "problems", "moved"), [("a", 7, 1), ("ab", 7, 0), ("ab", 8, 2)])
def test_of_several_benchmarks_a_false_alarm_is_no_likelier(
    history: History, tmp_path: Path, nights: tuple[int, int], benchmarks: str, problems: int, moved: int
) -> None:
    """Of seven problems that moved alike one pattern of 128: enough for two tests (down, up), not for four."""
    for day, right in enumerate(nights, 1):
        of = checkpoint(lineage("frozen"), day, name=night_name(night(day)), digest="frozen")
        for benchmark in benchmarks:
            record(history, tmp_path / "results", of, [right] * problems, benchmark=benchmark)
    assert len(judge_stack(history, "frozen", CANARY, night(2))) == moved


def test_what_is_over_is_not_begun_again_by_a_task_that_is_tried_again(
    history: History, tmp_path: Path
) -> None:
    for day, right in ((1, USUAL), (2, [0] * PROBLEMS), (3, USUAL)):
        evaluated(history, tmp_path, day, right)
    assert judge_stack(history, "frozen", CANARY, night(2)) == []
    assert hold(history, "local") == ""


def test_a_canary_whose_file_is_gone_holds_nothing_back(
    history: History, folder: Path, tmp_path: Path
) -> None:
    for day, right in ((1, USUAL), (2, [0] * PROBLEMS)):
        evaluated(history, tmp_path, day, right)
    (folder / "other.yaml").write_text("checkpoint: /ckpt/other\nsuite: tiny\n")
    assert hold(history, "local")
    (folder / "frozen.yaml").unlink()
    assert hold(history, "local") == ""


def test_the_lineage_of_a_canary_in_a_folder_is_a_name() -> None:
    assert lineage("team/frozen") == "canary-team-frozen"


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


@pytest.mark.parametrize("changed", ["settings", "weights"])
def test_a_canary_that_is_another_one_since_is_not_back_where_it_was(
    history: History, tmp_path: Path, changed: str
) -> None:
    moved = [right - 1 for right in USUAL]
    evaluated(history, tmp_path, 1, USUAL)
    evaluated(history, tmp_path, 2, moved)
    for day in (3, 4):
        digest = "other" if changed == "weights" else "frozen"
        of = checkpoint(lineage("frozen"), day, name=night_name(night(day)), digest=digest)
        record(history, tmp_path / "results", of, moved, **({"seed": 7} if changed == "settings" else {}))
        assert judge_stack(history, "frozen", CANARY, night(day)) == []
    assert hold(history, "local"), "until somebody acknowledges it"
