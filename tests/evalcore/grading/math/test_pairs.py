"""Every pair is compared both ways round: the verdict may not depend on which is the reference."""

from __future__ import annotations

import pytest

from evalcore.grading import math
from math_pairs import DIFFERENT, EQUAL


def verdict(answer: str, expected: str) -> bool | None:
    equality = math.quick(answer, expected, {}) or math.thorough(answer, expected, {})
    return equality.equal


@pytest.mark.parametrize(("left", "right"), EQUAL)
def test_equal(left: str, right: str) -> None:
    assert verdict(left, right) is True
    assert verdict(right, left) is True


@pytest.mark.parametrize(("left", "right"), DIFFERENT)
def test_different(left: str, right: str) -> None:
    assert verdict(left, right) is False
    assert verdict(right, left) is False
