r"""Numbers as they are written: ``1.50``, ``6.02e23``, ``0.1\overline{6}``, ``0.333…``."""

from __future__ import annotations

import re
from fractions import Fraction

from evalcore.grading.math.lexer import Unreadable
from evalcore.grading.math.nodes import Number

_MOST_EXPONENT = 400
_LONGEST_PERIOD = 50


def number_of(text: str) -> Number:
    """The number that digits write: exact, with the places and significant digits it shows."""
    mantissa, _, exponent = text.lower().partition("e")
    if len(exponent.lstrip("+-")) > 3 or abs(int(exponent or 0)) > _MOST_EXPONENT:
        raise Unreadable("an exponent that is too big")
    whole, _point, places = mantissa.partition(".")
    value = Fraction(f"{whole or 0}.{places or 0}") * Fraction(10) ** int(exponent or 0)
    digits = len((whole + places).lstrip("0"))
    if not places:
        return Number(value, None, digits)
    return Number(value, len(places) - int(exponent or 0), digits)


def repeating(text: str, period: str) -> Number:
    r"""``0.1\overline{6}``: the digits under the bar go on for ever."""
    whole, point, places = text.partition(".")
    if not point or not period.isdigit() or len(period) > _LONGEST_PERIOD:
        raise Unreadable("a bar over what is no decimal")
    return Number(Fraction(f"{whole or 0}.{places or 0}") + _tail(period, len(places)))


def going_on(text: str) -> Number:
    """``0.333…``: the last digits repeat, three times at least."""
    match = re.fullmatch(r"(\d*\.\d*?)(\d{1,6}?)\2{2,}", text)
    if match is None:
        raise Unreadable("a number that goes on")
    return Number(Fraction(match[1] + "0") + _tail(match[2], len(match[1].partition(".")[2])))


def _tail(period: str, places: int) -> Fraction:
    """What a period behind so many places comes to."""
    return Fraction(int(period), 10**places * (10 ** len(period) - 1))
