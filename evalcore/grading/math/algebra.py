r"""The last stage: sympy, for what has no value at any point: integrals, limits, infinite sums.

The tree goes over node by node, through a table of the functions that are known; no text ever reaches sympy,
which would evaluate it as Python. Slow, and at times without end: only for processes that can be killed.
Importing this module takes a second.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import sympy

from evalcore.grading.math.nodes import Apply, Constant, Matrix, Node, Number, Quantity, Sequence, Symbol

_CONSTANTS: dict[str, Any] = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "+": sympy.Add,
    "*": sympy.Mul,
    "neg": lambda a: -a,
    "/": lambda a, b: a / b,
    "^": sympy.Pow,
    "sqrt": sympy.sqrt,
    "root": lambda a, n: sympy.Pow(a, 1 / n),
    "abs": sympy.Abs,
    "!": sympy.factorial,
    "binom": sympy.binomial,
    "exp": sympy.exp,
    "ln": sympy.log,
    "log": sympy.log,
    "lg": lambda a: sympy.log(a, 10),
    "floor": sympy.floor,
    "ceil": sympy.ceiling,
    "min": sympy.Min,
    "max": sympy.Max,
    **{
        name: getattr(sympy, name)
        for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")
    },
    **{f"arc{name}": getattr(sympy, f"a{name}") for name in ("sin", "cos", "tan", "cot")},
}


_DIGITS = 25
_ZERO, _CLEAR = 1e-18, 1e-6
"""What a difference is at the most, and at the least, to be none, or one."""


class Unknown(Exception):
    """A node that is no expression."""


def agree(left: Node, right: Node) -> bool | None:
    """Whether sympy simplifies the difference to zero, or to something else without variables; else None.

    What it cannot simplify is decided by its value, if that is clearly zero or clearly not.
    """
    try:
        difference = sympy.simplify((to_sympy(left) - to_sympy(right)).doit())
    except (Unknown, TypeError, ValueError, ZeroDivisionError, NotImplementedError):
        return None
    if difference == 0:
        return True
    if difference.free_symbols:
        return False if difference.is_zero is False else None
    if not difference.has(sympy.Integral, sympy.Sum, sympy.Limit, sympy.Product):
        return False
    size = _size(difference)
    if size is None or _ZERO < size < _CLEAR:
        return None
    return size <= _ZERO


def approximation(node: Node) -> Fraction | None:
    """The value of an integral, a sum or a limit to some twenty digits; None if it has none."""
    try:
        value = sympy.N(to_sympy(node).doit(), _DIGITS)
    except (Unknown, TypeError, ValueError, ZeroDivisionError, NotImplementedError):
        return None
    return Fraction(str(value)) if value.is_Float else None


def _size(difference: Any) -> float | None:
    value = abs(sympy.N(difference, _DIGITS))
    return float(value) if value.is_Float else None


def to_sympy(node: Node) -> Any:
    """The sympy expression of a scalar node.

    Raises:
        Unknown: it has a part that is none.
    """
    match node:
        case Number(value):
            return sympy.Rational(value.numerator, value.denominator)
        case Symbol(name):
            return sympy.Symbol(name, real=True)
        case Constant(name):
            return _CONSTANTS[name]
        case Quantity(value, "deg"):
            return to_sympy(value) * sympy.pi / 180
        case Quantity(value, "%"):
            return to_sympy(value) / 100
        case Quantity(value, _) | Sequence((value,), "[", "]"):
            return to_sympy(value)
        case Apply("det", (Matrix(rows),)):
            return sympy.Matrix([[to_sympy(cell) for cell in row] for row in rows]).det()
        case Apply("lim", (body, Symbol() as variable, point)):
            return sympy.Limit(
                to_sympy(body), to_sympy(variable), to_sympy(point), "+-" if _finite(point) else "-"
            )
        case Apply("int", (body, Symbol() as variable)):
            return sympy.Integral(to_sympy(body), to_sympy(variable))
        case Apply("int" | "sum" | "prod" as name, (body, Symbol() as variable, low, high)):
            kind = {"int": sympy.Integral, "sum": sympy.Sum, "prod": sympy.Product}[name]
            return kind(to_sympy(body), (to_sympy(variable), to_sympy(low), to_sympy(high)))
        case Apply(name, args) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*map(to_sympy, args))
    raise Unknown(type(node).__name__)


def _finite(point: Node) -> bool:
    return Constant("oo") not in (point, *getattr(point, "args", ()))
