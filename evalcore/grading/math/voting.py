r"""A key that answers share if they mean the same, so that a majority can be counted without comparing all pairs.

>>> key(r"\frac{2\sqrt{3}}{3}") == key(r"\frac{2}{\sqrt 3}")
True

Numbers by their exact value, expressions by their values at two points to 25 digits, what has parts by the
keys of its parts, the rest by its text. Rounding falls on two sides of an edge once in 10^25.
"""

from __future__ import annotations

import hashlib

from evalcore.grading.math import points
from evalcore.grading.math.answers import is_sequence_of_letters, parse
from evalcore.grading.math.exact import TooBig, exact
from evalcore.grading.math.lexer import Unreadable
from evalcore.grading.math.meaning import as_words, expanded, is_scalar, unnamed
from evalcore.grading.math.nodes import (
    Answers,
    Apply,
    Matrix,
    Node,
    Quantity,
    Relation,
    Sequence,
    SetOf,
    Words,
)
from evalcore.grading.math.spelling import normalize, squeezed

_LONGEST = 64


def key(answer: str) -> str:
    """The key of an answer. Takes time that only the engine's own bounds limit: for killable processes."""
    text = squeezed(normalize(answer))
    if is_sequence_of_letters(text):
        return f"text {text}"
    try:
        found = _key(parse(normalize(answer)))
    except (Unreadable, TooBig, RecursionError):
        found = f"text {text}"
    return found if len(found) <= _LONGEST else hashlib.sha256(found.encode()).hexdigest()[:24]


def _key(node: Node) -> str:
    node = expanded(unnamed(node))
    match node:
        case Words():
            return f"text {node.text}"
        case Quantity(value, _):
            return _key(value)
        case Answers(items) | SetOf(items):
            return f"{{{','.join(sorted({_key(item) for item in items}))}}}"
        case Sequence((only,), "[", "]"):
            return _key(only)
        case Sequence(items, opening, closing):
            return f"{opening}{','.join(map(_key, items))}{closing}"
        case Matrix(rows):
            return f"[{';'.join(','.join(map(_key, row)) for row in rows)}]"
        case Relation(operators, sides):
            return "".join(f"{o} {_key(s)} " for o, s in zip(("", *operators), sides, strict=True))
        case Apply("cup" | "cap" | "minus" | "mod" as name, args):
            return f"{name}({','.join(map(_key, args))})"
    if is_scalar(node):
        rational = exact(node)
        if rational is not None:
            return str(rational)
        if values := points.values(node):
            return values
    return f"text {as_words(node) or node}"
