"""``explain`` shows each step from a response to its verdict."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

import synthetic_results
from evalcore.errors import ResultsError
from evalcore.explain import explain
from synthetic_results import Sample


def responses(folder: Path, *rows: dict[str, object]) -> Path:
    file = folder / "output-rs0.jsonl"
    file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return file


def test_every_step_is_there(tmp_path: Path) -> None:
    row = {
        "problem": "How long is the diagonal?",
        "expected_answer": "\\sqrt{2}/2",
        "generation": "It is half of it: $\\boxed{\\frac{1}{\\sqrt 2}}$.",
        "num_generated_tokens": 12,
        "symbolic_correct": False,
        "judgement": "They are the same.\nJudgement: Yes",
    }
    lines = explain(responses(tmp_path, row), "1").splitlines()
    assert lines == [
        "problem    How long is the diagonal?",
        "sample     0; 12 tokens",
        "response   It is half of it: $\\boxed{\\frac{1}{\\sqrt 2}}$.",
        "extracted  \\frac{1}{\\sqrt 2} (boxed)",
        "           read as 1 / sqrt(2)",
        "expected   \\sqrt{2}/2",
        "           read as sqrt(2) / 2",
        "verdict    equal, decided by: points",
        "recorded   not equal, decided by: ?",
        "judge      yes: They are the same.",
        "           Judgement: Yes",
    ]


def test_of_a_folder_the_recorded_grade_and_all_answers(tmp_path: Path) -> None:
    made_by = synthetic_results.manifest(1, 3)
    rows = [Sample("a", i, answer, False, fields={"expected_answer": "5"}) for i, answer in enumerate("771")]
    folder = synthetic_results.write(tmp_path / "toy", made_by, rows)
    text = explain(folder, "a", sample=2)
    assert "sample     2; 10 tokens; finished: stop" in text
    assert "verdict    not equal: no box" in text
    assert "3 samples are there: 0, 1, 2" in text
    assert "    2 x  7  (not equal)" in text


def test_of_a_folder_the_judgement_too(tmp_path: Path) -> None:
    made_by = synthetic_results.manifest(1, 2, judged=True)
    fields = {"expected_answer": "5"}
    rows = [Sample("a", i, "7", False, judge=judge, fields=fields) for i, judge in enumerate([True, False])]
    folder = synthetic_results.write(tmp_path / "toy", made_by, rows)
    assert "judge      yes: " in explain(folder, "a", sample=0)
    assert "judge      no: " in explain(folder, "a", sample=1)


def test_of_a_folder_only_the_problem_asked_for(tmp_path: Path) -> None:
    problems = [("a", "1", "10"), ("b", "2", "20"), ("c", "3", "30")]
    rows = [
        Sample(problem, 0, answer, fields={"expected_answer": expected})
        for problem, answer, expected in problems
    ]
    folder = synthetic_results.write(tmp_path / "toy", synthetic_results.manifest(3, 1), rows)
    for problem, answer, expected in problems:
        text = explain(folder, problem)
        assert f"response   so {answer}\n" in text
        assert f"expected   {expected}\n" in text


def test_the_most_frequent_answers_come_first(tmp_path: Path) -> None:
    rows = [Sample("a", i, answer, fields={"expected_answer": "5"}) for i, answer in enumerate("122333")]
    folder = synthetic_results.write(tmp_path / "toy", synthetic_results.manifest(1, 6), rows)
    counts = [line.split()[:3] for line in explain(folder, "a").splitlines() if " x  " in line]
    assert counts == [["3", "x", "3"], ["2", "x", "2"], ["1", "x", "1"]]


def test_the_greedy_answer_comes_first(tmp_path: Path) -> None:
    made_by = synthetic_results.manifest(1, 1, greedy=True)
    fields = {"expected_answer": "5"}
    rows = [Sample("a", 0, "1", fields=fields), Sample("a", -1, "2", fields=fields)]
    folder = synthetic_results.write(tmp_path / "toy", made_by, rows)
    assert "sample     greedy;" in explain(folder, "a")


def test_hostile_text_stays_on_its_lines(tmp_path: Path) -> None:
    row = {"expected_answer": "1", "generation": "\x1b[2Jgone\x07 \\boxed{" + "{" * 30 + "1" + "}" * 30 + "}"}
    text = explain(responses(tmp_path, row), "1")
    assert "\x1b" not in text
    assert "response   \\x1b[2Jgone\\x07" in text
    assert "read as nothing: nested too deep" in text


def test_an_unknown_problem_lists_some(tmp_path: Path) -> None:
    row = {"expected_answer": "1", "generation": "1", "id": "algebra-1"}
    with pytest.raises(ResultsError, match=r"no problem 'x'; there are 1: algebra-1"):
        explain(responses(tmp_path, row), "x")


def test_an_unknown_sample_lists_those_there_are(tmp_path: Path) -> None:
    row = {"expected_answer": "1", "generation": "1"}
    with pytest.raises(ResultsError, match=r"no sample 3 of 1; there are 0"):
        explain(responses(tmp_path, row), "1", sample=3)


def test_a_long_response_is_shown_by_its_end(tmp_path: Path) -> None:
    file = tmp_path / "output.jsonl"
    file.write_bytes(orjson.dumps({"expected_answer": "1", "generation": "x" * 5000 + r"\boxed{1}"}) + b"\n")
    assert len(explain(file, "1")) < 1000
