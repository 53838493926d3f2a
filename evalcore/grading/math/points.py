r"""Values of expressions to many digits, at random points where they have variables.

>>> agree(parse("(x+1)^2"), parse("x^2+2x+1"))
True

Two expressions that agree to 30 digits at several random points are the same function but for a
probability nobody will see (Schwartz 1980 for polynomials; the same idea here for all functions), and one
clear difference is a proof that they are not. Everything is bounded: numbers that grow too big end in
``TooBig`` before they are computed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import mpmath
from mpmath import mp, mpf

from evalcore.grading.math.exact import MAX_BITS, TooBig, exact
from evalcore.grading.math.nodes import (
    Apply,
    Based,
    Constant,
    Matrix,
    Node,
    Number,
    Quantity,
    Sequence,
    Symbol,
    replace,
    symbols,
    walk,
)

_MAX_EXPONENT = 1 << 40
"""A value with a larger logarithm is not computed."""

_DIGITS = 150
_AGREEING = 100
# Without variables there is one point only, so that it has to say more.
_DIGITS_OF_CONSTANTS = 160
_AGREEING_OF_CONSTANTS = 100
_POINTS = 4
_SCALES = (1, 1, 300, 3000)  # |x - 100| is 100 - x near zero alone
_HUGE, _HUGEST = 25, 4000  # digits before the point
_SHOWN = 60
_LARGEST_DENOMINATOR = 10**9
_RATIONAL_BITS = 200  # as many as _SHOWN digits have; a fraction of a larger number has millions of digits
_TRIES = 24
_FAR = (-1, 3, -10_007, 99_991)  # |x| and |x - 100| are no lines

Value = Any
"""mpf or mpc; mpmath has no types."""


class Undefined(Exception):
    """There is no value at this point, or none that this module can compute."""


# --- at a point ------------------------------------------------------------------------------------------


def evaluate(node: Node, point: Mapping[str, Value]) -> Value:
    """The value of a scalar where its variables have the values of ``point``; a matrix for one.

    Raises:
        Undefined: it has none there, or is no scalar.
        TooBig: its logarithm is beyond all reason.
    """
    match node:
        case Number(value):
            return mpf(value.numerator) / value.denominator
        case Symbol(name):
            return point[name]
        case Constant("pi"):
            return +mp.pi
        case Constant("e"):
            return +mp.e
        case Constant("i"):
            return mpmath.mpc(0, 1)
        case Quantity(value, "deg"):
            return evaluate(value, point) * mp.pi / 180
        case Quantity(value, "%"):
            return evaluate(value, point) / 100
        case Quantity(value, _):
            return evaluate(value, point)
        case Sequence((only,), "[", "]"):
            return evaluate(only, point)
        case Based():
            value_ = exact(node)
            if value_ is None:
                raise Undefined("digits of another base")
            return mpf(value_.numerator)
        case Matrix(rows):
            return mp.matrix([[evaluate(cell, point) for cell in row] for row in rows])
        case Apply("sum" | "prod" as name, (body, Symbol(variable), low, high)):
            return _finite(name, body, variable, evaluate(low, point), evaluate(high, point), point)
        case Apply(name, args):
            operation = _OPERATIONS.get(name)
            if operation is None:
                raise Undefined(f"no value of {name}")
            values = [evaluate(arg, point) for arg in args]
            try:
                return _checked(operation(*values))
            except (ZeroDivisionError, ValueError, OverflowError, TypeError, NotImplementedError) as error:
                raise Undefined(f"{name}: {error}") from error
    raise Undefined(f"no value of a {type(node).__name__}")


def _checked(value: Value) -> Value:
    if isinstance(value, mpmath.matrix):
        return value
    if not mpmath.isfinite(value):
        raise Undefined("not finite")
    if value and abs(mpmath.mag(value)) > _MAX_EXPONENT:
        raise TooBig("a value beyond all reason")
    return value


def _finite(
    name: str, body: Node, variable: str, low: Value, high: Value, point: Mapping[str, Value]
) -> Value:
    """A finite sum or product with few terms."""
    if not (mpmath.isint(low) and mpmath.isint(high)) or high - low > 2000:
        raise Undefined("a sum over what is not finite and small")
    total = mpf(0 if name == "sum" else 1)
    for i in range(int(low), int(high) + 1):
        term = evaluate(body, {**point, variable: mpf(i)})
        total = total + term if name == "sum" else total * term
    return total


def _raise(base: Value, exponent: Value) -> Value:
    if isinstance(base, mpmath.matrix):
        if not mpmath.isint(exponent) or abs(exponent) > 100:
            raise Undefined("a power of a matrix")
        return base ** int(exponent)
    if base == 0:
        if mpmath.re(exponent) <= 0:
            raise Undefined("zero to the power of zero or less")
        return mpf(0)
    if abs(exponent) * max(1, abs(mpmath.mag(base))) > _MAX_EXPONENT:
        raise TooBig("a power beyond all reason")
    if not mpmath.im(base) and mpmath.re(base) < 0 and not mpmath.im(exponent):
        # (-8)^{1/3} is -2 to everybody but a complex analyst.
        for odd in (3, 5, 7):
            if mpmath.almosteq(exponent * odd, mpmath.nint(exponent * odd)) and not mpmath.isint(exponent):
                sign = -1 if int(mpmath.nint(exponent * odd)) % 2 else 1
                return sign * mpmath.power(-base, exponent)
    return mpmath.power(base, exponent)


def _root(value: Value, degree: Value) -> Value:
    return _raise(value, 1 / mpf(degree))


def _fact(value: Value) -> Value:
    if mpmath.im(value) or abs(value) > 1 << 32:
        raise TooBig("a factorial beyond all reason")
    return mpmath.factorial(value)


def _exp(value: Value) -> Value:
    if abs(value) > _MAX_EXPONENT:
        raise TooBig("a power beyond all reason")
    return mpmath.exp(value)


def _trigonometric(function: Callable[[Value], Value]) -> Callable[[Value], Value]:
    def bounded(value: Value) -> Value:
        if abs(value) > 1 << 64:
            raise TooBig("an angle beyond all reason")
        return function(value)

    return bounded


def _plus(*terms: Value) -> Value:
    total = terms[0]
    for term in terms[1:]:
        if isinstance(term, mpmath.matrix) != isinstance(total, mpmath.matrix):
            raise TypeError("a matrix and a number")  # mpmath adds it to each cell
        total = total + term
    return total


def _product(*factors: Value) -> Value:
    total = factors[0]
    for factor in factors[1:]:
        total = _checked(total * factor)
    return total


def _binom(n: Value, k: Value) -> Value:
    if max(abs(n), abs(k)) > 1 << 32:
        raise TooBig("a binomial beyond all reason")
    return mpmath.binomial(n, k)


_OPERATIONS: dict[str, Callable[..., Value]] = {
    "+": _plus,
    "*": _product,
    "neg": lambda a: -a,
    "/": lambda a, b: a / b,
    "^": _raise,
    "sqrt": mpmath.sqrt,
    "root": _root,
    "abs": abs,
    "!": _fact,
    "binom": _binom,
    "det": mpmath.det,
    "exp": _exp,
    "ln": mpmath.log,
    "log": mpmath.log,
    "lg": mpmath.log10,
    "floor": mpmath.floor,
    "ceil": mpmath.ceil,
    "sgn": mpmath.sign,
    "re": mpmath.re,
    "im": mpmath.im,
    "arg": mpmath.arg,
    "min": lambda *a: min(a),
    "max": lambda *a: max(a),
    "arccot": mpmath.acot,
    "arsinh": mpmath.asinh,
    "arcosh": mpmath.acosh,
    "artanh": mpmath.atanh,
    **{
        name: _trigonometric(getattr(mpmath, name))
        for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")
    },
    **{f"arc{name}": getattr(mpmath, f"a{name}") for name in ("sin", "cos", "tan")},
}


# --- comparing -------------------------------------------------------------------------------------------


def agree(left: Node, right: Node) -> bool | None:
    """Whether two expressions have the same values; None where too few points could be computed.

    Raises:
        TooBig: a value without variables is beyond all reason.
    """
    return _at_points(left, right, _equal)


def proportional(left: Node, right: Node, *, positive: bool = False) -> bool | None:
    """Whether one is a constant multiple of the other, so that both vanish at the same points.

    positive: whether the factor must be, as for ``left > 0`` and ``right > 0``.
    """
    ratios: list[Value] = []

    def same_ratio(a: Value, b: Value, agreeing: int) -> bool | None:
        vanishing = [abs(side) < mpf(10) ** -agreeing for side in (a, b)]
        if any(vanishing):
            return None if all(vanishing) else False
        ratios.append(a / b)
        return _equal(ratios[0], ratios[-1], agreeing) and (not positive or mpmath.re(ratios[0]) > 0)

    return _at_points(left, right, same_ratio)


def _at_points(left: Node, right: Node, compare: Callable[[Value, Value, int], bool | None]) -> bool | None:
    names = sorted(symbols(left) | symbols(right))
    imaginary = any(n == Constant("i") for side in (left, right) for n in walk(side))
    digits, agreeing = (_DIGITS, _AGREEING) if names else (_DIGITS_OF_CONSTANTS, _AGREEING_OF_CONSTANTS)
    agreed = 0
    outside: list[tuple[Value, Value]] = []
    with mp.workdps(digits):
        for attempt in range(_TRIES if names else 1):
            point = {name: _coordinate(name, attempt) for name in names}
            try:
                a, b = evaluate(left, point), evaluate(right, point)
            except Undefined:
                continue
            except TooBig:
                if not names:
                    raise
                continue
            if not imaginary and names and not (_is_real(a) and _is_real(b)):
                outside.append((a, b))  # where a root of a negative number shows
                continue
            if not names and max(_sizes(a, b)) < mpf(10) ** (10 - digits):
                # Nothing is left of terms that cancel; or it is that small: more digits tell.
                with mp.workdps(4 * digits):
                    a, b = evaluate(left, point), evaluate(right, point)
                    return compare(a, b, agreeing)
            if not names and (more := _digits_of_size(a, b)):
                # The root of a huge square and one differs from its side in far places only.
                with mp.workdps(digits + more):
                    a, b = evaluate(left, point), evaluate(right, point)
                    return compare(a, b, agreeing + more)
            same = compare(a, b, agreeing)
            if same is False:
                return False
            agreed += bool(same)
            if agreed >= (_POINTS if names else 1):
                return True
        if agreed:
            return True
        verdicts = [compare(a, b, agreeing) for a, b in outside[:_POINTS]]
    if False in verdicts:
        return False
    return True if any(verdicts) else None


def _digits_of_size(*values: Value) -> int:
    """How many digits more tell huge numbers apart: thrice those before the point; 0 for what is not huge.

    Raises:
        TooBig: more than can be had.
    """
    before = max(0, *(mpmath.mag(size) for size in _sizes(*values) if size)) * 0.302
    if before < _HUGE:
        return 0
    if before > _HUGEST:
        raise TooBig("two numbers of too many digits")
    return int(3 * before)


def _sizes(*values: Value) -> list[Value]:
    return [mpf(1) if isinstance(value, mpmath.matrix) else abs(value) for value in values]


def _is_real(value: Value) -> bool:
    if isinstance(value, mpmath.matrix):
        return True
    return bool(abs(mpmath.im(value)) <= abs(value) * mpf(10) ** -_AGREEING)


def _equal(a: Value, b: Value, agreeing: int) -> bool:
    if isinstance(a, mpmath.matrix) or isinstance(b, mpmath.matrix):
        if not (isinstance(a, mpmath.matrix) and isinstance(b, mpmath.matrix)):
            return False
        same_shape = (a.rows, a.cols) == (b.rows, b.cols)
        return same_shape and all(
            _equal(a[i, j], b[i, j], agreeing) for i in range(a.rows) for j in range(a.cols)
        )
    size = max(abs(a), abs(b))
    # What cancels to nothing leaves rounding errors of the size of its terms, here near 1.
    return bool(abs(a - b) <= size * mpf(10) ** -agreeing or size < mpf(10) ** (10 - mp.dps))


def _coordinate(name: str, attempt: int) -> Value:
    """A random number, the same on any machine: between 0.2 and 2.2, then farther out; its sign may be minus.

    Half of the points are positive throughout: where roots and logarithms have their domain.
    """
    digest = hashlib.sha256(f"{attempt}:{name}".encode()).digest()
    value = mpf(int.from_bytes(digest[:12], "big")) / (1 << 96) * 2 + mpf("0.2")
    value *= _SCALES[attempt % len(_SCALES)]
    return -value if attempt % 2 and digest[12] % 2 else value


def approximation(node: Node) -> Fraction | None:
    """The value of a real expression without variables to some forty digits; None if it has none."""
    if symbols(node):
        return None
    with mp.workdps(_DIGITS):
        try:
            value = evaluate(node, {})
            if isinstance(value, mpmath.matrix) or not _is_real(value):
                return None
            sign, mantissa, exponent, _ = mpmath.re(value)._mpf_
        except (Undefined, TooBig):
            return None
    if abs(exponent) > MAX_BITS:
        return None
    size: Fraction = Fraction(mantissa) * Fraction(2) ** exponent
    return -size if sign else size


def line(node: Node, variable: str) -> tuple[bool, Node] | None:
    """Whether a linear expression rises, and its root; None if it is no line of one variable."""
    at = [_value_at(node, variable, x) for x in (0, 1, *_FAR)]
    if any(value is None for value in at):
        return None
    zero, one, *far = (value for value in at if value is not None)
    slope = one - zero
    if slope == 0 or any(value != zero + x * slope for x, value in zip(_FAR, far, strict=True)):
        return None
    return slope > 0, Number(-zero / slope)


def _value_at(node: Node, variable: str, x: int) -> Fraction | None:
    return exact(replace(node, Symbol(variable), Number(Fraction(x))))


def values(node: Node, *, up_to_factor: str = "") -> str | None:
    """The values at as many points as ``agree`` wants, as text; None if there are none.

    Rational values (of constants, and of what is constant) as fractions, others to 60 digits.

    up_to_factor: ``any`` or ``positive``: instead of them their ratios to the first, for ``positive`` its sign, too.

    Raises:
        TooBig: a value without variables is beyond all reason.
    """
    names = sorted(symbols(node))
    found: list[tuple[int, Value]] = []
    with mp.workdps(_DIGITS):
        for attempt in range(_TRIES if names else 1):
            try:
                value = evaluate(node, {name: _coordinate(name, attempt) for name in names})
            except Undefined:
                continue
            except TooBig:
                if not names:
                    raise
                continue
            if isinstance(value, mpmath.matrix):
                return None if names else _shown_matrix(value)
            value = _without_noise(node, value, constant=not names)
            if (names and not _is_real(value)) or (up_to_factor and not value):
                continue
            found.append((attempt, value))
            if len(found) == _POINTS:
                break
        if up_to_factor and len(found) > 1:
            (first, one), *others = found
            sign = "-" if up_to_factor == "positive" and mpmath.re(one) < 0 else ""
            ratios = (f"{attempt}:{_shown(value / one)}" for attempt, value in others)
            return f"{sign}{first} {' '.join(ratios)}"
        shown = {attempt: _shown(value) for attempt, value in found}
        if len(set(shown.values())) == 1:
            return next(iter(shown.values()))
        return " ".join(f"{attempt}:{text}" for attempt, text in shown.items()) or None


def _without_noise(node: Node, value: Value, *, constant: bool) -> Value:
    """0 where terms cancel and leave nothing but their rounding errors; as ``_at_points`` tells."""
    if not value or abs(value) >= mpf(10) ** (10 - mp.dps):
        return value
    if constant:  # or it is that small: more digits tell
        with mp.workdps(4 * mp.dps):
            return _without_noise(node, evaluate(node, {}), constant=False)
    return mpf(0)


def _shown(value: Value) -> str:
    real, imaginary = mpmath.re(value), mpmath.im(value)
    noise = abs(value) * mpf(10) ** -_AGREEING
    if abs(imaginary) > noise:
        return f"{_shown(real if abs(real) > noise else mpf(0))}+{_shown(imaginary)}i"
    if real and abs(mpmath.mag(real)) > _RATIONAL_BITS:
        return str(mpmath.nstr(real, _SHOWN))
    rough = Fraction(mpmath.nstr(real, _SHOWN)).limit_denominator(_LARGEST_DENOMINATOR)
    exactly = mpf(rough.numerator) / rough.denominator
    if abs(real - exactly) <= abs(real) * mpf(10) ** -_AGREEING:
        return str(rough)
    return str(mpmath.nstr(real, _SHOWN))


def _shown_matrix(value: Value) -> str:
    rows = [[_shown(value[i, j]) for j in range(value.cols)] for i in range(value.rows)]
    if 1 in (value.rows, value.cols):
        return f"({','.join(cell for row in rows for cell in row)})"
    return f"[{';'.join(map(','.join, rows))}]"
