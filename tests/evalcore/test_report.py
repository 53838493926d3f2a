"""Snapshots of the printed tables."""

from __future__ import annotations

from pathlib import Path

from evalcore.checkpoints import Checkpoint
from evalcore.records import GREEDY
from evalcore.report import as_markdown, as_text, notes
from evalcore.summarize import Scorecard, summarize
from synthetic_results import Sample, manifest, write

OTHER = Checkpoint(path=None, run="tiny", name="step|2000", step=None, digest="d")


def with_subsets(folder: Path) -> Scorecard:
    rows = [
        Sample(
            f"p{p}", s, answer, answer == "1", fields={"subset_for_metrics": "aime24" if p < 2 else "aime25"}
        )
        for p, answers in enumerate(["1122", "1111", "3332", "1233"])
        for s, answer in enumerate(answers)
    ]
    return summarize(write(folder, manifest(4, 4, name="comp-math-24-25"), rows))


def judged(folder: Path) -> Scorecard:
    rows = [
        Sample("a", GREEDY, "1", True, True),
        Sample("b", GREEDY, "x", False, True),
        Sample("c", GREEDY, None, False, False),
    ]
    return summarize(
        write(folder, manifest(3, 0, name="hle", greedy=True, judged=True, checkpoint=OTHER), rows)
    )


def incomplete(folder: Path) -> Scorecard:
    rows = [
        Sample("a", 0, "1", True, True, fields={"finish_reason": "length"}),
        Sample("a", 1, "2", None, None),
        Sample("b", 0, "1", "absent"),
        Sample("b", 1, None, False, False, fields={"error": "context overflow", "finish_reason": None}),
    ]
    return summarize(write(folder, manifest(1200, 2, name="toy", judged=True), rows))


def test_the_table_is_laid_out_as_in_nemo_skills(tmp_path: Path) -> None:
    assert as_text([with_subsets(tmp_path)]) == (
        """\
tiny/step-1500 (step 1500)


------------------------------- comp-math-24-25-all -------------------------------
evaluation_mode | num_entries | symbolic_correct | no_answer | std_err | sample_std
majority@4      | 4           | 37.50%           | 0.00%     | ±23.94% |
pass@4          | 4           | 75.00%           | 0.00%     | ±25.00% |
pass@1[4]       | 4           | 43.75%           | 0.00%     | ±21.35% | ±23.94%


------------------------------ comp-math-24-25-aime24 -----------------------------
evaluation_mode | num_entries | symbolic_correct | no_answer | std_err | sample_std
majority@4      | 2           | 75.00%           | 0.00%     | ±25.00% |
pass@4          | 2           | 100.00%          | 0.00%     | ±0.00%  |
pass@1[4]       | 2           | 75.00%           | 0.00%     | ±25.00% | ±28.87%


------------------------------ comp-math-24-25-aime25 -----------------------------
evaluation_mode | num_entries | symbolic_correct | no_answer | std_err | sample_std
majority@4      | 2           | 0.00%            | 0.00%     | ±0.00%  |
pass@4          | 2           | 50.00%           | 0.00%     | ±50.00% |
pass@1[4]       | 2           | 12.50%           | 0.00%     | ±12.50% | ±25.00%
"""
    )


def test_judge_columns_stand_where_nemo_skills_has_them(tmp_path: Path) -> None:
    header, row = as_text([judged(tmp_path)]).splitlines()[-2:]
    assert header == (
        "evaluation_mode | num_entries | symbolic_correct | judge_correct | both_correct | any_correct "
        "| no_answer | std_err | judge_std_err"
    )
    assert row == (
        "greedy          | 3           | 33.33%           | 66.67%        | 33.33%       | 66.67%      "
        "| 33.33%    | ±33.33% | ±33.33%"
    )


def test_notes_say_what_the_numbers_leave_out(tmp_path: Path) -> None:
    card = incomplete(tmp_path)
    assert notes(card) == [
        "incomplete: 4 of 2,400 samples generated",
        "1 sample not graded yet",
        "1 sample could not be graded; left out, not counted as wrong",
        "1 sample not judged yet",
        "1 sample (25.00%) got no verdict from the judge; left out",
        "1 sample failed to be generated; counted as wrong, without an answer",
        "1 sample (25.00%) cut off at the token limit",
        "majority@2 symbolic_correct leaves out 2 of 2 problems with too few known grades",
        "majority@2 judge_correct leaves out 2 of 2 problems with too few known grades",
        "pass@2 symbolic_correct leaves out 2 of 2 problems with too few known grades",
        "pass@2 judge_correct leaves out 2 of 2 problems with too few known grades",
    ]
    text = as_text([card])
    assert "\nnote: incomplete: 4 of 2,400 samples generated\nnote: " in text
    assert "majority@2      | 2           | n/a              | n/a " in text


def test_nothing_missing_means_no_notes(tmp_path: Path) -> None:
    assert notes(with_subsets(tmp_path)) == []


def test_each_checkpoint_is_named_once(tmp_path: Path) -> None:
    one, other = with_subsets(tmp_path / "one"), judged(tmp_path / "other")
    text = as_text([one, one, other])
    assert text.count("tiny/step-1500 (step 1500)\n") == 1
    assert text.count("tiny/step|2000\n") == 1


def test_markdown_can_be_pasted(tmp_path: Path) -> None:
    assert as_markdown([judged(tmp_path / "judged"), incomplete(tmp_path / "incomplete")]).startswith(
        r"""## tiny/step\|2000

### hle

| evaluation_mode | num_entries | symbolic_correct | judge_correct | both_correct | any_correct | no_answer | std_err | judge_std_err |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| greedy | 3 | 33.33% | 66.67% | 33.33% | 66.67% | 33.33% | ±33.33% | ±33.33% |

## tiny/step-1500 (step 1500)

### toy

| evaluation_mode |"""  # noqa: E501
    )
    assert as_markdown([incomplete(tmp_path / "again")]).count("\n- ") == 11


def test_names_cannot_end_a_cell_or_start_markup(tmp_path: Path) -> None:
    card = with_subsets(tmp_path)
    name = "a|b\n# *c* `d` <e> \\|"
    escaped = r"a\|b # \*c\* \`d\` \<e\> \\\|"
    mode = card.subsets[0].modes[0].model_copy(update={"evaluation_mode": name})
    whole = card.subsets[0].model_copy(update={"name": name, "modes": (mode,)})
    checkpoint = OTHER.model_copy(update={"run": name, "name": "x\ny"})
    lines = as_markdown(
        [card.model_copy(update={"checkpoint": checkpoint, "subsets": (whole,)})]
    ).splitlines()
    assert lines[0] == f"## {escaped}/x y"
    assert lines[2] == f"### {escaped}"
    assert lines[6] == f"| {escaped} | 4 | 37.50% | 0.00% | ±23.94% |  |"


def test_no_scorecards_print_nothing() -> None:
    assert as_text([]) == ""
    assert as_markdown([]) == ""
