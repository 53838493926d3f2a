"""grade on folders of a few responses, killed, resumed and graded anew."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from evalcore import grading
from evalcore.errors import ConfigError, ResultsError
from evalcore.grade import GradeSummary, grade
from evalcore.grading.pool import Pair, Pool, Timed
from evalcore.manifest import GENERATIONS, GRADES, Grading, Manifest
from evalcore.records import GREEDY, PartWriter, Row, key_of, part_files, read_rows
from synthetic_results import manifest
from waiting import until

THINKING = "<think>It may be \\boxed{4}"


def made(folder: Path, responses: list[Row], made_by: Manifest | None = None) -> Path:
    """A folder with a manifest and these generations; problem, sample and reference have defaults."""
    made_by = made_by or manifest(2, 8)
    made_by.save(folder)
    with PartWriter(folder / GENERATIONS, f"{made_by.generation_id}-0") as part:
        for number, row in enumerate(responses):
            part.write({"problem_id": "a", "sample": number, "problem": "2+2?", "expected_answer": "4"} | row)
    return folder


def grades(folder: Path) -> list[Row]:
    return list(read_rows(folder / GRADES, Manifest.load(folder).grading_id))


def verdicts(folder: Path) -> dict[int, tuple[Any, Any, Any]]:
    return {r["sample"]: (r["predicted_answer"], r["symbolic_correct"], r["reason"]) for r in grades(folder)}


def test_every_response_gets_its_verdict_and_reason(tmp_path: Path) -> None:
    folder = made(
        tmp_path,
        [
            {"sample": GREEDY, "generation": r"So $\boxed{4}$."},
            {"sample": 0, "generation": r"\boxed{5}"},
            {"sample": 1, "generation": r"\boxed{2\sqrt{4}}"},
            {"sample": 2, "generation": "four"},
            {"sample": 3, "generation": THINKING},
            {"sample": 4, "generation": "", "error": "400 context overflow"},
            {"sample": 5, "generation": r"\boxed{9^{9^{9}}+x}"},
            {"sample": 6, "generation": rf"\boxed{{{'1+' * 1500}1}}"},
            {"sample": 7},
        ],
    )
    summary = grade(folder, workers=1, timeout=30.0)
    assert verdicts(folder) == {
        GREEDY: ("4", True, "text"),
        0: ("5", False, "number"),
        1: (r"2\sqrt{4}", True, "number"),
        2: (None, False, "no box"),
        3: (None, False, "reasoning not finished"),
        4: (None, False, "no generation: 400 context overflow"),
        5: ("9^{9^{9}}+x", None, "a power of too many digits"),
        6: ("1+" * 1500 + "1", None, "too long (3001 characters)"),
        7: (None, False, "no generation"),
    }
    assert summary == GradeSummary(rows=9, new=9, correct=2, no_answer=4, undecided=2)


def test_a_response_that_ends_in_a_loop_is_marked(tmp_path: Path) -> None:
    responses = [
        {"generation": r"\boxed{4}" + " So it is 4." * 40},
        {"generation": " So it is 4." * 40 + r"\boxed{4}"},
        {"generation": "", "error": "400 context overflow"},
        {},
        {"generation": ""},
        {"generation": r"\boxed{x+x+1}" + "!" * 300},  # of which the workers are asked
    ]
    grade(made(tmp_path, responses), workers=1)
    assert [row.get("repeats") for row in grades(tmp_path)] == [True, False, None, None, False, True]


def test_the_timeout_is_the_callers(tmp_path: Path) -> None:
    # No sum that has a name: sympy looks for a while.
    answer = r"\sum_{n=1}^{\infty} \frac{1}{n^{n^n}+\sin n}"
    folder = made(tmp_path, [{"generation": rf"\boxed{{{answer}}}"}])
    grade(folder, workers=1, timeout=0.02)
    assert verdicts(folder) == {0: (answer, None, "timeout")}


def test_rows_keep_the_order_of_the_generations(tmp_path: Path) -> None:
    folder = made(tmp_path, [{"generation": rf"\boxed{{{i}x}}"} for i in (3, 1, 2, 1)])
    grade(folder, workers=2)
    assert [row["sample"] for row in grades(folder)] == [0, 1, 2, 3]


def test_who_comes_second_waits_and_grades_nothing_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = made(tmp_path, [{"sample": 0, "generation": r"\boxed{4}"}, {"sample": 1, "generation": "?"}])
    grade(folder, workers=1)
    [part] = part_files(folder / GRADES, Manifest.load(folder).grading_id)
    graded = grades(folder)
    part.write_bytes(b"")
    with ThreadPoolExecutor() as threads:
        with PartWriter(part.parent, part.stem) as first:
            second = threads.submit(grade, folder, workers=1)
            until(lambda: "waiting for another process" in caplog.text, "the second one")
            first.write(graded[0])
        assert second.result(timeout=60).new == 1
    assert [json.loads(line) for line in part.read_bytes().splitlines()] == graded


def test_a_second_call_grades_only_what_is_new(tmp_path: Path) -> None:
    folder = made(tmp_path, [{"generation": r"\boxed{4}"}])
    assert grade(folder).new == 1
    (part,) = part_files(folder / GRADES, Manifest.load(folder).grading_id)
    before = part.read_bytes()
    assert grade(folder) == GradeSummary(rows=1, new=0, correct=1, no_answer=0, undecided=0)
    assert part.read_bytes() == before
    made(folder, [{"sample": 1, "generation": r"\boxed{5}"}])
    assert grade(folder) == GradeSummary(rows=2, new=1, correct=1, no_answer=0, undecided=0)
    assert part.read_bytes().startswith(before)


def test_killed_at_any_byte_it_goes_on(tmp_path: Path) -> None:
    folder = made(tmp_path, [{"generation": rf"\boxed{{{i}}}"} for i in range(3, 6)])
    grade(folder)
    (part,) = part_files(folder / GRADES, Manifest.load(folder).grading_id)
    whole = part.read_bytes()
    for length in range(len(whole)):
        part.write_bytes(whole[:length])
        assert grade(folder).new == 3 - whole[:length].count(b"\n")
        assert part.read_bytes() == whole


def test_another_version_of_the_graders_grades_anew_and_keeps_the_old_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path, [{"generation": r"\boxed{4}"}], manifest(2, 8, judged=True))
    grade(folder)
    old = Manifest.load(folder)
    assert old.judging
    monkeypatch.setattr(grading, "VERSION", "another")
    assert grade(folder).new == 1
    new = Manifest.load(folder)
    assert (new.grading.version, new.judging) == ("another", None)
    assert new.grading_id != old.grading_id
    assert len(list((folder / GRADES).iterdir())) == 2
    assert new.generation_id == old.generation_id


def test_grader_and_options_come_from_the_manifest(tmp_path: Path) -> None:
    def with_grading(grader: str, **options: str) -> Manifest:
        choice = Grading(grader=grader, options=options, version=grading.VERSION)
        return manifest(2, 8).model_copy(update={"grading": choice})

    row = {"generation": "Answer: C", "expected_answer": "c"}
    assert grade(made(tmp_path / "mc", [row], with_grading("multiple_choice"))).correct == 1
    assert grade(made(tmp_path / "exact", [row], with_grading("exact", extract="relaxed"))).correct == 0
    assert verdicts(tmp_path / "exact")[0] == ("C", False, "text")
    with pytest.raises(ConfigError, match="grader math: unknown option 'extrat'; valid: extract"):
        grade(made(tmp_path / "bad", [row], with_grading("math", extrat="boxed")))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Pair]:
    """The pairs that were given to workers."""
    pairs: list[Pair] = []
    compare_ahead = Pool.compare_ahead

    def count(pool: Pool, parts: Iterator[tuple[Any, list[Pair]]]) -> Iterator[tuple[Any, list[Timed]]]:
        for part, results in compare_ahead(pool, parts):
            pairs.extend(part.passed)
            yield part, results

    monkeypatch.setattr(Pool, "compare_ahead", count)
    return pairs


def test_each_distinct_pair_is_compared_once(
    tmp_path: Path, asked: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalcore.grade._ROWS_AT_ONCE", 3)
    answers = ["2^2", "2^2", "4", "2^2", "2+2", "2^2", "2+2"]
    folder = made(tmp_path, [{"generation": rf"\boxed{{{answer}}}"} for answer in answers])
    assert grade(folder, workers=1).correct == 7
    assert sorted(asked) == [("2+2", "4"), ("2^2", "4")]
    assert [row["sample"] for row in grades(folder)] == list(range(7))


def test_nothing_to_grade_names_the_stage_to_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ResultsError, match=r"no manifest.json; run `evalcore generate` first"):
        grade(tmp_path)
    manifest(1, 1).save(tmp_path)
    with pytest.raises(ResultsError, match="no generations under its manifest's settings"):
        grade(tmp_path)
    caplog.set_level(logging.INFO)
    grade(made(tmp_path, [{"generation": r"\boxed{4}"}]))
    assert "grade toy: 1 of 1 samples" in caplog.text
    assert {key_of(row) for row in grades(tmp_path)} == {("a", 0)}


def test_wrong_answers_that_mean_the_same_vote_together_also_from_the_cache(tmp_path: Path) -> None:
    boxes = [r"\boxed{\frac{2}{\sqrt 3}}", r"\boxed{\frac{2\sqrt 3}{3}}", r"\boxed{\sqrt 2}"]
    responses: list[Row] = [{"generation": box} for box in boxes]
    votes = []
    for name in ("cold", "cached"):
        folder = made(tmp_path / name, responses)
        grade(folder, workers=1)
        votes.append([row["vote"] for row in grades(folder)])
    assert votes[0] == votes[1]
    assert votes[0][0] == votes[0][1] != votes[0][2]


def test_a_pair_that_was_compared_once_is_not_compared_again(tmp_path: Path, asked: list[Pair]) -> None:
    responses: list[Row] = [{"generation": r"\boxed{2\sqrt{4}+x-x}"}]
    for name, answered in (("first", 1), ("second", 1)):
        assert grade(made(tmp_path / name, responses), workers=1).correct == 1
        assert len(asked) == answered
    other = manifest(2, 8)
    options = other.grading.model_copy(update={"options": {"rounding": 2}})
    grade(made(tmp_path / "third", responses, other.model_copy(update={"grading": options})), workers=1)
    assert len(asked) == 2


def test_what_was_undecided_is_compared_again_by_the_next_grading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_come = [Timed(None, "timeout", 2000.0), Timed(True, "algebra", 1.0)]
    monkeypatch.setattr(
        Pool,
        "compare_ahead",
        lambda pool, parts: ((part, [to_come.pop(0) for _ in pairs]) for part, pairs in parts),
    )
    folder = made(tmp_path, [{"generation": r"\boxed{2\sqrt{4}+x-x}"}])
    assert grade(folder).undecided == 1
    shutil.rmtree(folder / GRADES)
    assert grade(folder) == GradeSummary(rows=1, new=1, correct=1, no_answer=0, undecided=0)


def test_another_version_of_the_grader_asks_anew(
    tmp_path: Path, asked: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    responses: list[Row] = [{"generation": r"\boxed{2\sqrt{4}+x-x}"}]
    grade(made(tmp_path / "first", responses), workers=1)
    monkeypatch.setattr(grading, "VERSION", "another")
    grade(made(tmp_path / "second", responses), workers=1)
    assert len(asked) == 2
