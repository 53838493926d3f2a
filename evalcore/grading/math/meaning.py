r"""What an answer stands for: ± written out, the name of an unknown taken off, an equation brought to one side.

>>> items(expanded(parse(r"x = 1 \pm \sqrt{2}")))
[Apply(name='+', args=(…)), Apply(name='+', args=(…))]
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from evalcore.grading.math import sets
from evalcore.grading.math.answers import is_name, is_unknown, words_of
from evalcore.grading.math.nodes import (
    Answers,
    Apply,
    Based,
    Constant,
    Matrix,
    Node,
    Number,
    Quantity,
    Relation,
    Sequence,
    SetOf,
    Symbol,
    Words,
    symbols,
    walk,
)
from evalcore.grading.math.units import contradict, unit_of

OPPOSITE = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!=", "~": "~"}
"""The operator that says the same with its sides exchanged."""


def expanded(node: Node) -> Node:
    """With ± written out, and without what only wraps: a set of answers, an equation of one side."""
    if isinstance(node, Quantity) and not node.unit:
        return expanded(node.value)
    if any(isinstance(n, Apply) and n.name in ("+-", "-+") for n in walk(node)):
        if isinstance(node, Answers | SetOf):
            return type(node)(tuple(_written_out(node.items)))
        if isinstance(node, Relation) and (named := assigned(node)):
            values = items(expanded(named[1])) or [named[1]]
            return Answers(tuple(Relation(("=",), (named[0], value)) for value in values))
        return Answers(tuple(_both_signs(node)))
    if isinstance(node, Relation) and (distance := _distance_of_unknown(node)):
        unknown, size = distance
        return expanded(Relation(("=",), (unknown, Apply("+-", (Number(Fraction(0)), size)))))
    return node


def _distance_of_unknown(relation: Relation) -> tuple[Node, Node] | None:
    """(x, c) of ``|x| = c``."""
    if relation.operators != ("=",):
        return None
    for side, other in (relation.sides, relation.sides[::-1]):
        if isinstance(side, Apply) and side.name == "abs" and is_unknown(side.args[0]):
            return None if symbols(other) else (side.args[0], other)
    return None


def _both_signs(node: Node) -> list[Node]:
    """With + and with -; of two ± in one expression each has its own, unless an ∓ or a tuple ties them."""
    signs = [n.name for n in walk(node) if isinstance(n, Apply) and n.name in ("+-", "-+")]
    if len(signs) == 2 and set(signs) == {"+-"} and isinstance(node, Apply):
        return [_signed(half, sign) for half in _first_signed(node) for sign in (+1, -1)]
    return [_signed(node, +1), _signed(node, -1)]


def _first_signed(node: Apply) -> list[Node]:
    """With + and with - for the first ± alone."""
    if node.name == "+-" and not any(isinstance(n, Apply) and n.name == "+-" for n in walk(node.args[0])):
        return [Apply("+", (node.args[0], term)) for term in (node.args[1], Apply("neg", (node.args[1],)))]
    for i, arg in enumerate(node.args):
        if isinstance(arg, Apply) and any(isinstance(n, Apply) and n.name == "+-" for n in walk(arg)):
            return [
                Apply(node.name, (*node.args[:i], half, *node.args[i + 1 :])) for half in _first_signed(arg)
            ]
    return [node]


def _signed(node: Node, sign: int) -> Node:
    if isinstance(node, Apply):
        args = tuple(_signed(a, sign) for a in node.args)
        if node.name in ("+-", "-+"):
            minus = (node.name == "+-") == (sign < 0)
            return Apply("+", (args[0], Apply("neg", (args[1],)) if minus else args[1]))
        return Apply(node.name, args)
    if isinstance(node, Sequence):
        return Sequence(tuple(_signed(a, sign) for a in node.items), node.opening, node.closing)
    if isinstance(node, Relation):
        return Relation(node.operators, tuple(_signed(a, sign) for a in node.sides))
    if isinstance(node, Quantity):
        return Quantity(_signed(node.value, sign), node.unit)
    return node


def items(node: Node) -> list[Node] | None:
    """The answers that a node stands for, each with ± written out; None for what is one answer."""
    if isinstance(node, Answers | SetOf):
        return _written_out(node.items)
    if isinstance(node, Sequence) and (node.opening, node.closing) in (("(", ")"), ("[", "]")):
        return list(node.items)
    if isinstance(node, Relation):
        if named := assigned(node):
            return items(named[1]) or [node]
        return [node]
    return None if sets.is_set(node) else [node]


def _written_out(answers: Iterable[Node]) -> list[Node]:
    """The answers with ± written out."""
    found: list[Node] = []
    for answer in answers:
        written = expanded(answer)
        found += written.items if isinstance(written, Answers) else [written]
    return found


def assigned(node: Node) -> tuple[Node, Node] | None:
    """(name, value) of ``x = 5``, ``5 = x``, ``f(x) = …``, ``x \\in S``; None for any other relation."""
    if not isinstance(node, Relation):
        return None
    first, last = node.sides[0], node.sides[-1]
    if node.operators in (("=",), ("~",), ("in",), (":",)):
        if is_name(first):
            return first, last
        if is_name(last) and node.operators[0] in "=~":
            return last, first
    return None


def member_of(relation: Relation) -> Node | None:
    """S of ``x \\in S``."""
    return relation.sides[1] if relation.operators == ("in",) and is_name(relation.sides[0]) else None


def names(items: list[Node]) -> list[Node]:
    return [named[0] for item in items if (named := assigned(item))]


def unnamed(node: Node) -> Node:
    named = assigned(node)
    return named[1] if named else node


def label(item: Node) -> str:
    """The words that say which of several answers this is: ``Amy: 3``, ``3 apples``; empty if there are none."""
    if isinstance(item, Quantity):
        return item.unit
    named = assigned(item)
    return named[0].text if named and isinstance(named[0], Words) else ""


def same_name(a: Node, b: Node) -> bool:
    """``y = …`` and ``f(x) = …`` may name the same; ``x`` and ``y``, ``f(x)`` and ``g(x)`` or ``f'(x)`` do not."""
    if isinstance(a, Words) and isinstance(b, Words):
        return not contradict(unit_of(a.text), unit_of(b.text))
    if a == b or isinstance(a, Words) or isinstance(b, Words):
        return True
    plain = [node for node in (a, b) if isinstance(node, Symbol)]
    calls = [n for n in (a, b) if isinstance(n, Apply) and n.name == "*" and _is_plain(n.args[0])]
    return len(plain) == len(calls) == 1


