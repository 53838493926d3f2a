r"""A key that answers share if they mean the same, so that a majority can be counted without comparing all pairs.

>>> key(r"\frac{2\sqrt{3}}{3}", {}) == key(r"\frac{2}{\sqrt 3}", {})
True

Numbers by their exact value, expressions by their values at four points to 60 digits, sets by their pieces,
equations by their solution or at points, what has parts by the keys of its parts, the rest by its text.

Sharing a key is transitive and equality, which forgives what the question says, is not: ``x = 2`` and
``y = 2`` both answer 2, ``5\%`` 5 as well as 0.05. A key forgives likewise, names and units first; of the two
readings of a percentage it takes the one without the sign, unless the option ``percent`` says otherwise.
A decimal and the fraction it rounds have different keys.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction

from evalcore.grading.math import points, sets
from evalcore.grading.math.answers import is_sequence_of_letters, parse
from evalcore.grading.math.display import display
from evalcore.grading.math.exact import TooBig, exact
from evalcore.grading.math.lexer import Unreadable
from evalcore.grading.math.meaning import (
    OPPOSITE,
    as_words,
    assigned,
    chain_values,
    expanded,
    is_letter,
    is_scalar,
    normal,
)
from evalcore.grading.math.nodes import (
    Answers,
    Apply,
    Based,
    Matrix,
    Node,
    Number,
    Quantity,
    Relation,
    Sequence,
    SetOf,
    Words,
    symbols,
)
from evalcore.grading.math.spelling import normalize, squeezed
from evalcore.grading.verdict import Options

_LONGEST = 64
_HUNDRED = Number(Fraction(100))


def key(answer: str, options: Options) -> str:
    """The key of an answer. Takes time that only the engine's own bounds limit: for killable processes."""
    text = squeezed(normalize(answer))
    if is_sequence_of_letters(text):
        return f"text {text.lower()}"
    try:
        found = _Key(options).of(parse(normalize(answer)))
    except (Unreadable, TooBig, RecursionError):
        found = f"text {text}"
    return found if len(found) <= _LONGEST else hashlib.sha256(found.encode()).hexdigest()[:24]


class _Key:
    """Keys of nodes under a benchmark's options; the cases in the order in which ``equality`` has them."""

    def __init__(self, options: Options) -> None:
        self.percent_is_value = options.get("percent") == "value"

    def of(self, node: Node) -> str:
        node = expanded(node)
        words = as_words(node) if is_letter(node) or _is_product(node) or isinstance(node, Words) else None
        if words is not None and "?" not in words:
            return self._words(words)
        match node:
            case Relation():
                return self._relation(node)
            case Answers(items):
                return self._answers(items)
            case Quantity(value, "%") if self.percent_is_value:
                return self.of(Apply("/", (value, _HUNDRED)))
            case Quantity(value, _):
                return self.of(value)
            case SetOf(()):
                return f"text {as_words(node)}"
            case SetOf((only,)) | Sequence((only,), _, _):
                return self.of(only)
            case SetOf(items):
                return self._braces({self.of(item) for item in items})
            case Sequence(items, opening, closing):
                # Brackets mean something where there may be an interval in them.
                ends = (opening, closing) if len(items) == 2 else ("(", ")")
                return f"{ends[0]}{','.join(map(self.of, items))}{ends[1]}"
            case Matrix(rows) if len(rows) == 1 or len(rows[0]) == 1:
                return f"({','.join(self.of(cell) for row in rows for cell in row)})"
            case Matrix(rows):
                return f"[{';'.join(','.join(map(self.of, row)) for row in rows)}]"
            case Based(digits, _):
                return digits.lstrip("0") or "0"
            case Apply("mod", (residue, *_)):
                return self.of(residue)
            case Apply("cup" | "cap" | "minus" as name, args):
                return self._set(node) or f"{name}({','.join(self._in_any_order(name, args))})"
        return self._value(node)

    def _words(self, text: str) -> str:
        """A letter as the variable: ``C`` is ``c`` is ``cx / x``. A word in its order, that ``HHT`` is not ``HTH``.

        But of two letters in any order: ``xy`` is ``yx``.
        """
        if len(text) == 1:
            return self._value(parse(text))
        return f"text {''.join(sorted(text)) if len(text) == 2 else text}"

    def _value(self, node: Node) -> str:
        if found := self._set(node):
            return found
        if is_scalar(node):
            rational = exact(node)
            if rational is not None:
                return str(rational)
            if values := points.values(node):
                return values
        return f"text {as_words(node) or display(node)}"

    def _answers(self, items: tuple[Node, ...]) -> str:
        named = [assigned(expanded(item)) for item in items]
        by_name = sorted((display(found[0]), self.of(found[1])) for found in named if found)
        if len({name for name, _ in by_name}) == len(items) > 1:
            return f"({','.join(value for _, value in by_name)})"  # x = 1, y = 2 is (1, 2)
        keys = [self.of(item) for item in items]
        return keys[0] if len(keys) == 1 else self._braces(keys)

    def _relation(self, node: Relation) -> str:
        if named := assigned(node):
            return self.of(named[1])
        if found := self._set(node):
            return found
        if values := chain_values(node):
            return self.of(values[0])
        if len(node.operators) == 1:
            kind, difference = normal(node)
            if difference is not None and (found := self._solutions(kind, difference)):
                return found
        if not set(node.operators) <= OPPOSITE.keys():
            return self._chain(node)
        turned = Relation(tuple(OPPOSITE[o] for o in reversed(node.operators)), node.sides[::-1])
        return min(self._chain(node), self._chain(turned))

    def _solutions(self, kind: str, difference: Node) -> str | None:
        """Of ``difference = 0`` or ``difference > 0``: the root of a line, else values up to a factor."""
        names = symbols(difference)
        if kind == "=" and len(names) == 1 and (line := points.line(difference, *names)):
            return self.of(line[1])
        values = points.values(difference, up_to_factor="positive" if kind in (">", ">=") else "any")
        return f"{kind} {values}" if values else None

    def _chain(self, node: Relation) -> str:
        first, *rest = map(self.of, node.sides)
        return " ".join([first, *(part for pair in zip(node.operators, rest, strict=True) for part in pair)])

    def _set(self, node: Node) -> str | None:
        """A set of real numbers as its pieces; None if it is none, or they cannot be put in order."""
        pieces = sets.pieces(node) if sets.is_set(node) else None
        if pieces is None:
            return None
        if all(piece.low == piece.high for piece in pieces):
            ends = {self.of(piece.low) for piece in pieces}
            return ends.pop() if len(ends) == 1 else self._braces(ends)
        return "u".join(
            f"{'[' if piece.low_closed else '('}{self.of(piece.low)},{self.of(piece.high)}"
            f"{']' if piece.high_closed else ')'}"
            for piece in pieces
        )

    def _in_any_order(self, name: str, args: tuple[Node, ...]) -> list[str]:
        keys = list(map(self.of, args))
        return keys if name == "minus" else sorted(keys)

    @staticmethod
    def _braces(keys: set[str] | list[str]) -> str:
        return f"{{{','.join(sorted(keys))}}}"


def _is_product(node: Node) -> bool:
    return isinstance(node, Apply) and node.name == "*"
