"""What is proposed as a baseline, beside what it was compared with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from alarmed import BAD, evaluated
from evalcore.errors import ConfigError, ResultsError
from evalcore.history import open_history
from evalcore.history.alarms import Alarms
from evalcore.history.store import History
from evalcore.manifest import SCORECARD
from evalcore.regression.promotion import propose
from evalcore.summarize import summarize
from evalcore.tracked import Baseline
from synthetic_results import CHECKPOINT, Sample, manifest, write

PREVIOUS = Baseline(kind="previous")


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with open_history(f"sqlite:///{tmp_path}/history.sqlite") as opened:
        yield opened


def test_old_and_new_numbers_stand_beside_each_other(history: History, tmp_path: Path) -> None:
    evaluated(history, tmp_path, 900)
    new = evaluated(history, tmp_path, 1500, BAD)
    first = evaluated(history, tmp_path, 1500, BAD, name="aime24")
    found = propose(history, "llama", "step-1500", PREVIOUS)
    assert found.evaluations == [first, new]
    assert found.table.splitlines() == [
        "benchmark | mode      | its baseline | correct        | step-1500",
        "aime24    | pass@1[4] | none         |                | 56.25% ± 4.36%",
        "toy       | pass@1[4] | step-900     | 81.25% ± 3.32% | 56.25% ± 4.36%",
    ]
    assert propose(history, "llama", "step-1500", PREVIOUS, ["toy"]).evaluations == [new]


def test_what_was_promoted_before_is_what_it_was_compared_with(history: History, tmp_path: Path) -> None:
    old = evaluated(history, tmp_path, 600, BAD)
    evaluated(history, tmp_path, 900)
    evaluated(history, tmp_path, 1500)
    Alarms(history).promote([old], by="ada")
    pinned = Baseline(kind="pinned", name="step-900")
    assert "step-600" in propose(history, "llama", "step-1500", pinned).table
    assert "step-900" in propose(history, "llama", "step-1500", PREVIOUS).table


def test_evaluated_again_the_newest_counts(history: History, tmp_path: Path) -> None:
    evaluated(history, tmp_path, 1500)
    again = evaluated(history, tmp_path / "again", 1500, temperature=0.7)
    assert propose(history, "llama", "step-1500", PREVIOUS).evaluations == [again]
    # A file system's clock need not tell apart what is made at once.
    toys = [tmp_path / "llama" / "step-1500" / "toy", tmp_path / "again" / "llama" / "step-1500" / "toy"]
    for toy in toys:
        os.utime(toy / SCORECARD, (1, 1))
    with open_history(f"sqlite:///{tmp_path}/another.sqlite") as another:
        _, again = (another.record(toy).id for toy in toys)
        assert propose(another, "llama", "step-1500", PREVIOUS).evaluations == [again]


def test_what_cannot_be_promoted_says_why(history: History, tmp_path: Path) -> None:
    evaluated(history, tmp_path, 1500)
    with pytest.raises(
        ConfigError, match="llama is compared with the same step of other: nothing of its own"
    ):
        propose(history, "llama", "step-1500", Baseline(kind="run", name="other"))
    evaluated(history, tmp_path, 1500, name="aime24")
    with pytest.raises(ResultsError, match=r"no complete evaluation of 'step-9'; it has step-1500$"):
        propose(history, "llama", "step-9", PREVIOUS)
    with pytest.raises(ResultsError, match="no whole evaluation of it"):
        propose(history, "lama", "step-1500", PREVIOUS)
    with pytest.raises(ResultsError, match="llama/step-1500 was not evaluated on 'gsm8k'; on aime24, toy"):
        propose(history, "llama", "step-1500", PREVIOUS, ["toy", "gsm8k"])


def test_without_a_step_only_a_pinned_one_can_be_replaced(history: History, tmp_path: Path) -> None:
    id_ = evaluated(history, tmp_path, None, name="toy")
    with pytest.raises(ResultsError, match="llama/final has no step, by which best would find it"):
        propose(history, "llama", "final", Baseline(kind="best"))
    assert propose(history, "llama", "final", Baseline(kind="pinned", name="step-1")).evaluations == [id_]


def test_what_is_not_complete_is_no_baseline(history: History, tmp_path: Path) -> None:
    checkpoint = CHECKPOINT.model_copy(update={"run": "llama"})
    place = write(tmp_path / "toy", manifest(2, 1, checkpoint=checkpoint), [Sample("a", 0, "1", True)])
    summarize(place)
    history.record(place)
    with pytest.raises(ResultsError, match="no complete evaluation of 'step-1500'; the history has no whole"):
        propose(history, "llama", "step-1500", PREVIOUS)
