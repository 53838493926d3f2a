"""This answer, this verdict: what text and numbers decide, and what is passed on to algebra."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalcore.grading import math
from evalcore.grading.math import normalize, quick, thorough

NORMALIZED = [
    ("$1,234$", "1234"),
    (r"1\,234", "1234"),
    (r"1,\!234", "1234"),
    (r"32,\! 349", "32349"),
    ("1{,}234.5", "1234.5"),
    ("(1,234)", "(1,234)"),  # a pair, not a number
    (r"\dfrac{1}{2}", r"\frac{1}{2}"),
    (r"\frac12", r"\frac{1}{2}"),
    (r"\left( 1 , 2 \right)", "(1,2)"),
    ("1 1/2", "1 1/2"),
    (r"2 \pi r", r"2\pi r"),
    ("x = 5.", "x=5"),
    (r"x=1,\ y=2", "x=1,y=2"),
    (r"\\frac{1}{2}", r"\frac{1}{2}"),
    (r"\begin{pmatrix} 1 \\ a \end{pmatrix}", r"\begin{pmatrix}1\\a\end{pmatrix}"),
    (r"\text{east}", r"\text{east}"),
    (r"\(x\)", "x"),
    ("$1$ or $2$", "$1$or$2$"),
    ("−5", "-5"),
    ("", ""),
]

QUICK = [
    ("5", "5", True, "text"),
    ("$5$", "5.", True, "text"),
    ("x + 1", "x+1", True, "text"),
    ("42", r"\boxed{42}", True, "text"),
    ("1000.0", "1,000", True, "number"),
    (".5", "0.50", True, "number"),
    ("2/4", r"\frac{1}{2}", True, "number"),
    (r"-\frac{1}{2}", "-0.5", True, "number"),
    (r"\frac{-1}{2}", "-1/2", True, "number"),
    ("7", "8", False, "number"),
    ("1e1", "10", None, None),
    ("0.1", "0.2", False, "number"),
    ("11/2", "1 1/2", None, None),
    ("0.333", "1/3", None, None),  # how far a rounded number may be off is not for this stage
    ("1/0", "1", None, None),
    ("0.0000001", "0.0000002", None, None),
    ("2x", "x+x", None, None),
    ("", "5", False, "text"),
    (r"\,", "5", False, "text"),
]

THOROUGH = [
    ("2x", "x+x", True),
    (r"\sqrt{8}", r"2\sqrt{2}", True),
    (r"\frac{x+2}{7}", r"\frac{x}{7}+\frac{2}{7}", True),
    ("x=5", "5", True),
    (r"\{1, 2\}", r"\{2, 1\}", True),
    ("(1, 2)", "(2, 1)", False),
    ("0.333333", "1/3", True),
    ("0.3", "1/3", False),
    (r"50\%", "0.5", True),
    (r"28\%", r"28 \%", True),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ \frac{4}{2} \end{pmatrix}", True),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}", False),
    ("[0, 1)", "[0, 1]", False),
    (r"x \le 5", r"5 \ge x", True),
    ("12:00", "1:00", False),
    ("{{{", "5", False),
    ("1,000.5", r"\frac{2001}{2}", True),
]


@pytest.mark.parametrize(("text", "normal"), NORMALIZED)
def test_normalize(text: str, normal: str) -> None:
    assert normalize(text) == normal
    assert normalize(normal) == normal


@given(st.text(st.sampled_from("abcXYZ 19.,$\\{}()~-"), max_size=40))
def test_normalize_deletes_no_letter_but_of_a_spacing_command(text: str) -> None:
    def letters(text: str) -> list[str]:
        return [character for character in text if character.isalnum()]

    assert letters(normalize(text)) == letters(text)


@pytest.mark.parametrize(("answer", "expected", "equal", "stage"), QUICK)
def test_quick(answer: str, expected: str, equal: bool | None, stage: str | None) -> None:
    assert quick(answer, expected) == (None if stage is None else (equal, stage))


@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        ("1+" * 600 + "1", "too long (1201 characters)"),
        ("{" * 200 + "1" + "}" * 200, "nested too deep (200)"),
        ("9" * 500, "a number of more than 200 digits"),
        ("&" * 101, "too many cells (101)"),
    ],
)
def test_what_is_too_big_to_parse_is_undecided(hostile: str, reason: str) -> None:
    assert quick(hostile, "1") == (None, reason)
    assert quick("1", hostile) == (None, reason)
    assert quick(hostile, hostile) == (True, "text")


@pytest.mark.parametrize(("answer", "expected", "equal"), THOROUGH)
def test_thorough(answer: str, expected: str, equal: bool) -> None:
    assert thorough(answer, expected).equal is equal


def test_text_and_numbers_do_not_import_sympy() -> None:
    code = (
        "import sys; from evalcore.grading import GRADERS;"
        "print(GRADERS['math'].grade(r'\\boxed{0.5}', '1/2', {}), 'sympy' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "Verdict(predicted_answer='0.5', correct=True, reason='number') False\n"


def test_options_choose_the_extraction() -> None:
    assert math.extract("The answer is 5.", {}).answer is None
    assert math.extract("The answer is 5.", {"extract": "relaxed"}).answer == "5"
