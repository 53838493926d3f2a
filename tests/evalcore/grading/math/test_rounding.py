"""Where a decimal begins and ceases to stand for another number: on both sides of each threshold."""

from __future__ import annotations

from fractions import Fraction

import pytest

from evalcore.grading.math.nodes import Number
from evalcore.grading.math.rounding import within


@pytest.mark.parametrize(
    ("shown", "value", "stands"),
    [
        ("0.67", "2/3", True),
        ("0.66", "2/3", False),
        ("0.666667", "2/3", True),
        # Cut off: from six digits on, and towards zero only.
        ("0.666666", "2/3", True),
        ("-0.666666", "-2/3", True),
        ("0.66666", "2/3", False),
        ("0.333334", "1/3", False),
        ("-0.333334", "-1/3", False),
        # The last digits of a binary float are noise: from twelve digits on, up to 1e-11 of the value.
        ("0.333333333335", "1/3", True),
        ("0.333333333339", "1/3", False),
        ("0.99999999999", "0.999999999981", False),
        ("0.999999999990", "0.999999999981", True),
    ],
)
def test_what_a_decimal_stands_for(shown: str, value: str, stands: bool) -> None:
    digits = len(shown.lstrip("-").removeprefix("0."))
    number = Number(abs(Fraction(shown)), digits, digits)
    assert within(number, Fraction(value), Fraction(shown)) is stands
