"""summarize on folders of a few rows whose numbers can be worked out by hand."""

from __future__ import annotations

import itertools
import random
import statistics
from pathlib import Path

import pytest

from evalcore.errors import ResultsError
from evalcore.manifest import GRADES, SCORECARD
from evalcore.metrics import Estimate
from evalcore.records import GREEDY
from evalcore.summarize import Mode, Scorecard, summarize
from evalcore.tally import Tally, sample_spread
from synthetic_results import Sample, manifest, write

T, F = True, False


def modes(card: Scorecard, subset: int = 0) -> dict[str, Mode]:
    return {mode.evaluation_mode: mode for mode in card.subsets[subset].modes}


def test_the_numbers_of_a_small_benchmark(tmp_path: Path) -> None:
    rows = [
        Sample("a", GREEDY, "1", T, tokens=5),
        Sample("b", GREEDY, None, F, tokens=15),
        *(Sample("a", i, answer, answer == "1") for i, answer in enumerate(["1", "1", "2", None])),
        *(Sample("b", i, answer, answer == "9") for i, answer in enumerate(["3", "3.0", "9", "9"])),
    ]
    card = summarize(write(tmp_path, manifest(2, 4, greedy=True), rows))
    found = modes(card)
    assert list(found) == ["greedy", "majority@4", "pass@4", "pass@1[4]", "pass@2", "majority@2"]
    assert found["greedy"].symbolic_correct == Estimate(0.5, 0.5, 2)
    assert found["greedy"].no_answer == Estimate(0.5, 0.5, 2)
    assert found["greedy"].avg_tokens == Estimate(10, 5, 2)
    assert found["pass@1[4]"].symbolic_correct == Estimate(0.5, 0.0, 2)
    assert found["pass@4"].symbolic_correct == Estimate(1.0, 0.0, 2)
    # Both problems: 1 - C(2,2)/C(4,2).
    assert found["pass@2"].symbolic_correct == Estimate(pytest.approx(5 / 6), pytest.approx(0, abs=1e-9), 2)
    # a: 1 wins 2 to 1. b: 3 and 3.0 are one answer and tie with 9.
    assert found["majority@4"].symbolic_correct == Estimate(0.75, pytest.approx(0.25), 2)
    assert found["majority@4"].no_answer == Estimate(0.0, 0.0, 2)
    assert found["pass@1[4]"].no_answer == Estimate(0.125, 0.125, 2)
    assert found["pass@4"].judge_correct is None
    assert card.complete
    assert Scorecard.load(tmp_path) == card


@pytest.mark.parametrize(
    ("answers", "majority"),
    [
        (["1/2", "0.5", r"\frac{1}{2}", "7", "7"], 0.0),  # three ways of writing one wrong answer outvote 7
        (["0", "0.0", "-0", "7", "7"], 0.0),
        ([r"\frac{-1}{2}", "-1/2", "-0.5", "7", "7"], 0.0),
        (["1/0", "2/0", "3/0", "7", "7"], 1.0),
        (["$5$", "5", "7", "7", "7"], 1.0),
        ([None, None, None, None, "7"], 1.0),
    ],
)
def test_equal_answers_vote_together(tmp_path: Path, answers: list[str | None], majority: float) -> None:
    rows = [Sample("a", i, answer, answer == "7") for i, answer in enumerate(answers)]
    card = summarize(write(tmp_path, manifest(1, 5), rows))
    assert modes(card)["majority@5"].symbolic_correct == Estimate(majority, None, 1)


def test_the_metrics_of_a_benchmark_are_the_modes_of_its_table(tmp_path: Path) -> None:
    rows = [Sample("a", i, "7", True) for i in range(4)]
    settings = manifest(1, 4)
    only_pass = settings.benchmark.model_copy(update={"metrics": ("pass",)})
    card = summarize(write(tmp_path, settings.model_copy(update={"benchmark": only_pass}), rows))
    assert list(modes(card)) == ["pass@4", "pass@1[4]", "pass@2"]


