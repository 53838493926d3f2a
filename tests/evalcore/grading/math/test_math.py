"""The two halves of the grader, its options, and the stage that decides."""

from __future__ import annotations

import subprocess
import sys

import pytest

from evalcore.grading import check_options, math
from evalcore.grading.verdict import NEEDS_ALGEBRA

STAGES = [
    ("$5$", "5.", "text"),
    ("42", r"\boxed{42}", "text"),
    ("1000.0", "1,000", "number"),
    ("2/4", r"\frac{1}{2}", "number"),
    ("1 1/2", "1.5", "number"),
    (r"\sqrt{49}", "7", "number"),
    ("(1, 2)", r"(1, \frac42)", "structure"),
    ("x+1", "1+x", "points"),
    (r"(1, \sqrt 8)", r"(1, 2\sqrt 2)", "points"),
    (r"\int_0^1 x^2 dx", r"\frac13", "algebra"),
]


@pytest.mark.parametrize(("answer", "expected", "stage"), STAGES)
def test_the_stage_that_decided_is_said(answer: str, expected: str, stage: str) -> None:
    equality = math.quick(answer, expected, {}) or math.thorough(answer, expected, {})
    if stage == "algebra":
        assert equality == (None, NEEDS_ALGEBRA)
        equality = math.with_algebra(answer, expected, {})
    assert equality == (True, stage)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("2x", "x+x"), ("1 1/2", "3/2"), ("0.3333", "1/3"), ("1e1", "10"), ("1/0", "1"), (r"\sqrt{4}", "2")],
)
def test_quick_passes_on_what_takes_more_than_reading_a_number(answer: str, expected: str) -> None:
    assert math.quick(answer, expected, {}) is None


@pytest.mark.parametrize("nothing", ["", " ", "$$", r"\,"])
def test_nothing_equals_nothing_but_the_reference_that_is_not_there(nothing: str) -> None:
    assert math.quick(nothing, "5", {}) == (False, "text")
    assert math.quick(nothing, nothing, {}) == (False, "text")


def test_text_and_numbers_do_not_import_sympy_or_mpmath() -> None:
    program = (
        "import sys\nfrom evalcore.grading import math\n"
        "assert math.quick('1/2', '0.5', {}).equal and math.quick('x', 'x', {}).equal\n"
        "print(sorted({'sympy', 'mpmath'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_structure_and_points_do_not_import_sympy() -> None:
    program = (
        "import sys\nfrom evalcore.grading import math\n"
        "assert math.thorough('2x', 'x+x', {}).equal\n"
        "print('sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("percent", "tenth", "ten"), [("either", True, True), ("value", True, False)], ids=["either", "value"]
)
def test_what_a_percentage_equals_is_an_option(percent: str, tenth: bool, ten: bool) -> None:
    assert math.thorough(r"10\%", "0.1", {"percent": percent}).equal is tenth
    assert math.thorough(r"10\%", "10", {"percent": percent}).equal is ten
    assert math.thorough("10 percent", r"10\%", {"percent": percent}).equal is True


@pytest.mark.parametrize(("rounding", "fewest"), [(2, "0.33"), (3, "0.333"), ("4", "0.3333")])
def test_how_many_digits_stand_for_an_exact_value_is_an_option(rounding: int | str, fewest: str) -> None:
    check_options("math", {"rounding": rounding})
    assert math.thorough(fewest, "1/3", {"rounding": rounding}).equal is True
    assert math.thorough(fewest[:-1], "1/3", {"rounding": rounding}).equal is False


def test_the_reading_of_an_answer_is_shown() -> None:
    assert math.reading(r"x \in [1, \frac{1}{2}\sqrt2)") == "x in [1, (1 / 2) * sqrt(2))"
    assert math.reading(r"\text{(E)}") == "words 'e'"
    assert math.reading(r"\frac{1}{").startswith("plain text: ")
    assert math.reading("{" * 99) == "nothing: nested too deep (99)"


@pytest.mark.parametrize("rounding", [2, 3, 4])
@pytest.mark.parametrize(
    ("left", "right"), [("0.10", "13/125"), ("1.0", "21/20"), ("0.33", "1/3"), ("2.5", "5/2")]
)
def test_what_quick_decides_thorough_decides_alike(rounding: int, left: str, right: str) -> None:
    options = {"rounding": rounding}
    for pair in ((left, right), (right, left)):
        quick = math.quick(*pair, options)
        assert quick is None or quick.equal is math.thorough(*pair, options).equal