def _is_plain(head: Node) -> bool:
    return isinstance(head, Symbol) and not head.name.endswith("'")


def chain_values(relation: Relation) -> list[Node]:
    """What ``2^3 = 8`` and ``S = \\pi r^2 = 4\\pi`` come to: the end; before an ≈ what is exact, too."""
    if not set(relation.operators) <= {"=", "~"}:
        return []
    sides = relation.sides
    if len(sides) == 2 and relation.operators == ("=",) and _is_equation(*sides):
        return []  # and no value of anything
    values = [sides[-1]]
    for operator, side in zip(reversed(relation.operators), reversed(sides[:-1]), strict=True):
        if operator != "~":
            break
        values.append(side)
    return values


def _is_equation(left: Node, right: Node) -> bool:
    return bool(symbols(right) or symbols(left))


def normal(relation: Relation) -> tuple[str, Node | None]:
    """``f`` and the kind of ``f = 0``, ``f != 0``, ``f > 0`` or ``f >= 0``."""
    operator = relation.operators[0]
    left, right = relation.sides
    if operator in ("<", "<="):
        left, right, operator = right, left, OPPOSITE[operator]
    if not (is_scalar(left) and is_scalar(right)) or operator in ("in", ":"):
        return operator, None
    difference = Apply("+", (left, Apply("neg", (right,))))
    return ("=" if operator == "~" else operator), difference


def as_words(node: Node) -> str | None:
    """The letters of a text, or of a product of letters that may be one: ``odd``."""
    if isinstance(node, Words):
        return node.text
    if isinstance(node, Symbol) and len(node.name) == 1:
        return node.name.lower()
    if isinstance(node, Constant) and node.name in "ei":
        return node.name
    if isinstance(node, Apply) and node.name == "*":
        letters = [as_words(arg) for arg in node.args]
        return "".join(letter or "?" for letter in letters)
    if isinstance(node, SetOf) and not node.items:
        return "no solution"
    if isinstance(node, Quantity):
        return words_of(node.unit)
    return None


def is_letter(node: Node) -> bool:
    """An option's letter, or a variable: ``C`` and ``c`` are the same answer."""
    return isinstance(node, Symbol | Constant) and len(node.name) == 1


def is_scalar(node: Node) -> bool:
    """Whether it may have a single value, a matrix for one."""
    return isinstance(node, Number | Symbol | Constant | Apply | Based | Quantity | Matrix) or (
        isinstance(node, Sequence) and len(node.items) == 1
    )