def test_a_length_the_server_did_not_tell_is_unknown_and_not_zero(tmp_path: Path) -> None:
    rows = [Sample("a", 0, "7", True, tokens=None), Sample("a", 1, "7", True, tokens=100)]
    tokens = modes(summarize(write(tmp_path, manifest(1, 2), rows)))["pass@1[2]"].avg_tokens
    assert tokens == Estimate(100, None, 1)


def test_answers_that_the_grader_found_correct_are_one_answer(tmp_path: Path) -> None:
    rows = [Sample("a", i, answer, i < 3) for i, answer in enumerate([r"\sqrt{4}", "2", "4^{1/2}", "5", "5"])]
    card = summarize(write(tmp_path, manifest(1, 5), rows))
    assert modes(card)["majority@5"].symbolic_correct == Estimate(1.0, None, 1)


def test_missing_grades_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [
        Sample("a", 0, "1", T),
        Sample("a", 1, "2", None),  # undecided
        Sample("b", 0, "1", F),
        Sample("b", 1, "1", "absent"),  # not graded yet
        Sample("c", 0, None, F, fields={"error": "context overflow", "finish_reason": None}),
        Sample("c", 1, "3", T, fields={"finish_reason": "length"}),
        Sample("d", 0, "1", None),
        Sample("d", 1, "1", None),
    ]
    card = summarize(write(tmp_path, manifest(5, 2), rows))
    counts = card.subsets[0].counts
    assert (counts.expected, counts.generated, counts.failed, counts.truncated) == (10, 8, 1, 1)
    assert (counts.ungraded, counts.undecided, counts.unjudged, counts.unparsable) == (1, 3, 0, 0)
    assert not card.complete
    found = modes(card)
    assert found["pass@1[2]"].num_entries == 4
    assert found["pass@1[2]"].symbolic_correct == Estimate(0.5, pytest.approx(0.5 / 3**0.5), 3)
    # Of what was graded: half of c, nothing of the others.
    assert found["pass@1[2]"].no_answer == Estimate(0.125, pytest.approx(0.125), 4)
    # Only c has two known grades.
    assert found["pass@2"].symbolic_correct == Estimate(1.0, None, 1)


def test_an_unknown_grade_does_not_hide_a_vote_it_cannot_change(tmp_path: Path) -> None:
    rows = [Sample("a", i, answer, T if answer == "1" else None) for i, answer in enumerate(["1", "1", "2"])]
    rows += [Sample("b", i, answer, T if answer == "1" else None) for i, answer in enumerate(["1", "2", "2"])]
    card = summarize(write(tmp_path, manifest(2, 3), rows))
    assert modes(card)["majority@3"].symbolic_correct == Estimate(1.0, None, 1)


def test_judge_columns_and_their_order_of_size(tmp_path: Path) -> None:
    chance = random.Random(7)
    rows = []
    for p in range(12):
        liked = {answer for answer in ("1", "2", "x") if chance.random() < 0.5}
        for s in range(GREEDY, 8):
            answer = chance.choice(["1", "2", "x", None])
            rows.append(Sample(f"p{p}", s, answer, answer == "1", answer in liked))
    card = summarize(write(tmp_path, manifest(12, 8, greedy=True, judged=True), rows))
    assert card.judged
    assert card.complete
    found = modes(card)
    assert set(found) >= {"greedy", "majority@8", "pass@8", "pass@1[8]"}
    for mode in found.values():
        columns = (mode.symbolic_correct, mode.judge_correct, mode.both_correct, mode.any_correct)
        symbolic, judge, both, either = (column.value for column in columns if column)
        assert both <= min(symbolic, judge) + 1e-12
        assert either >= max(symbolic, judge) - 1e-12
    # Nor are they all the same.
    values = found["pass@1[8]"]
    assert values.both_correct != values.symbolic_correct != values.any_correct != values.judge_correct


