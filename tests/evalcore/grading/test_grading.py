"""The registry of graders, and the seam between their halves."""

from __future__ import annotations

import pytest

from evalcore.errors import ConfigError
from evalcore.grading import GRADERS, Verdict, check_options


def test_a_grader_grades_a_response() -> None:
    grade = GRADERS["math"].grade
    assert grade(r"\boxed{\sqrt{8}}", r"2\sqrt{2}", {}) == Verdict(r"\sqrt{8}", True, "math-verify")
    assert grade(r"\boxed{4}", "5", {}) == Verdict("4", False, "number")
    assert grade("4", "4", {}) == Verdict(None, False, "no box")
    assert GRADERS["multiple_choice"].grade("Answer: C", "c", {}) == Verdict("C", True, "letter")
    assert GRADERS["exact"].grade(r"\boxed{Ada}", "Bob", {}) == Verdict("Ada", False, "text")


def test_a_benchmark_with_an_unknown_grader_or_option_is_told_the_valid_ones() -> None:
    assert check_options("math", {"extract": "relaxed"}) is GRADERS["math"]
    with pytest.raises(ConfigError, match="unknown grader 'maths'; valid: math, multiple_choice, exact"):
        check_options("maths", {})
    with pytest.raises(ConfigError, match="grader math: unknown option 'extrat'; valid: extract"):
        check_options("math", {"extrat": "boxed"})
    with pytest.raises(ConfigError, match="grader exact: extract is 'all'; valid: boxed, relaxed"):
        check_options("exact", {"extract": "all"})
