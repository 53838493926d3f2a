"""Exact match: case counts, the amount of white space does not."""

from __future__ import annotations

import pytest

from evalcore.grading.exact import extract, quick


@pytest.mark.parametrize(
    ("answer", "expected", "equal"),
    [
        ("Paris", "Paris", True),
        ("New  York", " New York\n", True),
        ("paris", "Paris", False),
        ("NewYork", "New York", False),
        ("1.0", "1", False),
    ],
)
def test_quick(answer: str, expected: str, equal: bool) -> None:
    assert quick(answer, expected) == (equal, "text")


def test_extract() -> None:
    assert extract(r"It is \boxed{Paris}.", {}).answer == "Paris"
    assert extract("The answer is Paris.", {"extract": "relaxed"}).answer == "Paris"
    assert extract("The answer is Paris.", {}) == (None, "no box")