def test_a_judgement_without_a_verdict_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = [Sample("a", 0, "1", T, T), Sample("a", 1, "2", F, None), Sample("b", 0, "3", F, None)]
    card = summarize(write(tmp_path, manifest(2, 2, judged=True), rows))
    assert card.subsets[0].counts.unparsable == 2
    assert modes(card)["pass@1[2]"].judge_correct == Estimate(1.0, None, 1)


def test_judge_numbers(tmp_path: Path) -> None:
    grades = [(T, T), (T, F), (F, T), (F, F)]
    rows = [Sample("a", i, str(i), s, j) for i, (s, j) in enumerate(grades)]
    found = modes(summarize(write(tmp_path, manifest(1, 4, judged=True), rows)))["pass@1[4]"]
    columns = (found.symbolic_correct, found.judge_correct, found.both_correct, found.any_correct)
    assert [column and column.value for column in columns] == [0.5, 0.5, 0.25, 0.75]


def test_subsets_have_their_own_tables(tmp_path: Path) -> None:
    rows = [
        Sample("a", 0, "1", T, fields={"subset_for_metrics": "aime24"}),
        Sample("b", 0, "1", F, fields={"subset_for_metrics": "aime25"}),
        Sample("c", 0, "1", F, fields={"subset_for_metrics": "../e\nvil/\x1b[2J"}),
    ]
    card = summarize(write(tmp_path, manifest(3, 1, name="comp-math"), rows))
    names = [subset.name for subset in card.subsets]
    assert names == ["comp-math-all", "comp-math-aime24", "comp-math-aime25", "comp-math-..-e-vil---2J"]
    assert [modes(card, i)["pass@1[1]"].num_entries for i in range(4)] == [3, 1, 1, 1]


def test_problems_of_one_cluster_are_not_independent(tmp_path: Path) -> None:
    rows = [
        Sample(f"{name}{copy}", 0, "1", name in "ab", fields={"cluster": name})
        for name, copy in itertools.product("abcd", range(4))
    ]
    clustered = modes(summarize(write(tmp_path / "clustered", manifest(16, 1), rows)))["pass@1"]
    alone = [row._replace(fields={}) for row in rows]
    independent = modes(summarize(write(tmp_path / "alone", manifest(16, 1), alone)))["pass@1"]
    expected = statistics.stdev([1, 1, 0, 0]) / 2
    assert clustered.symbolic_correct == Estimate(0.5, pytest.approx(expected), 16)
    assert independent.symbolic_correct == Estimate(0.5, pytest.approx(expected / 2, rel=0.2), 16)


def test_samples_beyond_those_asked_for_are_ignored(tmp_path: Path) -> None:
    rows = [Sample("a", s, "1", s < 2) for s in range(GREEDY, 8)]
    card = summarize(write(tmp_path, manifest(1, 2), rows))
    assert [mode.evaluation_mode for mode in card.subsets[0].modes] == ["majority@2", "pass@2", "pass@1[2]"]
    assert modes(card)["pass@1[2]"].symbolic_correct == Estimate(1.0, None, 1)
    assert card.complete


def test_greedy_alone(tmp_path: Path) -> None:
    card = summarize(write(tmp_path, manifest(1, 0, greedy=True), [Sample("a", GREEDY, "1", T)]))
    assert list(modes(card)) == ["greedy"]


def test_a_row_of_other_settings_is_not_mixed_in(tmp_path: Path) -> None:
    ours = manifest(1, 1)
    other = ours.model_copy(update={"grading": ours.grading.model_copy(update={"version": "0"})})
    write(tmp_path, other, [Sample("a", 0, "1", F)])
    write(tmp_path, ours, [Sample("a", 0, "1", T)])
    assert modes(summarize(tmp_path))["pass@1"].symbolic_correct == Estimate(1.0, None, 1)


