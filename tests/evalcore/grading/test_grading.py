"""The registry of graders, and the seam between their halves."""

from __future__ import annotations

import subprocess
import sys

import pytest

from evalcore.errors import ConfigError
from evalcore.grading import GRADERS, Equality, check_options


@pytest.mark.parametrize(
    ("grader", "text", "expected", "equal", "reason"),
    [
        ("math", r"\boxed{0.5}", r"\frac{1}{2}", True, "number"),
        ("math", r"\boxed{4}", "5", False, "number"),
        ("multiple_choice", "Answer: C", "c", True, "letter"),
        ("multiple_choice", "Answer: C", "D", False, "letter"),
        ("exact", r"\boxed{Ada}", "Ada", True, "text"),
        ("exact", r"\boxed{Ada}", "Bob", False, "text"),
    ],
)
def test_a_grader_finds_an_answer_and_compares_it(
    grader: str, text: str, expected: str, equal: bool, reason: str
) -> None:
    found = GRADERS[grader].extract(text, {})
    assert found.answer is not None
    assert GRADERS[grader].quick(found.answer, expected, {}) == Equality(equal, reason)


@pytest.mark.parametrize("grader", GRADERS)
def test_every_grader_finds_none_where_there_is_none(grader: str) -> None:
    answer, reason = GRADERS[grader].extract("I do not know.", {})
    assert answer is None
    assert reason


def test_what_quick_passes_thorough_decides() -> None:
    math = GRADERS["math"]
    assert math.quick(r"\sqrt{8}", r"2\sqrt{2}", {}) is None
    assert math.thorough
    assert math.thorough(r"\sqrt{8}", r"2\sqrt{2}", {}).equal is True


def test_only_algebra_imports_sympy() -> None:
    code = (
        "import sys; from evalcore.grading import GRADERS; math = GRADERS['math'];"
        "print(math.quick('0.5', '1/2', {}).equal, 'mpmath' in sys.modules, 'sympy' in sys.modules);"
        "print(math.thorough('2x', 'x+x', {}).equal, 'sympy' in sys.modules);"
        "print(math.algebra('2x', 'x+x', {}).equal, 'sympy' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "True False False\nTrue False\nTrue True\n"


def test_a_benchmark_with_an_unknown_grader_or_option_is_told_the_valid_ones() -> None:
    assert check_options("math", {"extract": "relaxed"}) is GRADERS["math"]
    with pytest.raises(ConfigError, match="unknown grader 'maths'; valid: math, multiple_choice, exact"):
        check_options("maths", {})
    with pytest.raises(ConfigError, match="grader math: unknown option 'extrat'; valid: extract"):
        check_options("math", {"extrat": "boxed"})
    with pytest.raises(ConfigError, match="grader exact: extract is 'all'; valid: boxed, relaxed"):
        check_options("exact", {"extract": "all"})
    with pytest.raises(ConfigError, match=r"grader multiple_choice: unknown option 'extract'; valid: $"):
        check_options("multiple_choice", {"extract": "boxed"})
