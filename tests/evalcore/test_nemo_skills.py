"""NeMo-Skills' result folders: the same rows give the same numbers as ours, whatever their age."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from evalcore import nemo_skills
from evalcore.errors import ConfigError, ResultsError
from evalcore.metrics import Estimate
from evalcore.records import GREEDY
from evalcore.summarize import Mode, Scorecard, summarize
from synthetic_results import Sample, manifest, write


def write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def line(problem: str, answer: str | None, correct: bool, **more: Any) -> dict[str, Any]:
    row = {"problem": problem, "expected_answer": "1", "generation": "…", "num_generated_tokens": 10}
    return {**row, "predicted_answer": answer, "symbolic_correct": correct, **more}


def modes(card: Scorecard) -> dict[str, Mode]:
    return {mode.evaluation_mode: mode for mode in card.subsets[0].modes}


def summarized(folder: Path) -> list[Scorecard]:
    return [nemo_skills.summarize(found) for found in nemo_skills.benchmark_folders(folder)]


ANSWERS = {
    "a": ["1", "1", "2", None, "1", "3", "3", "1", "1", "2", "1"],
    "b": ["4", "4.0", "8/2", "1", "1", None, None, "5", "1", "7", "6"],
    "c": [None] * 11,
}


def test_the_same_rows_give_the_same_numbers_as_a_folder_of_ours(tmp_path: Path) -> None:
    # rs2 sorts before rs10, and seeds need not start at 0.
    theirs = tmp_path / "eval-results" / "toy"
    for index, seed in enumerate([2, 3, 4, 5, 6, 7, 8, 9, 10, 11]):
        rows = [line(p, answers[index], answers[index] == "1") for p, answers in ANSWERS.items()]
        write_lines(theirs / f"output-rs{seed}.jsonl", rows)
    write_lines(theirs / "output-greedy.jsonl", [line(p, x[-1], x[-1] == "1") for p, x in ANSWERS.items()])
    ours = [
        Sample(problem, GREEDY if i == 10 else i, answer, answer == "1")
        for problem, answers in ANSWERS.items()
        for i, answer in enumerate(answers)
    ]
    expected = summarize(write(tmp_path / "ours", manifest(3, 10, greedy=True), ours))
    [card] = summarized(tmp_path)
    assert card.subsets == expected.subsets
    assert card.complete
    assert (card.benchmark, card.samples, card.greedy, card.checkpoint) == ("toy", 10, True, None)


@pytest.mark.parametrize("name", ["output-greedy.jsonl", "output.jsonl"])
def test_greedy_files_of_both_names_and_the_old_field(tmp_path: Path, name: str) -> None:
    old = [{"problem": "a", "predicted_answer": "1", "is_correct": True}]
    write_lines(
        tmp_path / "gsm8k" / name, [*old, {"problem": "b", "predicted_answer": "2", "is_correct": False}]
    )
    [card] = summarized(tmp_path / "gsm8k")
    assert modes(card)["greedy"].symbolic_correct == Estimate(0.5, 0.5, 2)


@pytest.mark.parametrize(
    ("judgement", "correct"),
    [
        ("Reasoning: same.\nJudgement: Yes", 1.0),
        ("Judgement: No", 0.0),
        ("**Judgement**: yes.", 1.0),
        ("Judgement: No … wait.\nJudgement: Yes", 1.0),
        ("Judgement: Nothing to say", None),
        ("I cannot tell", None),
        ("", None),
        (None, None),
    ],
)
def test_judgements_are_read_from_the_text(
    tmp_path: Path, judgement: str | None, correct: float | None
) -> None:
    write_lines(tmp_path / "hle" / "output-rs0.jsonl", [line("a", "x", False, judgement=judgement)])
    [card] = summarized(tmp_path)
    found = modes(card)["pass@1[1]"].judge_correct
    assert card.judged
    assert (found and found.value) == correct
    assert card.subsets[0].counts.unparsable == (correct is None)


def test_a_judge_verdict_is_taken_before_its_text(tmp_path: Path) -> None:
    row = line("a", "x", False, judgement="Judgement: Yes", judge_correct=False)
    write_lines(tmp_path / "output-rs0.jsonl", [row])
    found = modes(summarized(tmp_path)[0])["pass@1[1]"].judge_correct
    assert found == Estimate(0.0, None, 1)


def test_subsets_and_several_benchmarks(tmp_path: Path) -> None:
    rows = [line(f"{i}", "1", True, subset_for_metrics=f"aime{24 + i % 2}") for i in range(4)]
    write_lines(tmp_path / "comp-math-24-25" / "output-rs0.jsonl", rows)
    write_lines(tmp_path / "amc23" / "output.jsonl", rows[:1])
    (tmp_path / "logs").mkdir()
    cards = summarized(tmp_path)
    assert [card.benchmark for card in cards] == ["amc23", "comp-math-24-25"]
    names = [subset.name for subset in cards[1].subsets]
    assert names == ["comp-math-24-25-all", "comp-math-24-25-aime24", "comp-math-24-25-aime25"]


def test_a_folders_name_cannot_break_a_table(tmp_path: Path) -> None:
    write_lines(tmp_path / "a|b\n\x1b[2J# c" / "output.jsonl", [line("a", "1", True)])
    assert [card.benchmark for card in summarized(tmp_path)] == ["a-b---2J- c"]


def test_a_file_that_is_still_being_written_makes_the_card_incomplete(tmp_path: Path) -> None:
    write_lines(tmp_path / "output-rs0.jsonl", [line("a", "1", True), line("b", "1", True)])
    write_lines(tmp_path / "output-rs1.jsonl", [line("a", "1", True)])
    [card] = summarized(tmp_path)
    assert not card.complete
    assert card.subsets[0].counts.expected == 4
    assert modes(card)["pass@2"].symbolic_correct == Estimate(1.0, None, 1)


def test_generations_without_grades_are_ungraded_not_wrong(tmp_path: Path) -> None:
    write_lines(tmp_path / "output-rs0.jsonl", [{"problem": "a", "generation": "…"}])
    [card] = summarized(tmp_path)
    assert card.subsets[0].counts.ungraded == 1
    assert modes(card)["pass@1[1]"].symbolic_correct is None


def test_a_last_line_that_is_torn_is_not_there_yet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [line("a", "1", True), line("b", "1", True)]
    write_lines(tmp_path / "output-rs0.jsonl", rows)
    (tmp_path / "output-rs1.jsonl").write_text(json.dumps(rows[0]) + '\n{"problem": "b"')
    [card] = summarized(tmp_path)
    assert not card.complete
    assert card.subsets[0].counts.generated == 3
    assert "output-rs1.jsonl:2: the last line is torn" in caplog.text


@pytest.mark.parametrize("text", ['{"problem": "a"\n', "7\n", '{"problem": "b"}\n'])
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    write_lines(tmp_path / "output-rs0.jsonl", [line("a", "1", True)])
    (tmp_path / "output-rs1.jsonl").write_text(text)
    with pytest.raises(ResultsError, match=r"output-rs1\.jsonl:1: "):
        summarized(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_generated_tokens", "12", "num_generated_tokens is str, expected int or float"),
        ("num_generated_tokens", [3, 4], "num_generated_tokens is list, expected int or float"),
        ("num_generated_tokens", True, "num_generated_tokens is bool, expected int or float"),
        ("cluster", ["a"], "cluster is list, expected str or int"),
        ("cluster", {"a": 1}, "cluster is dict, expected str or int"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(tmp_path: Path, field: str, value: Any, message: str) -> None:
    rows = [line("a", "1", True), line("b", "1", True, **{field: value})]
    write_lines(tmp_path / "output-rs0.jsonl", rows)
    with pytest.raises(ResultsError) as error:
        summarized(tmp_path)
    assert str(error.value) == f"{tmp_path}/output-rs0.jsonl:2: {message}"


@pytest.mark.parametrize("line_", ["null", "[1]", '"x"', "", "\udcff"])
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line_: str) -> None:
    (tmp_path / "output.jsonl").write_bytes(f"{line_}\n".encode(errors="surrogateescape"))
    with pytest.raises(ResultsError, match=r"output\.jsonl:1: not (a row|JSON)"):
        summarized(tmp_path)


def test_tokens_may_be_unknown_or_a_float(tmp_path: Path) -> None:
    tokens = [12.0, None, 6]
    write_lines(tmp_path / "output.jsonl", [line(str(n), "1", True, num_generated_tokens=n) for n in tokens])
    found = modes(summarized(tmp_path)[0])["greedy"].avg_tokens
    assert found == Estimate(9.0, pytest.approx(3.0), 2)


def test_clusters_are_told_apart_by_number_too(tmp_path: Path) -> None:
    rows = [line(f"{i}", "1", i < 2, cluster=i // 2) for i in range(4)]
    write_lines(tmp_path / "numbers" / "output.jsonl", rows)
    write_lines(
        tmp_path / "texts" / "output.jsonl", [{**row, "cluster": f"c{row['cluster']}"} for row in rows]
    )
    write_lines(tmp_path / "without" / "output.jsonl", [{**row, "cluster": None} for row in rows])
    errors = [modes(card)["greedy"].symbolic_correct.std_err for card in summarized(tmp_path)]  # type: ignore[union-attr]
    assert errors[0] == errors[1] != errors[2]


def test_is_results(tmp_path: Path) -> None:
    assert not nemo_skills.is_results(tmp_path)
    with pytest.raises(ResultsError, match="no output-greedy"):
        nemo_skills.summarize(tmp_path)
    write_lines(tmp_path / "eval-results" / "gsm8k" / "output.jsonl", [line("a", "1", True)])
    for folder in (tmp_path, tmp_path / "eval-results", tmp_path / "eval-results" / "gsm8k"):
        assert nemo_skills.is_results(folder)


def test_chunks_are_read_in_their_order_until_the_whole_file_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    rows = [line(f"p{i}", "1", i % 2 == 0) for i in range(12)]
    for chunk in range(11):
        write_lines(folder / f"output-rs0_chunk_{chunk}.jsonl", rows[chunk : chunk + 1])
    write_lines(folder / "output-rs1.jsonl", rows[:11])  # the same problems in the same order
    [card] = summarized(folder)
    assert (card.samples, modes(card)["pass@1[2]"].num_entries) == (2, 11)
    write_lines(folder / "output-rs0.jsonl", rows)
    write_lines(folder / "output-rs1.jsonl", rows)
    [card] = summarized(folder)
    assert modes(card)["pass@1[2]"].num_entries == 12


def test_our_grades_take_the_place_of_theirs_and_nothing_of_theirs_changes(tmp_path: Path) -> None:
    folder = tmp_path / "eval-results" / "toy"
    rows = [
        line("p0", "1", False, generation="It is $\\boxed{2/2}$."),
        line("p1", "1", True, generation="no box"),
        line("p2", "1", False, generation="\\boxed{\\cos 0}", expected_answer="1"),
    ]
    write_lines(folder / "output-rs0.jsonl", rows)
    write_lines(folder / "output-greedy.jsonl", rows)
    before = {file: file.read_bytes() for file in folder.iterdir()}
    summary = nemo_skills.grade(folder, workers=1)
    assert (summary.rows, summary.new, summary.correct, summary.no_answer) == (6, 6, 4, 2)
    assert {file: file.read_bytes() for file in before} == before
    [card] = summarized(tmp_path)
    assert modes(card)["greedy"].symbolic_correct == Estimate(2 / 3, pytest.approx(1 / 3), 3)
    assert nemo_skills.grade(folder, workers=1).new == 0


def test_other_responses_are_graded_anew(tmp_path: Path) -> None:
    file = tmp_path / "toy" / "output-rs0.jsonl"
    write_lines(file, [line("p0", "1", False, generation="\\boxed{1}")])
    nemo_skills.grade(file.parent, workers=1)
    write_lines(file, [line("p0", "1", True, generation="\\boxed{2}, once more")])
    assert modes(summarized(tmp_path)[0])["pass@1[1]"].symbolic_correct == Estimate(1.0, None, 1)
    assert nemo_skills.grade(file.parent, workers=1).new == 1
    assert modes(summarized(tmp_path)[0])["pass@1[1]"].symbolic_correct == Estimate(0.0, None, 1)


def test_a_row_without_a_response_cannot_be_graded(tmp_path: Path) -> None:
    row = line("p0", "1", True)
    del row["generation"]
    write_lines(tmp_path / "toy" / "output-rs0.jsonl", [row])
    with pytest.raises(ResultsError, match=r"output-rs0\.jsonl:1: a row without generation"):
        nemo_skills.grade(tmp_path / "toy", workers=1)


def test_a_folder_is_graded_as_our_benchmark_of_its_name_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    benchmarks = tmp_path / "include" / "benchmarks"
    benchmarks.mkdir(parents=True)
    (benchmarks / "quiz.yaml").write_text(
        "name: quiz\ndescription: letters\nsource: {path: quiz.jsonl}\nprompt: tiny/arithmetic\n"
        "grader: multiple_choice\nsamples: 1\n"
    )
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path / "include"))
    rows = [line("p0", "D", False, generation="\\boxed{x = 2}\n\nAnswer: D", expected_answer="D")]
    for name in ("quiz", "unheard-of"):
        write_lines(tmp_path / name / "output-rs0.jsonl", rows)
    caplog.set_level("INFO")
    assert nemo_skills.grade(tmp_path / "quiz", workers=1).correct == 1
    assert f"{tmp_path / 'quiz'}: graded by multiple_choice" in caplog.messages
    assert nemo_skills.grade(tmp_path / "unheard-of", workers=1).correct == 0
    assert nemo_skills.grade(tmp_path / "unheard-of", grader="multiple_choice", workers=1).correct == 1
    assert modes(nemo_skills.summarize(tmp_path / "unheard-of"))["pass@1[1]"].symbolic_correct == Estimate(
        1.0, None, 1
    ), "the last grading counts"
    with pytest.raises(ConfigError, match="unknown option 'extrat'"):
        nemo_skills.grade(tmp_path / "quiz", options={"extrat": "boxed"})


def test_a_response_that_is_null_is_no_answer(tmp_path: Path) -> None:
    rows = [line("p0", "1", True, generation=None), line("p1", "1", True, generation="\\boxed{1}")]
    write_lines(tmp_path / "toy" / "output.jsonl", rows)
    summary = nemo_skills.grade(tmp_path / "toy", workers=1)
    assert (summary.correct, summary.no_answer) == (1, 1)


def test_a_folder_that_is_graded_in_part_shows_their_verdicts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    folder = tmp_path / "toy"
    rows = [line(f"p{i}", "1", True, generation="\\boxed{2}") for i in range(3)]
    write_lines(folder / "output-rs0.jsonl", rows)
    nemo_skills.grade(folder, workers=1)
    assert modes(nemo_skills.summarize(folder))["pass@1[1]"].symbolic_correct == Estimate(0.0, 0.0, 3)
    assert not caplog.messages
    [part] = (folder / "grades").glob("*.jsonl")
    part.write_bytes(b"".join(part.read_bytes().splitlines(keepends=True)[:2]))
    assert modes(nemo_skills.summarize(folder))["pass@1[1]"].symbolic_correct == Estimate(1.0, 0.0, 3)
    assert "only 2 of 3 rows are graded" in caplog.text


def test_without_predicted_answers_nothing_is_said_of_missing_ones(tmp_path: Path) -> None:
    rows = [line("p0", "1", True), line("p1", "1", False)]
    for row in rows:
        del row["predicted_answer"]
    write_lines(tmp_path / "output-rs0.jsonl", rows)
    write_lines(tmp_path / "output-rs1.jsonl", rows)
    found = modes(nemo_skills.summarize(tmp_path))
    assert found["pass@1[2]"].symbolic_correct == Estimate(0.5, 0.5, 2)
    assert found["pass@1[2]"].no_answer is None
    assert found["majority@2"].symbolic_correct is None


def test_a_file_written_anew_with_the_same_size_and_time_is_another(tmp_path: Path) -> None:
    file = tmp_path / "toy" / "output-rs0.jsonl"
    write_lines(file, [line("p0", "1", False, generation="\\boxed{1}")])
    assert nemo_skills.grade(file.parent, workers=1).correct == 1
    stat = file.stat()
    other = file.with_name("copy")
    other.write_bytes(file.read_bytes().replace(b"boxed{1}", b"boxed{2}"))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(file)
    assert nemo_skills.grade(file.parent, workers=1).correct == 0


def test_of_two_greedy_files_the_one_that_says_so_counts(tmp_path: Path) -> None:
    write_lines(tmp_path / "output.jsonl", [line("a", "1", False)])
    write_lines(tmp_path / "output-greedy.jsonl", [line("a", "1", True)])
    assert modes(nemo_skills.summarize(tmp_path))["greedy"].symbolic_correct == Estimate(1.0, None, 1)


def test_a_first_grading_that_was_stopped_is_told_with_the_command_that_finishes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "my toy"
    write_lines(folder / "output-rs0.jsonl", [line("p0", "1", True, generation="\\boxed{2}")])

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nemo_skills, "grade_rows", stopped)
    with pytest.raises(KeyboardInterrupt):
        nemo_skills.grade(folder, grader="math", options={"rounding": "3"})
    assert modes(nemo_skills.summarize(folder))["pass@1[1]"].symbolic_correct == Estimate(1.0, None, 1)
    assert "only 0 of 1 rows" in caplog.text
    assert f"run `evalcore grade '{folder}' --grader math --option rounding=3`" in caplog.text


def test_grades_of_another_version_are_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_lines(tmp_path / "output-rs0.jsonl", [line("p0", "1", True, generation="\\boxed{2}")])
    nemo_skills.grade(tmp_path, workers=1)
    monkeypatch.setattr("evalcore.grading.VERSION", "another")
    assert modes(nemo_skills.summarize(tmp_path))["pass@1[1]"].symbolic_correct == Estimate(1.0, None, 1)
    assert "only 0 of 1 rows are graded as they are now, by this version" in caplog.text


def test_a_row_that_cannot_be_graded_leaves_the_grades_before_it_in_force(tmp_path: Path) -> None:
    good = line("p0", "1", True, generation="\\boxed{2}")
    file = tmp_path / "output-rs0.jsonl"
    write_lines(file, [good])
    nemo_skills.grade(tmp_path, workers=1)
    before = {file: file.read_bytes() for file in (tmp_path / "grades").iterdir()}
    write_lines(file, [good, {**good, "problem": "p1", "expected_answer": None}])
    with pytest.raises(ResultsError, match=r"output-rs0\.jsonl:2: a row without generation"):
        nemo_skills.grade(tmp_path, grader="exact", workers=1)
    assert {file: file.read_bytes() for file in (tmp_path / "grades").iterdir()} == before


def test_options_of_a_benchmark_and_of_the_user_are_one_grading(tmp_path: Path) -> None:
    folder = tmp_path / "minerva-math"  # its rounding is a number in YAML
    write_lines(folder / "output-rs0.jsonl", [line("p0", "1", True, generation="\\boxed{1}")])
    assert nemo_skills.grade(folder, workers=1).new == 1
    assert nemo_skills.grade(folder, grader="math", options={"rounding": "3"}, workers=1).new == 0


def test_the_name_is_the_folders_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines(tmp_path / "run-7" / "output.jsonl", [line("a", "1", True)])
    (tmp_path / "gsm8k").symlink_to("run-7")
    monkeypatch.chdir(tmp_path / "run-7")
    folders = [Path(), tmp_path / "run-7" / "logs" / "..", tmp_path / "gsm8k"]
    (tmp_path / "run-7" / "logs").mkdir()
    assert [nemo_skills.summarize(folder).benchmark for folder in folders] == ["run-7", "run-7", "gsm8k"]


@pytest.mark.parametrize(
    ("row", "correct", "no_answer"),
    [
        (line("a", "1", True, is_correct=False), 1.0, 0.0),  # the newer field goes before
        (line("a", "", False), 0.0, 1.0),
        ({**line("a", "1", False), "symbolic_correct": "false"}, None, 0.0),  # no verdict
    ],
)
def test_what_a_row_says_of_its_answer(
    tmp_path: Path, row: dict[str, Any], correct: float | None, no_answer: float
) -> None:
    write_lines(tmp_path / "output.jsonl", [row])
    greedy = modes(nemo_skills.summarize(tmp_path))["greedy"]
    assert (greedy.symbolic_correct and greedy.symbolic_correct.value) == correct
    assert greedy.no_answer
    assert greedy.no_answer.value == no_answer


def test_samples_are_in_the_order_of_their_seeds(tmp_path: Path) -> None:
    for seed in (10, 2):
        rows = [line("a", None, False, generation=f"\\boxed{{{seed}}}")]
        write_lines(tmp_path / f"output-rs{seed}.jsonl", rows)
    nemo_skills.grade(tmp_path, workers=1)
    [part] = (tmp_path / "grades").glob("*.jsonl")
    graded = [json.loads(row) for row in part.read_text().splitlines()]
    assert {row["sample"]: row["predicted_answer"] for row in graded} == {0: "2", 1: "10"}


def test_what_is_asked_for_goes_before_our_benchmarks_options(tmp_path: Path) -> None:
    folder = tmp_path / "minerva-math"  # which rounds to three digits
    rows = [line("a", None, False, generation="\\boxed{0.333}", expected_answer="\\frac13")]
    write_lines(folder / "output-rs0.jsonl", rows)
    assert nemo_skills.grade(folder, workers=1).correct == 1
    assert nemo_skills.grade(folder, options={"rounding": "6"}, workers=1).correct == 0


def test_majority_groups_by_meaning_from_responses_to_the_table(tmp_path: Path) -> None:
    for seed, answer in enumerate([r"\sqrt8", r"2\sqrt2", "1"]):
        rows = [line("a", answer, answer == "1", generation=f"\\boxed{{{answer}}}")]
        write_lines(tmp_path / f"output-rs{seed}.jsonl", rows)
    nemo_skills.grade(tmp_path, workers=1)
    assert modes(nemo_skills.summarize(tmp_path))["majority@3"].symbolic_correct == Estimate(0.0, None, 1)
