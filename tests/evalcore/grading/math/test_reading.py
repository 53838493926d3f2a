"""How answers are read: spelling, the grammar, and what it refuses."""

from __future__ import annotations

from fractions import Fraction

import pytest

from evalcore.grading.math.answers import is_name, parse, unit_of, words_of
from evalcore.grading.math.display import display
from evalcore.grading.math.lexer import Unreadable
from evalcore.grading.math.nodes import Number
from evalcore.grading.math.spelling import normalize, squeezed

SPELLINGS = [
    ("$1,234$", "1,234"),
    (r"1\,234", "1234"),
    (r"32,\! 349", "32,349"),
    ("1{,}234.5", "1,234.5"),
    ("1 234 567", "1234567"),
    (r"\dfrac{1}{2}", r"\frac{1}{2}"),
    (r"\frac12", r"\frac{1}{2}"),
    (r"\left( 1 , 2 \right)", "( 1 , 2 )"),
    ("x = 5.", "x = 5"),
    (r"\\frac{1}{2}", r"\frac{1}{2}"),
    (r"\begin{pmatrix} 1 \\ a \end{pmatrix}", r"\begin{pmatrix} 1 \\ a \end{pmatrix}"),
    (r"\text{east}", r"\text{east}"),
    (r"\(x\)", "x"),
    ("odd $n$", "odd n"),
    ("12$", "12"),
    (r"\$5", r"\$5"),
    ("0.333...", "0.333..."),
    ("−5", "-5"),
    ("", ""),
]

READINGS = [
    ("2x^10", "2 * (x^10)"),
    ("-x^2", "-(x^2)"),
    ("2^3^2", "2^(3^2)"),
    ("1/2x", "(1 / 2) * x"),
    ("a_{37}", "a_37"),
    (r"I_{\max }", "I_max"),
    (r"v^2_0", "v_0^2"),
    ("f'", "f'"),
    (r"\sin 2x \cos x", "sin(2 * x) * cos(x)"),
    (r"\sin^2 x", "sin(x)^2"),
    (r"\sin^{-1} x", "arcsin(x)"),
    ("log2(8)", "log(8, 2)"),
    (r"\log_{10} x", "log(x, 10)"),
    (r"\sqrt[3]{x}", "root(x, 3)"),
    ("2√5", "2 * sqrt(5)"),
    ("|x-2|", "abs(x + (-2))"),
    (r"1\frac{4}{5}", "9/5"),
    (r"2\frac{x}{3}", "2 * (x / 3)"),
    ("1 1/2", "3/2"),
    ("1,234", "1234"),
    ("(1,234)", "(1, 234)"),
    (r"31.\overline{6}", "95/3"),
    ("0.333...", "1/3"),
    ("1.5e-3", "3/2000"),
    ("204_5", "204 in base 5"),
    (r"50\%", "50 [%]"),
    ("90°", "90 [deg]"),
    (r"\$5", "5 [$]"),
    (r"10\text{ square inches}", "10 [in 2]"),
    ("5 apples", "5 [apple]"),
    ("x=1, 2", "2 answers: x = 1, 2"),
    ("19, 46, and 82", "3 answers: 19, 46, 82"),
    (r"1 \pm \sqrt{2}", "1 ± sqrt(2)"),
    (r"(-\infty, 1] \cup [2, \infty)", "(-∞, 1] ∪ [2, ∞)"),
    ("(0,1) U (1,2)", "(0, 1) ∪ (1, 2)"),
    ("1 < x <= 3", "1 < x <= 3"),
    (r"\{1, 2\}", "{1, 2}"),
    (r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}", "matrix[1, 2; 3, 4]"),
    (r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}", "det(matrix[1, 2; 3, 4])"),
    (r"\sum_{i=1}^{n} i^2", "sum(i^2, i, 1, n)"),
    (r"\int_0^1 x^2 \, dx", "int(x^2, x, 0, 1)"),
    (r"\lim_{x \to 0} \frac{1}{x}", "lim(1 / x, x, 0)"),
    (r"{5 \choose 2}", "binom(5, 2)"),
    (r"\text{(E)}", "words 'e'"),
    ("No solution", "words 'no solution'"),
    ("All real numbers", "mathbb R"),
]

REFUSED = [
    "",
    "1 2 3",
    "x +",
    "(1, 2",
    "2_{x}5",
    r"\frac{1}{",
    r"\begin{pmatrix}1&2\\3\end{pmatrix}",
    "#",
    "1 = = 2",
]


@pytest.mark.parametrize(("text", "normal"), SPELLINGS)
def test_spelling(text: str, normal: str) -> None:
    assert normalize(text) == normal


def test_spaces_between_letters_or_digits_stay() -> None:
    assert squeezed("( 1 , 2 ) 1 1/2 x y") == "(1,2)1 1/2 x y"


@pytest.mark.parametrize(("text", "reading"), READINGS)
def test_reading(text: str, reading: str) -> None:
    assert display(parse(normalize(text))) == reading


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_formula_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        parse(text)


@pytest.mark.parametrize(
    ("text", "places", "digits"), [("1.50", 2, 3), ("0.005", 3, 1), ("1.5e3", -2, 2), ("12", None, 2)]
)
def test_a_number_remembers_the_digits_it_shows(text: str, places: int | None, digits: int) -> None:
    number = parse(text)
    assert isinstance(number, Number)
    assert (number.value, number.places, number.digits) == (Fraction(text), places, digits)


@pytest.mark.parametrize(
    "text", ["x", "f(x)", "AB", r"\angle ABC", "(p, q)", "a_{37}", "P(A)", "f^{-1}(x)", "|AB|"]
)
def test_a_name(text: str) -> None:
    assert is_name(parse(text))


@pytest.mark.parametrize("text", ["2x", "x+y", "xy", "x^2", "5", r"\sin x"])
def test_no_name(text: str) -> None:
    assert not is_name(parse(text))


def test_units_have_one_name() -> None:
    assert {unit_of(text) for text in ("inches", "Inch", "inch")} == {"in"}
    assert {unit_of(text) for text in ("percent", "pct", "percentage points")} == {"%"}


def test_words_lose_their_dress_and_no_letter() -> None:
    assert words_of(r"\textbf{(East)}") == words_of("east.") == "east"
    assert words_of(r"\text{oddd}") == "oddd"
