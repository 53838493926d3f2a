"""A file of pairs comes back with verdicts, in its order, whatever is in it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from evalcore.equal import Counts, equal
from evalcore.errors import BenchmarkError, ConfigError, ResultsError
from evalcore.grading.pool import Pair, Pool, Timed


def written(folder: Path, *rows: object) -> Path:
    file = folder / "pairs.jsonl"
    file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return file


def test_each_pair_gets_its_verdict_and_stage(tmp_path: Path) -> None:
    pairs = [("7", "7"), ("1/2", "0.5"), ("(1,2)", "(1, 3)"), ("x+1", "1+x"), ("5", "10^{10^{10}}+x")]
    file = written(tmp_path, *({"gold": gold, "pred": pred, "id": i} for i, (gold, pred) in enumerate(pairs)))
    rows = list(equal(file, workers=1))
    assert [row["id"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["equal"] for row in rows] == [True, True, False, True, None]
    assert [row["stage"] for row in rows[:4]] == ["text", "number", "structure", "points"]
    assert "too many digits" in rows[4]["stage"]
    assert all(row["ms"] > 0 for row in rows)


def test_of_a_text_the_answer_is_looked_for(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        {"gold": "42", "pred": "So it is \\boxed{42}.", "kind": "text"},
        {"gold": "42", "pred": "After some thought, the answer is 42.", "kind": "text"},
        {"gold": "42", "pred": "<think>42", "kind": "text"},
    )
    rows = list(equal(file, workers=1))
    assert [row["equal"] for row in rows] == [True, True, False]
    assert rows[2]["stage"] == "no answer: reasoning not finished"


def test_a_null_is_no_answer(tmp_path: Path) -> None:
    rows = list(equal(written(tmp_path, {"gold": "1", "pred": None}, {"gold": "1", "pred": "1"}), workers=1))
    assert [(row["equal"], row["stage"]) for row in rows] == [(False, "no answer: null"), (True, "text")]


def test_the_same_pair_is_compared_each_time(tmp_path: Path) -> None:
    pair = {"gold": "\\sqrt{8}", "pred": "2\\sqrt{2}"}
    rows = list(equal(written(tmp_path, pair, pair), workers=1))
    assert [(row["equal"], row["stage"]) for row in rows] == [(True, "points")] * 2
    assert all(row["ms"] > 0.01 for row in rows)


def test_the_time_of_both_stages_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count(0.0, 0.25)
    monkeypatch.setattr("evalcore.equal.time", SimpleNamespace(perf_counter=lambda: next(ticks)))

    def compare_ahead(
        pool: Pool, parts: Iterator[tuple[Any, list[Pair]]]
    ) -> Iterator[tuple[Any, list[Timed]]]:
        return ((part, [Timed(True, "points", 1000.0) for _ in pairs]) for part, pairs in parts)

    monkeypatch.setattr(Pool, "compare_ahead", compare_ahead)
    file = written(tmp_path, {"gold": "7", "pred": "7"}, {"gold": "2x", "pred": "x+x"})
    assert [row["ms"] for row in equal(file, workers=1)] == [250.0, 1250.0]


def test_options_reach_quick_and_thorough(tmp_path: Path) -> None:
    file = written(tmp_path, {"gold": "10", "pred": "10\\%"}, {"gold": "0.1", "pred": "10\\%"})
    assert [row["equal"] for row in equal(file, workers=1)] == [True, True]
    assert [row["equal"] for row in equal(file, options={"percent": "value"}, workers=1)] == [False, True]


def test_letters_are_compared_by_their_own_grader(tmp_path: Path) -> None:
    file = written(tmp_path, {"gold": "C", "pred": "x = \\boxed{3}. Answer: C", "kind": "text"})
    assert [row["equal"] for row in equal(file, grader="multiple_choice", workers=1)] == [True]


def test_counts_compare_with_what_was_expected(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        {"gold": "1", "pred": "1", "expected": True},
        {"gold": "1", "pred": "2", "expected": True},
        {"gold": "1", "pred": "2"},
    )
    counts = Counts()
    for row in equal(file, workers=1):
        counts = counts.plus(row)
    assert counts == Counts(pairs=3, equal=1, different=2, undecided=0, labelled=2, right=1)
    assert str(counts) == "3 pairs: 1 equal, 2 not, 0 undecided; 1 of 2 as expected (50.00%)"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"gold": "1"}, r"pairs\.jsonl:1: no pred"),
        ({"pred": "1"}, r"pairs\.jsonl:1: no gold"),
        ({"gold": "1", "pred": ["1"]}, r"pairs\.jsonl:1: no pred"),
        ({"gold": "1", "pred": "1", "kind": "guess"}, r"kind is 'guess'; valid: answer, text"),
    ],
)
def test_a_row_that_is_no_pair(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(ResultsError, match=message):
        list(equal(written(tmp_path, row), workers=1))


def test_a_line_that_is_no_row(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"pairs\.jsonl:1: not a JSON object"):
        list(equal(written(tmp_path, [1]), workers=1))


def test_an_unknown_option_lists_the_valid_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown option 'percents'; valid: extract, percent, rounding"):
        list(equal(written(tmp_path), options={"percents": "value"}))


def test_the_users_option_goes_before_relaxed_extraction(tmp_path: Path) -> None:
    file = written(tmp_path, {"gold": "42", "pred": "The answer is 42.", "kind": "text"})
    [row] = equal(file, options={"extract": "boxed"}, workers=1)
    assert (row["equal"], row["stage"]) == (False, "no answer: no box")
