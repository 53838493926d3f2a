r"""What the parser makes of an answer: a tree of a few frozen node types.

``\frac{x}{2}`` is ``Apply("/", (Symbol("x"), Number(2)))``; ``x = 1, 2`` is ``Answers((Relation(…), …))``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number. places: digits after its point as written, None if it has none; digits: significant ones."""

    value: Fraction
    places: int | None = None
    digits: int = 0


@dataclass(frozen=True, slots=True)
class Symbol:
    """A variable, with its subscript and primes: ``x``, ``a_{37}``, ``E'``."""

    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    """``pi``, ``e``, ``i`` or ``oo``."""

    name: str


@dataclass(frozen=True, slots=True)
class Apply:
    """An operator or a function of ``names`` and its arguments."""

    name: str
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Based:
    """Digits in a base: ``204_5``."""

    digits: str
    base: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """``(a, b)``, ``[a, b)``: a point, a tuple, a list or an interval; only its brackets tell."""

    items: tuple[Node, ...]
    opening: str
    closing: str


@dataclass(frozen=True, slots=True)
class SetOf:
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    rows: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True, slots=True)
class Relation:
    r"""A chain: ``1 < x \le 3`` has the operators ``<`` and ``<=`` between three sides."""

    operators: tuple[str, ...]
    sides: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """Several answers with nothing around them: ``1, 2``, ``x = 1 or x = 2``."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value and what it counts: ``%``, ``deg``, ``$``, ``cm``, ``apples``."""

    value: Node
    unit: str


@dataclass(frozen=True, slots=True)
class Words:
    """Text that is no formula, in lower case."""

    text: str


Node = (
    Number
    | Symbol
    | Constant
    | Apply
    | Based
    | Sequence
    | SetOf
    | Matrix
    | Relation
    | Answers
    | Quantity
    | Words
)


def children(node: Node) -> tuple[Node, ...]:
    match node:
        case Apply(_, args):
            return args
        case Sequence(items) | SetOf(items) | Answers(items):
            return items
        case Relation(_, sides):
            return sides
        case Matrix(rows):
            return tuple(cell for row in rows for cell in row)
        case Quantity(value, _):
            return (value,)
        case _:
            return ()


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    yield node
    for child in children(node):
        yield from walk(child)


BINDING = frozenset({"sum", "prod", "int", "lim"})
"""Functions whose second argument is a variable of their own."""


def symbols(node: Node) -> frozenset[str]:
    """The names of the free variables in a node."""
    if isinstance(node, Symbol):
        return frozenset({node.name})
    names: frozenset[str] = frozenset().union(*map(symbols, children(node)))
    if isinstance(node, Apply) and node.name in BINDING and isinstance(node.args[1], Symbol):
        return names - {node.args[1].name}
    return names


def replace(node: Node, old: Node, new: Node) -> Node:
    """The node with each occurrence of another one replaced."""
    if node == old:
        return new
    match node:
        case Apply(name, args):
            return Apply(name, tuple(replace(a, old, new) for a in args))
        case Sequence(items, opening, closing):
            return Sequence(tuple(replace(a, old, new) for a in items), opening, closing)
        case SetOf(items):
            return SetOf(tuple(replace(a, old, new) for a in items))
        case Answers(items):
            return Answers(tuple(replace(a, old, new) for a in items))
        case Relation(operators, sides):
            return Relation(operators, tuple(replace(a, old, new) for a in sides))
        case Matrix(rows):
            return Matrix(tuple(tuple(replace(a, old, new) for a in row) for row in rows))
        case Quantity(value, unit):
            return Quantity(replace(value, old, new), unit)
        case _:
            return node
