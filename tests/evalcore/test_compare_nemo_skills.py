"""NeMo-Skills' result folders compared: problem by problem as ours are, and only with what is like them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evalcore import nemo_skills
from evalcore.cli import app
from evalcore.compare import Compared, compare_folders
from evalcore.comparison import Verdict
from evalcore.errors import ResultsError
from evalcore.plot import of_comparison
from evalcore.summarize import summarize
from synthetic_results import Sample, manifest, write

pytestmark = pytest.mark.slow

SAMPLES = 4
FIELDS = ("symbolic_correct", "judge_correct")


def results(
    experiment: Path,
    right: Sequence[int],
    *,
    benchmark: str = "toy",
    fields: Sequence[str] = FIELDS[:1],
    problem: str = "What is {}?",
    answer: str = "1",
    greedy: bool = False,
) -> Path:
    """The folder of an experiment, in which problem i has ``right[i]`` of SAMPLES samples right.

    greedy: instead it has one answer, right if there is one.
    """
    folder = experiment / "eval-results" / benchmark
    folder.mkdir(parents=True, exist_ok=True)
    for sample in range(1 if greedy else SAMPLES):
        rows = [
            {
                "problem": problem.format(i),
                "expected_answer": answer,
                "generation": f"\\boxed{{{1 if sample < c else 7}}}",
                "predicted_answer": "1" if sample < c else "7",
                "num_generated_tokens": 10,
                **dict.fromkeys(fields, sample < c),
            }
            for i, c in enumerate(right)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / ("output-greedy.jsonl" if greedy else f"output-rs{sample}.jsonl")).write_text(text)
    return experiment


def only(new: Path, base: Path) -> Compared:
    [it] = compare_folders(new, base).benchmarks
    return it


NEW, BASE = [4, 1, 2, 2] * 10, [4, 3, 4, 2] * 10


def test_the_same_rows_compare_as_folders_of_ours_do(tmp_path: Path) -> None:
    new, base = results(tmp_path / "run" / "step-1800", NEW), results(tmp_path / "run" / "step-900", BASE)
    ours = []
    for name, right in (("new", NEW), ("base", BASE)):
        samples = [
            Sample(f"{i:02}", s, "1" if s < c else "7", s < c, tokens=10)
            for i, c in enumerate(right)
            for s in range(SAMPLES)
        ]
        ours.append(
            write(tmp_path / "ours" / name / "toy", manifest(len(right), SAMPLES, name="toy"), samples)
        )
        summarize(ours[-1])
    it, expected = only(new, base), only(*ours)
    assert it.found == expected.found
    assert it.found.verdict is Verdict.REGRESSED
    assert (it.mode, it.column, it.value, it.base_value) == ("pass@1[4]", "symbolic_correct", 0.5625, 0.8125)
    assert sorted(p._replace(problem=f"{int(p.problem):02}") for p in it.pairs) == list(expected.pairs)
    # A folder of files may be given as it is, and what is in it as well as what it is in.
    for below in ("eval-results", "eval-results/toy"):
        assert only(new / below, base / below) == it


def test_the_command_names_them_by_their_folders_and_says_what_nobody_can_check(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new, base = results(tmp_path / "run" / "step-1800", NEW), results(tmp_path / "run" / "step-900", BASE)
    with caplog.at_level(logging.WARNING):
        done = CliRunner().invoke(app, ["compare", str(new), str(base), "--fail-on-regression"])
    assert done.exit_code == 3
    lines = done.stdout.splitlines()
    assert lines[0] == "run/step-1800 against run/step-900: regressed on toy by 25.0 points"
    assert lines[-1] == "  25: 3/4 → 1/4"
    assert "that both were asked alike is up to you" in caplog.text


def test_what_is_not_alike_is_refused(tmp_path: Path) -> None:
    base = results(tmp_path / "base", BASE)
    for name, other, differing in (
        ("problems", {"problem": "And {}?"}, "problems.digest"),
        ("answers", {"answer": "2"}, "problems.digest"),
        ("verdicts", {"fields": FIELDS[1:]}, "verdicts: judge_correct, not symbolic_correct"),
    ):
        with pytest.raises(ResultsError, match=differing):
            compare_folders(results(tmp_path / name, NEW, **other), base)  # type: ignore[arg-type]
    with pytest.raises(ResultsError, match=r"problems\.number: 39, not 40"):
        compare_folders(results(tmp_path / "fewer", NEW[:-1]), base)
    graded = results(tmp_path / "graded", NEW)
    nemo_skills.grade(graded / "eval-results" / "toy", workers=1)
    with pytest.raises(ResultsError, match="toy: grading"):
        compare_folders(graded, base)
    nemo_skills.grade(base / "eval-results" / "toy", workers=1)
    assert only(graded, base).value == 0.5625
    nemo_skills.grade(graded / "eval-results" / "toy", grader="exact", workers=1)
    with pytest.raises(ResultsError, match="toy: grading"):
        compare_folders(graded, base)


def test_results_of_both_kinds_are_not_compared(tmp_path: Path) -> None:
    samples = [Sample(f"{i}", s, "1", True) for i in range(40) for s in range(SAMPLES)]
    summarize(write(tmp_path / "ours" / "toy", manifest(40, SAMPLES, name="toy"), samples))
    theirs = results(tmp_path / "theirs", BASE)
    for pair in ((tmp_path / "ours", theirs), (theirs, tmp_path / "ours")):
        with pytest.raises(ResultsError, match="toy: of one NeMo-Skills' files are there"):
            compare_folders(*pair)


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("fields", [FIELDS, FIELDS[1:]])
def test_the_judges_verdicts_count_where_there_are_no_others(
    tmp_path: Path, fields: Sequence[str], greedy: bool
) -> None:
    rights = ([4, 1, 0, 2] * 10, BASE) if greedy else (NEW, BASE)
    new, base = (
        results(tmp_path / n, r, fields=fields, greedy=greedy)
        for n, r in zip(("new", "base"), rights, strict=True)
    )
    it = only(new, base)
    expected = ("greedy", 0.75) if greedy else ("pass@1[4]", 0.5625)
    assert (it.column, it.mode, it.value) == (fields[0], *expected)


def test_drawn_or_not_all_rows_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, base = results(tmp_path / "run" / "step-1800", NEW), results(tmp_path / "run" / "step-900", BASE)
    read = []
    evaluated = nemo_skills.evaluated
    monkeypatch.setattr(nemo_skills, "evaluated", lambda folder: (read.append(folder), evaluated(folder))[1])
    plot = tmp_path / "plot.html"
    done = CliRunner().invoke(app, ["compare", str(new), str(base), "--plot", str(plot)])
    assert done.exit_code == 0
    assert "81.25%" in plot.read_text()
    assert read == [folder / "eval-results" / "toy" for folder in (new, base)]


def test_the_two_are_drawn_without_what_the_history_has_of_others(tmp_path: Path) -> None:
    new, base = results(tmp_path / "run" / "step-1800", NEW), results(tmp_path / "run" / "step-900", BASE)
    [panel] = of_comparison(compare_folders(new, base))
    assert [(point.name, point.value) for point in panel.points] == [
        ("step-1800", 0.5625),
        ("step-900", 0.8125),
    ]
