"""Exact match: case counts, white space and what is wrapped around the whole do not."""

from __future__ import annotations

import pytest

from evalcore.grading import GRADERS
from evalcore.grading.exact import quick

SAME = [
    ("Paris", "Paris"),
    ("New  York", " New York\n"),
    ("Paris.", "Paris"),
    ("**Paris**", "Paris"),
    ('"Paris."', "Paris"),
    ("“Paris”", "'Paris'"),
    (r"\text{Paris}", "Paris"),
    (r"$\textbf{New York}$", "New York"),
    ('**"New  York".**', "New York"),
    ("Cafe\u0301", "Caf\u00e9"),
    ("5.", "5"),
    ("f'", "f'"),
]

DIFFERENT = [
    ("paris", "Paris"),
    ("NewYork", "New York"),
    ("1.0", "1"),
    (".5", "5"),
    ("-5", "5"),
    ("$5", "5"),
    ("f'", "f"),
    ("...", ".."),
    ("*", ""),
    ('"a" or "b"', 'a" or "b "'),
    ("Cafe", "Caf\u00e9"),
]


@pytest.mark.parametrize(("answer", "expected"), SAME)
def test_same(answer: str, expected: str) -> None:
    assert quick(answer, expected, {}) == (True, "text")
    assert quick(expected, answer, {}) == (True, "text")


@pytest.mark.parametrize(("answer", "expected"), DIFFERENT)
def test_different(answer: str, expected: str) -> None:
    assert quick(answer, expected, {}) == (False, "text")
    assert quick(expected, answer, {}) == (False, "text")


def test_extract() -> None:
    extract = GRADERS["exact"].extract
    assert extract(r"It is \boxed{Paris}.", {}).answer == "Paris"
    assert extract("The answer is Paris.", {"extract": "relaxed"}).answer == "Paris"
    assert extract("The answer is Paris.", {}) == (None, "no box")