def test_a_torn_line_is_missing(tmp_path: Path) -> None:
    made_by = manifest(1, 2)
    write(tmp_path, made_by, [Sample("a", 0, "1", T), Sample("a", 1, "1", T)])
    part = tmp_path / GRADES / f"{made_by.grading_id}-0.jsonl"
    part.write_bytes(part.read_bytes()[:-5])
    card = summarize(tmp_path)
    assert card.subsets[0].counts.ungraded == 1
    assert not card.complete


def test_nothing_to_summarize_names_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="evalcore generate"):
        summarize(tmp_path)
    write(tmp_path, manifest(1, 1), [])
    with pytest.raises(ResultsError, match="evalcore generate"):
        summarize(tmp_path)
    write(tmp_path, manifest(1, 1), [Sample("a", 0, "1", "absent")])
    with pytest.raises(ResultsError, match="evalcore grade"):
        summarize(tmp_path)
    assert not (tmp_path / SCORECARD).exists()


def test_loading_a_scorecard_that_is_not_there_or_broken(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="evalcore summarize"):
        Scorecard.load(tmp_path)
    (tmp_path / SCORECARD).write_text('{"benchmark": 1')
    with pytest.raises(ResultsError, match="unreadable"):
        Scorecard.load(tmp_path)


def test_a_scorecard_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    folder = write(tmp_path / "toy", manifest(1, 1), [Sample("a", 0, "1", T)])
    before = summarize(folder)
    (folder / SCORECARD).rename(folder / "kept")
    (folder / SCORECARD).mkdir()
    with pytest.raises(ResultsError, match=r"cannot write .*scorecard\.json"):
        summarize(folder)
    assert Scorecard.model_validate_json((folder / "kept").read_bytes()) == before
    assert not list(folder.glob(".*.tmp"))


def test_only_mathematics_is_grouped_by_value(tmp_path: Path) -> None:
    rows = [
        Sample("a", i, answer, answer == "7") for i, answer in enumerate(["1/2", "0.5", "0.50", "7", "7"])
    ]
    settings = manifest(1, 5)
    exact = settings.grading.model_copy(update={"grader": "exact"})
    card = summarize(write(tmp_path, settings.model_copy(update={"grading": exact}), rows))
    assert modes(card)["majority@5"].symbolic_correct == Estimate(1.0, None, 1)


def test_a_scorecard_of_other_weights_is_not_taken_for_these(tmp_path: Path) -> None:
    settings = manifest(1, 1)
    summarize(write(tmp_path, settings, [Sample("a", 0, "7", True)]))
    other = settings.checkpoint.model_copy(update={"digest": "other"})
    settings.model_copy(update={"checkpoint": other}).save(tmp_path)
    with pytest.raises(ResultsError, match="other settings"):
        Scorecard.load(tmp_path)


@pytest.mark.parametrize("long", ["123" + ",123" * 2000, r"a\\" + " " * 60_000 + "x"])
def test_answers_of_any_length_vote_by_their_digest(tmp_path: Path, long: str) -> None:
    answers = [long, long, "7"]
    folder = write(tmp_path, manifest(1, 3), [Sample("a", i, a, False) for i, a in enumerate(answers)])
    card = summarize(folder)
    assert card.subsets[0].modes[0].evaluation_mode == "majority@3"


def test_the_spread_is_between_samples_and_leaves_the_greedy_answer_out() -> None:
    tallies = []
    for problem, (greedy, *samples) in {"a": (1, 1, 0, 1), "b": (1, 1, 0, 0)}.items():
        tally = Tally(3, {"problem_id": problem})
        for sample, correct in enumerate([greedy, *samples], GREEDY):
            tally.add_grade(sample, "1", bool(correct))
        tallies.append(tally)
    assert sample_spread(tallies) == pytest.approx(0.5)  # of 1, 0 and 1/2


def test_an_unread_greedy_answer_hides_no_majority() -> None:
    tally = Tally(1, {"problem_id": "a"})
    tally.add_grade(GREEDY, None, True, is_read=False)
    tally.add_grade(0, "1", True)
    assert tally.majority("symbolic_correct", slice(1, None), 1) == 1
