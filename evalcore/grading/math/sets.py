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
_ORDER = frozenset(["<", ">", "<=", ">="])


@dataclass(frozen=True, slots=True)
class Piece:
    """An interval, or a point, whose ends are the same."""

    low: Node
    low_closed: bool
    high: Node
    high_closed: bool


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
            return [Piece(_MINUS_INFINITE, False, _INFINITE, False)]
        case Apply("cup", args):
            parts = [_pieces(arg) for arg in args]
            return None if None in parts else [piece for part in parts if part for piece in part]
        case Apply("minus", (whole, SetOf(items))):
            return _without(_pieces(whole), items)
        case Relation((operator,), (left, right)):
            return _half_line(operator, left, right)
        case Relation((first, second), (left, middle, right)):
            one, other = _half_line(first, left, middle), _half_line(second, middle, right)
            if one is None or other is None or len(one) != 1 or len(other) != 1:
                return None
            return _common(one[0], other[0])
    return None


def _half_line(operator: str, left: Node, right: Node) -> list[Piece] | None:
    """The solutions of an inequality that is linear in its one variable."""
    difference = Apply("+", (left, Apply("neg", (right,))))
    names = symbols(difference)
    if len(names) != 1:
        return None
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


def _common(a: Piece, b: Piece) -> list[Piece] | None:
    """The part two half lines share."""
    if a.high == _INFINITE and b.low == _MINUS_INFINITE:
        return [Piece(a.low, a.low_closed, b.high, b.high_closed)]
    if b.high == _INFINITE and a.low == _MINUS_INFINITE:
        return [Piece(b.low, b.low_closed, a.high, a.high_closed)]
    return None


def _without(whole: list[Piece] | None, items: tuple[Node, ...]) -> list[Piece] | None:
    """A union of intervals without some points."""
    if whole is None:
        return None
    for item in items:
        at = _position(item)
        if at is None:
            return None
        cut: list[Piece] = []
        for piece in whole:
            low, high = _position(piece.low), _position(piece.high)
            if low is None or high is None:
                return None
            if low < at < high:
                cut += [
                    Piece(piece.low, piece.low_closed, item, False),
                    Piece(item, False, piece.high, piece.high_closed),
                ]
            elif at in (low, high):
                cut.append(
                    Piece(
                        piece.low,
                        piece.low_closed and at != low,
                        piece.high,
                        piece.high_closed and at != high,
                    )
                )
            else:
                cut.append(piece)
        whole = cut
    return whole


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
