r"""The rational value of an expression, if it has one: computed exactly, in bounded time and space.

>>> exact(parse(r"\frac{3}{4} + 2^{-2}"))
Fraction(1, 1)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

from evalcore.grading.math.nodes import Apply, Based, Node, Number, Quantity, Sequence

MAX_BITS = 1 << 16
"""A number with more bits is not computed."""
_MAX_FACTORIAL = 5000


class TooBig(Exception):
    """The value exists, and is too big to be computed."""


@lru_cache(maxsize=4096)
def exact(node: Node) -> Fraction | None:
    """The rational number that a node is, None if it is none or only algebra could tell.

    Raises:
        TooBig: it has more than MAX_BITS bits.
    """
    match node:
        case Number(value):
            return value
        case Based(digits, base):
            return Fraction(int(digits, base)) if _has_base(digits, base) else None
        case Sequence((only,), "[", "]"):
            return exact(only)
        case Quantity(value, _):
            return exact(value)
        case Apply(name, args):
            values = []
            for arg in args:
                value_ = exact(arg)
                if value_ is None:
                    return None
                values.append(value_)
            operation = _EXACT.get(name)
            return _bounded(operation(*values)) if operation else None
    return None


def _bounded(value: Fraction | None) -> Fraction | None:
    if value is not None and value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise TooBig("a number of too many digits")
    return value


def _has_base(digits: str, base: int) -> bool:
    return 2 <= base <= 36 and all(int(d) < base for d in digits)


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        root = _rational_root(base, exponent.denominator)
        return None if root is None else _power(root, Fraction(exponent.numerator))
    if base in (0, 1):
        return None if base == 0 and exponent <= 0 else base if base or exponent else None
    if base == -1:
        return Fraction(-1 if exponent.numerator % 2 else 1)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * bits > MAX_BITS:
        raise TooBig("a power of too many digits")
    return base ** int(exponent)


def _rational_root(value: Fraction, degree: int) -> Fraction | None:
    if value < 0 or degree > 64:
        return None
    roots = []
    for part in (value.numerator, value.denominator):
        root = _integer_root(part, degree)
        if root**degree != part:
            return None
        roots.append(root)
    return Fraction(*roots)


def _integer_root(value: int, degree: int) -> int:
    """The whole part of a root, by bisection."""
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**degree <= value else (low, middle - 1)
    return low


def _factorial(n: Fraction) -> Fraction | None:
    if n.denominator != 1 or n < 0:
        return None
    if n > _MAX_FACTORIAL:
        raise TooBig("a factorial of too many digits")
    result = 1
    for factor in range(2, int(n) + 1):
        result *= factor
    return Fraction(result)


def _binomial(n: Fraction, k: Fraction) -> Fraction | None:
    if n.denominator != 1 or k.denominator != 1 or n < 0:
        return None
    if k < 0 or k > n:
        return Fraction(0)
    k = min(k, n - k)
    if k * max(n.numerator.bit_length(), 1) > MAX_BITS:
        raise TooBig("a binomial of too many digits")
    result = 1
    for i in range(int(k)):
        result = result * (int(n) - i) // (i + 1)
    return Fraction(result)


def _whole(values: tuple[Fraction, ...]) -> bool:
    return all(value.denominator == 1 for value in values)


def _sum(*terms: Fraction) -> Fraction:
    total = Fraction(0)
    for term in terms:
        total += term
        _bounded(total)
    return total


def _times(*factors: Fraction) -> Fraction:
    total = Fraction(1)
    for factor in factors:
        total *= factor
        _bounded(total)
    return total


_EXACT: dict[str, Callable[..., Fraction | None]] = {
    "+": _sum,
    "*": _times,
    "neg": lambda a: -a,
    "/": lambda a, b: a / b if b else None,
    "^": _power,
    "sqrt": lambda a: _rational_root(a, 2),
    "root": lambda a, n: _rational_root(a, int(n)) if n.denominator == 1 and n > 0 else None,
    "abs": abs,
    "!": _factorial,
    "binom": _binomial,
    "floor": lambda a: Fraction(a.numerator // a.denominator),
    "ceil": lambda a: Fraction(-(-a.numerator // a.denominator)),
    "min": lambda *a: min(a),
    "max": lambda *a: max(a),
    "gcd": lambda *a: Fraction(math.gcd(*map(int, a))) if _whole(a) else None,
    "lcm": lambda *a: Fraction(math.lcm(*map(int, a))) if _whole(a) else None,
}
