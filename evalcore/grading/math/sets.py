r"""Sets of real numbers: intervals, their unions, and inequalities in one variable, in one form.

>>> pieces(parse(r"(-\infty, 1) \cup [1, 2)"))
[Piece(low=…, low_closed=False, high=…2…, high_closed=False)]
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from evalcore.grading.math import points
from evalcore.grading.math.exact import TooBig, exact
from evalcore.grading.math.nodes import Apply, Constant, Node, Relation, Sequence, SetOf, Symbol, symbols

_INFINITE = Constant("oo")
_MINUS_INFINITE = Apply("neg", (_INFINITE,))
_TURNED = str.maketrans("<>", "><")
_ORDER = frozenset(["<", ">", "<=", ">="])


@dataclass(frozen=True, slots=True)
class Piece:
    """An interval, or a point, whose ends are the same."""

    low: Node
    low_closed: bool
    high: Node
    high_closed: bool


_LINE = Piece(_MINUS_INFINITE, False, _INFINITE, False)


def is_set(node: Node) -> bool:
    """Whether it is, or may be read as, a set of real numbers."""
    match node:
        case Sequence((_, _), _, _) | SetOf(_) | Symbol("mathbb R"):
            return True
        case Apply("cup" | "minus" | "cap", args):
            return all(map(is_set, args))
        case Relation(operators, sides) if set(operators) <= _ORDER | {"!="}:
            return len(symbols(node)) == 1 and len(sides) in (2, 3)
    return False


def pieces(node: Node) -> list[Piece] | None:
    """Its pieces from left to right, those that touch made one; None if its ends cannot be put in order."""
    try:
        found = _pieces(node)
    except TooBig:
        return None
    return None if found is None else _merged(found)


def _pieces(node: Node) -> list[Piece] | None:
    match node:
        case Sequence((low, high), opening, closing):
            return [Piece(low, opening == "[", high, closing == "]")]
        case SetOf(items):
            return [Piece(item, True, item, True) for item in items]
        case Symbol("mathbb R"):
            return [_LINE]
        case Apply("cup", args):
            parts = [_pieces(arg) for arg in args]
            return None if None in parts else [piece for part in parts if part for piece in part]
        case Apply("minus", (whole, removed)):
            return _both(_pieces(whole), _rest(_pieces(removed)))
        case Apply("cap", args):
            common: list[Piece] | None = [_LINE]
            for arg in args:
                common = _both(common, _pieces(arg))
            return common
        case Relation((operator,), (left, right)):
            return _half_line(operator, left, right)
        case Relation((first, second), (left, middle, right)):
            one, other = _half_line(first, left, middle), _half_line(second, middle, right)
            if one is None or other is None or len(one) != 1 or len(other) != 1:
                return None
            return _common(one[0], other[0]) or _both(one, other)
    return None


def _half_line(operator: str, left: Node, right: Node) -> list[Piece] | None:
    """The solutions of an inequality that is linear in its one variable."""
    difference = Apply("+", (left, Apply("neg", (right,))))
    names = symbols(difference)
    if len(names) != 1:
        return None
    for inner, bound, says in ((left, right, operator), (right, left, operator.translate(_TURNED))):
        if isinstance(inner, Apply) and inner.name == "abs" and not symbols(bound) and operator != "!=":
            return _distance(says, inner.args[0], bound)
    line: tuple[bool, Node] | None
    if isinstance(left, Symbol) and not symbols(right):
        line = True, right
    elif isinstance(right, Symbol) and not symbols(left):
        line = False, left
    else:
        line = points.line(difference, next(iter(names)))
    if line is None:
        return None
    slope_is_positive, root = line
    if operator == "!=":
        return [Piece(_MINUS_INFINITE, False, root, False), Piece(root, False, _INFINITE, False)]
    above = (operator[0] == ">") == slope_is_positive
    closed = operator.endswith("=")
    if above:
        return [Piece(root, closed, _INFINITE, False)]
    return [Piece(_MINUS_INFINITE, False, root, closed)]


def _distance(operator: str, inner: Node, bound: Node) -> list[Piece] | None:
    """``|f| < c`` as ``-c < f < c``, ``|f| > c`` as what lies on both sides of that."""
    size = _position(bound)
    if size is None or size < 0:
        return None
    minus = Apply("neg", (bound,))
    left, right = _half_line(operator.translate(_TURNED), inner, minus), _half_line(operator, inner, bound)
    if left is None or right is None:
        return None
    return _both(left, right) if operator[0] == "<" else [*left, *right]


def _common(a: Piece, b: Piece) -> list[Piece] | None:
    """The part two half lines share."""
    if a.high == _INFINITE and b.low == _MINUS_INFINITE:
        return [Piece(a.low, a.low_closed, b.high, b.high_closed)]
    if b.high == _INFINITE and a.low == _MINUS_INFINITE:
        return [Piece(b.low, b.low_closed, a.high, a.high_closed)]
    return None


def _both(left: list[Piece] | None, right: list[Piece] | None) -> list[Piece] | None:
    """What lies in both; None if the ends cannot be put in order."""
    if left is None or right is None:
        return None
    found = []
    for a in left:
        for b in right:
            ends = [_position(end) for end in (a.low, b.low, a.high, b.high)]
            if None in ends:
                return None
            low_a, low_b, high_a, high_b = (end for end in ends if end is not None)
            low = max(low_a, low_b)
            low_closed = all(p.low_closed for p, at in ((a, low_a), (b, low_b)) if at == low)
            high = min(high_a, high_b)
            high_closed = all(p.high_closed for p, at in ((a, high_a), (b, high_b)) if at == high)
            if low < high or (low == high and low_closed and high_closed):
                starts = a.low if low == low_a else b.low
                stops = a.high if high == high_a else b.high
                found.append(Piece(starts, low_closed, stops, high_closed))
    return found


def _rest(taken: list[Piece] | None) -> list[Piece] | None:
    """The line without some pieces."""
    left: list[Piece] | None = [_LINE]
    for piece in taken or []:
        outside = [
            Piece(_MINUS_INFINITE, False, piece.low, not piece.low_closed),
            Piece(piece.high, not piece.high_closed, _INFINITE, False),
        ]
        left = _both(left, [p for p in outside if p.low != p.high])
    return None if taken is None else left


def _merged(found: list[Piece]) -> list[Piece] | None:
    placed = []
    for piece in found:
        low, high = _position(piece.low), _position(piece.high)
        if low is None or high is None:
            return found if len(found) == 1 else None
        placed.append((low, not piece.low_closed, high, piece))
    placed.sort(key=lambda entry: entry[:3])
    merged: list[tuple[Fraction | float, Piece]] = []
    for low, _, high, piece in placed:
        if merged:
            end, last = merged[-1]
            if low < end or (low == end and (last.high_closed or piece.low_closed)):
                if high > end or (high == end and piece.high_closed):
                    merged[-1] = (high, Piece(last.low, last.low_closed, piece.high, piece.high_closed))
                continue
        merged.append((high, piece))
    return [piece for _, piece in merged]


def _position(node: Node) -> Fraction | float | None:
    """Where an end lies on the line."""
    if node == _INFINITE or node == Apply("+", (_INFINITE,)):
        return float("inf")
    if node == _MINUS_INFINITE:
        return float("-inf")
    if symbols(node) or isinstance(node, Sequence | SetOf | Relation):
        return None
    value = exact(node)
    return value if value is not None else points.approximation(node)
