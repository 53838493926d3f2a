"""What is too big is refused before it is parsed, and what only becomes too big before it is computed."""

from __future__ import annotations

import time

import pytest

from evalcore.grading import math
from evalcore.grading.math.bounds import (
    MAX_CELLS,
    MAX_DIGITS,
    MAX_ITEMS,
    MAX_LENGTH,
    MAX_NESTING,
    out_of_bounds,
)

SEPARATORS = [",", ";", ", ", " or ", "and", " U ", "∪", r"\cup", r"\cap ", r"\lor ", r"\wedge ", r"\\"]
BIG = [
    ("{" * 1_000, "nested too deep"),
    (" " * 100_000 + "1", "too long"),
    ("1" * 1_000_000, "too long"),
    ("1" * (MAX_DIGITS + 1), "digits"),
    ("1,2" * 201, "too many items (202)"),
    *[(separator.join(["1"] * 202), "too many items (202)") for separator in SEPARATORS],
    ("&" * 200, "too many cells"),
    ("2^" * 200 + "2", "too many powers"),
]
LIMITS = [
    ("x" * MAX_LENGTH, "x"),
    ("(" * MAX_NESTING + ")" * MAX_NESTING, "("),
    ("1" * MAX_DIGITS, "1"),
    ("&" * MAX_CELLS, "&"),
    ("," * MAX_ITEMS, ","),
]
GROWING = [
    "10^{10^{10}}",
    "10**10**10**10",
    "((((10!)!)!)!)",
    "1000000!",
    r"\binom{10^6}{500000}",
    "e^{e^{e^{e^{10}}}}",
    r"\sin(10^{100000})",
    "2^{65535} \\cdot 2^{65535}",
    "(10^{10^{5}})!",
    r"\prod_{k=1}^{2000} k^k",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}^{10^9}",
    "1/" * 900 + "1",
    "(x+1)^{1000}",
    "x^{x^{x^{x^{x}}}}",
    ",".join(rf"\pm {i}" for i in range(150)),
    r"[0,1]" + r"\cup[2,3]" * 100,
    r"\frac{1}{" * 20 + "0" + "}" * 20,
]
CODE = ["__import__('os').system('id')", "(lambda: 1)()", "x.__class__", "exec('1')", "1 if 1 else 2"]


@pytest.mark.parametrize(("text", "reason"), BIG, ids=range(len(BIG)))
def test_what_is_too_big_is_undecided_unless_it_is_the_same(text: str, reason: str) -> None:
    equality = math.quick(text, "5", {})
    assert equality is not None
    assert equality.equal is None
    assert reason in equality.reason
    assert math.quick("5", text, {}) == equality
    assert math.quick(text, text, {}) == (True, "text")


@pytest.mark.parametrize(("text", "one_more"), LIMITS, ids=[one for _, one in LIMITS])
def test_the_limits_are_where_they_say(text: str, one_more: str) -> None:
    assert out_of_bounds(text) is None
    assert out_of_bounds(one_more + text) is not None


@pytest.mark.parametrize("text", GROWING, ids=range(len(GROWING)))
def test_what_would_grow_is_never_computed(text: str) -> None:
    started = time.process_time()
    for other in ("5", "x^2+1", r"\{1, 2\}", "[0, 1)", r"\sqrt 2"):
        for pair in ((text, other), (other, text)):
            equality = math.quick(*pair, {}) or math.thorough(*pair, {})
            assert not equality.equal
    assert time.process_time() - started < 20


@pytest.mark.parametrize("text", CODE)
def test_code_is_text(text: str) -> None:
    equality = math.thorough(text, "1", {})
    assert not equality.equal


def test_a_huge_number_differs_from_what_can_be_written_out() -> None:
    assert math.thorough("10^{10^{10^{10}}}", "10^{10}", {}).equal is False
    assert math.thorough("10^{10^{11}}", "10^{10^{12}}", {}).equal is None
