r"""Read a whole answer: several values, relations, sets, units and words around expressions.

>>> parse(r"x = 1 \text{ or } x = 2")
Answers(items=(Relation(operators=('=',), sides=(Symbol(name='x'), Number(…))), Relation(…)))
>>> parse(r"5\text{ apples}")
Quantity(value=Number(…), unit='apples')
>>> parse(r"\text{(E)}")
Words(text='e')
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from evalcore.grading.math.commands import Commands
from evalcore.grading.math.display import display
from evalcore.grading.math.lexer import Unreadable
from evalcore.grading.math.nodes import (
    Answers,
    Apply,
    Node,
    Number,
    Quantity,
    Relation,
    Sequence,
    Symbol,
    Words,
    symbols,
)
from evalcore.grading.math.sets import is_set
from evalcore.grading.math.units import unit_of
from evalcore.grading.math.vocabulary import FUNCTIONS, GREEK, MULTIPLIERS

_ORDER = frozenset({"<", ">", "<=", ">="})
_RELATIONS = ("=", "<", ">", "<=", ">=", "!=", "~", "in", ":")
_NO_SOLUTION = re.compile(
    r"(?:there (?:is|are) )?no(?:ne|t)?(?: real)?(?: solutions?)?(?: exists?)?|does not exist|dne"
)
# Words before a value that say it is something else.
_BOUNDS = frozenset(
    {"not", "except", "least", "most", "less", "fewer", "more", "than", "over", "under", "above", "below"}
)
_REALS = frozenset({"all real numbers", "all reals", "the real numbers", "real numbers", "any real number"})
# No difference and no quotient: 2021-05-01, 05/01/2021.
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?|\d\d?/\d\d?/\d{4}", re.ASCII)
_DECORATION = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|textrm|rm)\b\s*|[{}$\\~*_`\"“”]")


@lru_cache(maxsize=4096)
def parse(text: str) -> Node:
    """The tree of an answer; ``Words`` where it is text and no formula.

    Raises:
        Unreadable: it is neither.
        RecursionError: brackets nested deeper than ``bounds`` lets pass.
    """
    if words := _words(text):
        return Symbol("mathbb R") if words.text in _REALS else words
    grammar = _Grammar(text)
    node = grammar.answers()
    if grammar.token.kind != "end":
        raise Unreadable(f"{grammar.token.text!r} behind {grammar.position} readable tokens")
    return node


def words_of(text: str) -> str:
    """A text without its dress, in lower case: ``\\text{(E)}`` and ``**E**`` are both ``e``."""
    bare = re.sub(r"\s+", " ", _DECORATION.sub(" ", text)).strip(" .,;:!")
    if bare.startswith("(") and bare.endswith(")") and "(" not in bare[1:]:
        bare = bare[1:-1]
    return re.sub(r"\s*-\s*", "-", bare).strip().lower()


def _words(text: str) -> Words | None:
    """Text that no formula can be: words of four letters and more, what stands in a text command, a date."""
    if _DATE.fullmatch(text):
        return Words(re.sub(r"\b0", "", text))
    if not re.search(r"[A-Za-z]{4}|\\(?:text|mbox|mathrm)", text) or re.search(r"[\d=<>^&]", text):
        return None
    bare = words_of(text)
    if re.fullmatch(r"[a-z][a-z'’,;: ()-]*", bare) and re.search(r"\\(?:text|mbox|mathrm)|^[^\\]*$", text):
        parts = re.findall(r"[a-z]+", bare)
        formula = FUNCTIONS | GREEK | {"pi", "infinity", "infty", "inf"}
        if not any(part in formula for part in parts) and any(len(p) > 2 for p in parts):
            return Words("no solution" if _NO_SOLUTION.fullmatch(bare) else bare)
        if len(parts) == 1 and parts[0] not in formula:
            return Words(bare)
    return None


class _Grammar(Commands):
    def answers(self) -> Node:
        self.take("=", "~")  # `= 12`
        items = [self._relation()]
        joints = set()
        while self.at(",", ";", "and", "or"):
            while self.at(",", ";", "and", "or"):
                joints.add(self.next().text)
            if self.token.kind == "end":
                break
            items.append(self._relation())
        if len(items) == 1:
            return items[0]
        if joints == {"or"} and all(isinstance(i, Relation) and set(i.operators) <= _ORDER for i in items):
            return Apply("cup", tuple(items))
        if (
            joints == {"and"}
            and all(map(is_set, items))
            and len(frozenset().union(*map(symbols, items))) == 1
        ):
            return Apply("cap", tuple(items))
        return Answers(tuple(items))

    def item(self) -> Node:
        return self._relation()

    def _relation(self) -> Node:
        label = self._preamble()
        sides = [self._union()]
        operators = []
        while self.at(*_RELATIONS) or self.at_name("pmod", "mod", "bmod"):
            if self.token.kind == "name":
                name = self.next().text
                bracketed = self.take("(") or self.take("{")
                modulus = self.sum()
                if bracketed:
                    self.expect(")", "}")
                sides[-1] = _remainder(name, sides[-1], modulus)
                continue
            if self.take("="):
                # `x = \{1, 2\}`; and `x == 2` or `= 5` have one side only
                operators.append("=")
            else:
                operators.append(self.next().text)
            sides.append(self._union())
        if operators:
            return Relation(tuple(operators), tuple(sides))
        return Relation(("=",), (label, sides[0])) if label else sides[0]

    def _union(self) -> Node:
        result = self._quantity()
        while True:
            if self.at("cup", "cap", "minus"):
                result = Apply(self.next().text, (result, self._quantity()))
            elif self.at_union():
                self.next()
                result = Apply("cup", (result, self._quantity()))
            else:
                return result

    def _quantity(self) -> Node:
        self._preamble()
        value = self.sum()
        if self.at_word() and (factor := MULTIPLIERS.get(self.token.text.lower())):
            self.next()
            value = Apply("*", (value, Number(Fraction(factor))))
        unit: list[str] = []
        while self.at_word() or (
            unit
            and (
                self.at("/", "^", "{", "}", "-")
                or self.token.kind in ("number", "symbol")
                or (self.at("*") and self.peek().kind in ("text", "symbol"))  # N\cdot m
            )
        ):
            unit.append(self.next().text)
        if not unit:
            return value
        words = " ".join(unit).lower().split()
        if words[0] == "or" and _BOUNDS & set(words):
            raise Unreadable("a bound in words")  # `5\text{ or more}`
        if _is_compound(unit):
            return Words(f"{display(value)} {unit_of(' '.join(unit))}")
        return Quantity(value, unit_of(" ".join(unit)))

    def _preamble(self) -> Words | None:
        """``Area = 5``, ``exactly 5``: words before a value say what it is."""
        announced = self.token.text.endswith(":")
        if not (self.at_word() and (announced or self.peek().kind in ("number", "op", "name"))):
            return None
        label: list[str] = []
        while self.at_word():
            label += self.next().text.lower().split()
        if _BOUNDS & set(label):
            raise Unreadable("a bound in words")
        if not (self.take("=", ":", "~") or announced or self.token.kind == "number"):
            raise Unreadable("words before a formula")
        return Words(words_of(" ".join(label)))


def _is_compound(unit: list[str]) -> bool:
    """``hours 30 minutes``: a number and a unit behind the first one, and no power."""
    return any(
        word.isdigit() and before.isalpha() and after.isalpha()
        for before, word, after in zip(unit, unit[1:], unit[2:], strict=False)
    )


def _remainder(name: str, left: Node, modulus: Node) -> Node:
    r"""``17 \bmod 5`` is 2; ``2 \pmod 5`` and ``n \bmod 5`` are classes."""
    if name == "bmod" and isinstance(left, Number) and isinstance(modulus, Number) and modulus.value > 0:
        return Number(left.value % modulus.value)
    return Apply("mod", (left, modulus))


_FUNCTION_NAMES = frozenset({"phi", "psi", "varphi", "mathbb P", "mathbb E"})


def is_sequence_of_letters(text: str) -> bool:
    """``HHT``: three capitals or more are no product, but letters in their order."""
    return re.fullmatch(r"[A-Z]{3,}", text) is not None


def is_unknown(node: Node) -> bool:
    """Whether it is what real numbers are sought for; ``|AB|``, ``|z|`` and ``|v|`` are lengths."""
    return isinstance(node, Symbol) and node.name in ("x", "y", "t")


def is_name(node: Node) -> bool:
    r"""Whether it only names what an answer is: ``x``, ``f(x)``, ``AB``, ``\angle ABC``, ``(p, q)``."""
    match node:
        case Symbol() | Words():
            return True
        case Sequence(items):
            return all(map(is_name, items))
        case Apply("*", (Apply("^", (Symbol("f" | "g" | "h"), Apply("neg", _))), argument)):
            return is_name(argument)
        case Apply("*", (Symbol(name), *rest)):
            if len(rest) == 1 and (name[:1] in "fghPQRSTFGVLD" or name in _FUNCTION_NAMES):
                return is_name(rest[0])
            return all(isinstance(n, Symbol) and n.name[:1].isupper() for n in node.args)
        case Apply("abs", (inner,)):
            return is_name(inner) and not is_unknown(inner)
        case Apply("/", (Apply("*", (Symbol("d"), Symbol())), Apply("*", (Symbol("d"), Symbol())))):
            return True
        case Apply("^", (Symbol("f" | "g" | "h"), Apply("neg", _))):
            return True
    return False
