"""The counts of each problem that ``summarize`` writes beside the scorecard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalcore.counts import ProblemCounts
from evalcore.errors import ResultsError
from evalcore.manifest import COUNTS, SCORECARD
from evalcore.summarize import summarize
from synthetic_results import Sample, manifest, write

COLUMNS = ["symbolic_correct", "answered", "truncated", "repeated", "failed", "tokens"]
ROWS = [
    Sample("b", 0, "1", True, False, fields={"cluster": "s", "finish_reason": "length"}, repeats=True),
    Sample("b", 1, None, None, None, tokens=7, fields={"cluster": "s"}, repeats=None),
    Sample("b", 2, "1", True, True, fields={"cluster": "s"}),  # more than the manifest asks for
    Sample("a", 0, "2", False, True, fields={"subset_for_metrics": "x"}),
    Sample("a", 1, "2", "absent", fields={"subset_for_metrics": "x"}),
    Sample("a", -1, "2", True, True, fields={"subset_for_metrics": "x"}),
]


def test_they_are_of_each_problem_in_the_order_of_the_ids(tmp_path: Path) -> None:
    summarize(write(tmp_path, manifest(2, 2, greedy=True, judged=True), ROWS))
    counts = ProblemCounts.load(tmp_path)
    assert (counts.problems, counts.clusters, counts.subsets) == (("a", "b"), (None, "s"), ("x", None))
    sampled = {column: (verdicts.n, verdicts.c) for column, verdicts in counts.sampled.items()}
    assert sampled == {
        "symbolic_correct": ((1, 1), (0, 1)),
        "judge_correct": ((1, 1), (1, 0)),
        "both_correct": ((1, 1), (0, 0)),
        "any_correct": ((1, 1), (1, 1)),
        "answered": ((1, 2), (1, 1)),
        "truncated": ((2, 2), (0, 1)),
        "repeated": ((1, 1), (0, 1)),
        "unparsable": ((1, 2), (0, 1)),
        "failed": ((2, 2), (0, 0)),
        "tokens": ((2, 2), (20, 17)),
    }
    greedy = {column: (verdicts.n, verdicts.c) for column, verdicts in counts.greedy.items()}
    assert greedy["symbolic_correct"] == greedy["judge_correct"] == ((1, 0), (1, 0))
    assert (greedy["tokens"], greedy["failed"]) == (((1, 0), (10, 0)), ((1, 0), (0, 0)))


def test_what_is_not_known_of_a_sample_is_in_no_n(tmp_path: Path) -> None:
    failed = {"error": "400 context overflow", "finish_reason": None}
    rows = [
        Sample("a", -1, None, False, tokens=0, fields=failed, repeats=None),
        Sample("a", 0, None, False, tokens=0, fields=failed, repeats=None),
        Sample("a", 1, "1", True, tokens=None, fields={"finish_reason": None}),
        Sample("a", 2, "1", "absent", repeats=True, fields={"finish_reason": "length"}),
        Sample("a", 3, "1", True, repeats=True, fields={"finish_reason": "eos"}),
    ]
    summarize(write(tmp_path, manifest(1, 5, greedy=True), rows))
    counts = ProblemCounts.load(tmp_path)
    assert (counts.greedy["failed"].n, counts.greedy["failed"].c, counts.greedy["tokens"].n) == (
        (1,),
        (1,),
        (0,),
    )
    assert {column: (it.n[0], it.c[0]) for column, it in counts.sampled.items()} == {
        "symbolic_correct": (3, 2),
        "answered": (3, 2),
        "truncated": (2, 1),
        "repeated": (2, 1),
        "failed": (4, 1),
        "tokens": (2, 20),
    }


def test_nothing_is_there_of_what_was_not_asked(tmp_path: Path) -> None:
    summarize(write(tmp_path / "samples", manifest(2, 2), ROWS))
    counts = ProblemCounts.load(tmp_path / "samples")
    assert (list(counts.sampled), counts.greedy) == (COLUMNS, {})
    summarize(write(tmp_path / "greedy", manifest(2, 0, greedy=True), ROWS))
    counts = ProblemCounts.load(tmp_path / "greedy")
    assert (counts.sampled, list(counts.greedy)) == ({}, COLUMNS)


def test_those_of_an_earlier_version_can_be_read(tmp_path: Path) -> None:
    summarize(write(tmp_path, manifest(2, 2), ROWS))
    content = json.loads((tmp_path / COUNTS).read_text())
    content["sampled"] = {name: content["sampled"][name] for name in COLUMNS[:2]}
    (tmp_path / COUNTS).write_text(json.dumps(content))
    assert list(ProblemCounts.load(tmp_path).sampled) == ["symbolic_correct", "answered"]


def test_those_of_another_summary_are_refused(tmp_path: Path) -> None:
    summarize(write(tmp_path, manifest(2, 2), ROWS))
    card = (tmp_path / SCORECARD).read_bytes()
    summarize(write(tmp_path, manifest(2, 1), ROWS))
    (tmp_path / SCORECARD).write_bytes(card)
    with pytest.raises(
        ResultsError, match=r"counts.json and scorecard.json are of two summaries; run `evalcore"
    ):
        ProblemCounts.load(tmp_path)


def test_damaged_ones_are_refused(tmp_path: Path) -> None:
    summarize(write(tmp_path, manifest(2, 2), ROWS))
    content = json.loads((tmp_path / COUNTS).read_text())
    content["sampled"]["answered"]["n"].pop()
    (tmp_path / COUNTS).write_text(json.dumps(content))
    with pytest.raises(ResultsError, match=r"counts.json: unreadable .*; run `evalcore summarize"):
        ProblemCounts.load(tmp_path)
    (tmp_path / COUNTS).write_text("{")
    with pytest.raises(ResultsError, match=r"counts.json: unreadable"):
        ProblemCounts.load(tmp_path)
