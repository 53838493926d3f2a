"""What holds for all answers: the same verdict both ways round, and an end to every comparison."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalcore.grading import math
from evalcore.grading.math.answers import parse
from evalcore.grading.math.display import display
from evalcore.grading.math.lexer import Unreadable
from evalcore.grading.math.spelling import normalize, squeezed
from evalcore.grading.math.voting import key

pytestmark = pytest.mark.slow

SCRAPS = [
    *r"0123456789+-*/^_=<>(){}[]|,;:.!%&'$ xyzabeidfnAB", "\\", "\n",
    r"\frac", r"\sqrt", r"\text{", r"\pi", r"\infty", r"\cup", r"\in ", r"\le ", r"\pm ", r"\sin", r"\log",
    r"\begin{pmatrix}", r"\end{pmatrix}", r"\\", r"\{", r"\}", r"\left(", r"\right)", r"\sum", r"\int",
    r"\overline", r"\circ", r"\%", " and ", " or ", "sqrt", "inf", "10^", "**",
]  # fmt: skip
SOUP = st.lists(st.sampled_from(SCRAPS), max_size=24).map("".join)
INTEGERS = st.integers(-50, 50).filter(bool)


@settings(max_examples=400, deadline=None)
@given(SOUP, SOUP)
def test_whatever_is_written_ends_soon_and_is_symmetric(left: str, right: str) -> None:
    started = time.process_time()
    one, other = (math.quick(a, b, {}) or math.thorough(a, b, {}) for a, b in ((left, right), (right, left)))
    assert time.process_time() - started < 5
    assert one.equal is other.equal


@settings(max_examples=400, deadline=None)
@given(SOUP)
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    try:
        node = parse(normalize(text))
    except Unreadable:
        return
    assert display(node)
    assert key(text, {}) == key(text, {})


@given(st.text(max_size=40))
def test_spelling_twice_changes_nothing_more(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once or "$" in text or "\\" in text
    assert squeezed(squeezed(once)) == squeezed(once)


@settings(deadline=None)
@given(INTEGERS, INTEGERS, INTEGERS, INTEGERS)
def test_a_product_equals_its_expansion_and_no_other(a: int, b: int, c: int, d: int) -> None:
    product = f"({a}x + {b})({c}x + {d})".replace("+ -", "- ")
    expanded = f"{a * c}x^2 + {a * d + b * c}x + {b * d}".replace("+ -", "- ")
    other = f"{a * c}x^2 + {a * d + b * c}x + {b * d + 1}".replace("+ -", "- ")
    assert math.thorough(product, expanded, {}).equal is True
    assert math.thorough(product, other, {}).equal is False


@settings(deadline=None)
@given(st.fractions(max_denominator=500), st.integers(1, 60))
def test_a_fraction_equals_itself_in_any_spelling(value: Fraction, factor: int) -> None:
    top, bottom = value.numerator, value.denominator
    spellings = [
        f"\\frac{{{top}}}{{{bottom}}}",
        f"{top * factor}/{bottom * factor}",
        f"-\\dfrac{{{-top}}}{{{bottom}}}",
        f"{top} \\cdot {bottom}^{{-1}}",
        f"\\left( {top} \\div {bottom} \\right)",
    ]
    wrong = f"{top * factor + 1}/{bottom * factor}"
    for spelling in spellings:
        equality = math.quick(spelling, str(value), {}) or math.thorough(spelling, str(value), {})
        assert equality.equal is True, spelling
        equality = math.quick(spelling, wrong, {}) or math.thorough(spelling, wrong, {})
        assert equality.equal is False, spelling


@settings(deadline=None)
@given(st.lists(INTEGERS, min_size=2, max_size=6, unique=True), st.randoms())
def test_answers_have_no_order_and_tuples_have(values: list[int], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    listed, mixed = ", ".join(map(str, values)), ", ".join(map(str, shuffled))
    assert math.thorough(f"x = {listed}", f"\\{{{mixed}\\}}", {}).equal is True
    assert math.thorough(f"({listed})", f"({mixed})", {}).equal is (values == shuffled)
    assert math.thorough(listed, ", ".join(map(str, [*shuffled[:-1], 99])), {}).equal is False


@settings(deadline=None)
@given(INTEGERS, st.integers(2, 40), st.integers(1, 9))
def test_equal_answers_have_one_vote(a: int, root: int, factor: int) -> None:
    one = key(f"{a}\\sqrt{{{root}}}", {})
    assert one == key(f"\\frac{{{a * factor}\\sqrt{{{root * factor * factor}}}}}{{{factor * factor}}}", {})
    assert one != key(f"{a + 1}\\sqrt{{{root}}}", {})
