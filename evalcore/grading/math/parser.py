r"""Read an expression: LaTeX, or the plain notation of calculators and of Python, as models mix them.

>>> Commands(r"2\sqrt{x}").sum()
Apply(name='*', args=(Number(…2…), Apply(name='sqrt', args=(Symbol(name='x'),))))

Recursive descent over ``lexer.Tokens``: sums, products, powers and brackets here, what names take in
``commands``, and what binds least (several answers, relations, units) in ``answers``. It builds ``nodes`` and
evaluates nothing. Its depth is that of the brackets, which ``bounds`` limits before.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from fractions import Fraction

from evalcore.grading.math.lexer import Token, Tokens, Unreadable
from evalcore.grading.math.literals import going_on, number_of, repeating
from evalcore.grading.math.nodes import (
    Apply,
    Based,
    Constant,
    Matrix,
    Node,
    Number,
    Quantity,
    Sequence,
    SetOf,
    Symbol,
)
from evalcore.grading.math.vocabulary import (
    CURRENCY,
)


class Expressions(Tokens, ABC):
    """The grammar of one expression. bars, integrals: how many of them are open."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.bars = 0
        self.integrals = 0

    # --- sums and products -------------------------------------------------------------------------

    def sum(self) -> Node:
        """``['-'] product (('+' | '-' | '±') product)*``"""
        terms = [self._signed()]
        while self.at("+", "-", "+-", "-+"):
            operator = self.next().text
            right = self.product()
            if operator in ("+-", "-+"):
                terms = [Apply(operator, (nary("+", terms), right))]
            else:
                terms.append(Apply("neg", (right,)) if operator == "-" else right)
        return nary("+", terms)

    def _signed(self) -> Node:
        if self.take("+"):
            return self._signed()
        if self.take("-"):
            return Apply("neg", (self.product(),))
        if self.at("+-", "-+"):
            return Apply(self.next().text, (Number(Fraction(0)), self.product()))
        return self.product()

    def product(self) -> Node:
        r"""Factors with ``*``, ``/`` or nothing between them, from left to right."""
        factors = [self._factor()]
        while True:
            if self.take("*") or self._takes_cross():
                factors.append(self._factor())
            elif self.take("×"):
                factor = self._factor()
                if _is_vector(factors[-1]) and _is_vector(factor):
                    factors[-1] = Apply("cross", (factors[-1], factor))  # and no product of numbers
                else:
                    factors.append(factor)
            elif self.take("/"):
                factors = [Apply("/", (nary("*", factors), self._factor()))]
            elif self._starts_factor():
                if self.token.kind == "number" and self.tokens[self.position - 1].kind == "number":
                    raise Unreadable("two numbers side by side")
                factors.append(self.power())
            else:
                return nary("*", factors)

    def _takes_cross(self) -> bool:
        """``1.5 x 10^3``: an x with space around it between two numbers."""
        before, after = self.tokens[self.position - 1], self.peek()
        between = before.kind == after.kind == "number" and after.spaced
        if self.token == Token("symbol", "x", True) and between:
            self.position += 1
            return True
        return False

    def _factor(self) -> Node:
        if self.take("-"):
            return Apply("neg", (self._factor(),))
        if self.take("+"):
            return self._factor()
        return self.power()

    def _starts_factor(self) -> bool:
        token = self.token
        if self.at_union():
            return False
        if token.kind in ("number", "symbol", "function"):
            return True
        if token.kind == "name":
            return token.text not in ("end", "choose", "pmod", "mod", "bmod", "dots", "ldots", "cdots", "iff")
        if token.kind != "op":
            return False
        return token.text in ("(", "{", "lfloor", "lceil") or (token.text == "|" and not self.bars)

    def at_union(self) -> bool:
        """Whether a ``U`` stands between two brackets: ``(0,1) U (1,2)``."""
        before, after = self.tokens[self.position - 1], self.peek()
        between = before.text in (")", "]", "\\}") and after.text in ("(", "[", "\\{")
        return self.token.kind == "symbol" and self.token.text == "U" and between

    # --- powers and what follows an atom -------------------------------------------------------------

    def power(self) -> Node:
        base = self._postfix()
        if self.take("^"):
            if self._takes_degree():
                return Quantity(base, "deg")
            if self._takes_prime():
                return Symbol(name_of(base) + "'")
            exponent = self._exponent()
            if self.take("_"):  # v^2_0
                base = self._subscript(base)
            return Apply("^", (base, exponent))
        return base

    def _exponent(self) -> Node:
        if self.take("-"):
            return Apply("neg", (self._exponent(),))
        if self.take("+"):
            return self._exponent()
        if self.at("{"):
            return self.group()
        base = self._number() if self.token.kind == "number" else self._postfix()
        return Apply("^", (base, self._exponent())) if self.take("^") else base

    def _takes_degree(self) -> bool:
        r"""``^\circ``, ``^{\circ}``, ``^o``"""
        if self.at_name("circ"):
            self.next()
            return True
        if self.at("{") and self.peek().text in ("circ", "°") and self.peek(2).text == "}":
            self.position += 3
            return True
        return False

    def _takes_prime(self) -> bool:
        if self.at_name("prime"):
            self.next()
            return True
        if self.at("{") and self.peek().text == "prime" and self.peek(2).text == "}":
            self.position += 3
            return True
        return False

    def _postfix(self) -> Node:
        node = self.atom()
        while True:
            if self.take("!"):
                node = Apply("!", (node,))
            elif self.take("'"):
                node = Symbol(name_of(node) + "'")
            elif self.take("°") or (self.at_name("circ") and self.next()):
                node = Quantity(node, "deg")
            elif self.take("%"):
                node = Quantity(node, "%")
            elif self.take("_"):
                node = self._subscript(node)
            else:
                return node

    def _subscript(self, node: Node) -> Node:
        subscript = self._raw()
        if isinstance(node, Number):
            if node.places is None and node.value.denominator == 1 and re.fullmatch(r"\d{1,2}", subscript):
                return Based(str(node.value.numerator), int(subscript))
            raise Unreadable("a number with a subscript")
        return Symbol(f"{name_of(node)}_{subscript}")

    def _raw(self) -> str:
        """What stands in a subscript, as text without spaces."""
        if not self.at("{"):
            return self.next().text
        depth = 0
        parts: list[str] = []
        while self.token.kind != "end":
            token = self.next()
            depth += (token.text == "{") - (token.text == "}")
            if depth == 0:
                return "".join(parts[1:])
            parts.append(token.text)
        raise Unreadable("a subscript that is not closed")

    # --- atoms ---------------------------------------------------------------------------------------

    def atom(self) -> Node:
        token = self.token
        if token.kind == "number":
            return self._number()
        if token.kind == "symbol":
            self.next()
            return {"e": Constant("e"), "i": Constant("i")}.get(token.text, Symbol(token.text))
        if token.kind == "function":
            return self.function()
        if token.kind == "name":
            return self.command()
        if token.kind in ("word", "text"):
            raise Unreadable(f"the word {token.text!r}")
        if self.at("(", "["):
            return self.brackets()
        if self.at("{"):
            return self.group()
        if self.at("\\{"):
            return self.set()
        if self.at("|"):
            return self._absolute()
        if self.take("lfloor"):
            return self._closed("floor", "rfloor")
        if self.take("lceil"):
            return self._closed("ceil", "rceil")
        if token.text in CURRENCY:
            self.next()
            return Quantity(self._factor(), CURRENCY[token.text])
        raise Unreadable(f"{token.text!r} where a value should be" if token.text else "it ends too early")

    @abstractmethod
    def function(self) -> Node:
        """What follows a function's name."""

    @abstractmethod
    def command(self) -> Node:
        """A command that is no function, with its arguments."""

    def _closed(self, function: str, closing: str) -> Node:
        inner = self.sum()
        self.expect(closing)
        return Apply(function, (inner,))

    def _number(self) -> Node:
        text = self.next().text
        if self.at_name("overline", "bar", "dot"):
            self.next()
            return repeating(text, self._raw())
        number = number_of(text)
        if self.at("...") or self.at_name("ldots", "dots", "cdots"):
            self.next()
            return going_on(text)
        return self._mixed(number) or number

    def _mixed(self, number: Number) -> Node | None:
        r"""``1\frac{4}{5}`` and ``1 4/5``: a whole number and a proper fraction."""
        if number.places is not None or (self.position > 1 and self.tokens[self.position - 2].text == "^"):
            return None
        start = self.position
        fraction: Fraction | None = None
        if self.at_name("frac"):
            self.next()
            top, bottom = self._braced_integer(), self._braced_integer()
            if top and bottom and top < bottom:
                fraction = Fraction(top, bottom)
        elif self.token.kind == "number" and self.token.spaced and self.peek().text == "/":
            top_text, bottom_text = self.token.text, self.peek(2).text
            if top_text.isdigit() and bottom_text.isdigit() and 0 < int(top_text) < int(bottom_text):
                self.position += 3
                fraction = Fraction(int(top_text), int(bottom_text))
        if fraction is None:
            self.position = start
            return None
        return Number(number.value + fraction)

    def _braced_integer(self) -> int:
        braced = self.take("{")
        token = self.next() if self.token.kind == "number" else None
        if braced and not self.take("}"):
            return 0
        return int(token.text) if token and token.text.isdigit() else 0

    def group(self) -> Node:
        """``{…}`` that holds one expression; with commas it is a set."""
        self.expect("{")
        if self.take("}"):
            raise Unreadable("empty braces")
        items = [self.sum()]
        while self.take(",", ";"):
            items.append(self.sum())
        if self.at_name("choose") and len(items) == 1:
            self.next()
            items = [Apply("binom", (items[0], self.sum()))]
        self.expect("}")
        return items[0] if len(items) == 1 else SetOf(tuple(items))

    def argument(self) -> Node:
        r"""What a command takes: a group, or the next single thing: ``\sqrt3``, ``\frac1x``."""
        return self.group() if self.at("{") else self.atom()

    def brackets(self) -> Node:
        opening = self.expect("(", "[")
        bars, self.bars = self.bars, 0
        items = [] if self.at(")", "]") else self.items()
        closing = self.expect(")", "]")
        self.bars = bars
        if len(items) == 1 and (opening, closing) == ("(", ")"):
            return items[0]
        return Sequence(tuple(items), opening, closing)

    def set(self) -> Node:
        self.expect("\\{")
        items = [] if self.at("\\}") else self.items()
        self.expect("\\}")
        return SetOf(tuple(items))

    def items(self) -> list[Node]:
        items = [self.item()]
        while self.take(",", ";"):
            items.append(self.item())
        return items

    def item(self) -> Node:
        """One of several things between brackets."""
        return self.sum()

    def _absolute(self) -> Node:
        self.expect("|")
        self.bars += 1
        inner = self.sum()
        self.bars -= 1
        self.expect("|")
        return Apply("abs", (inner,))


def name_of(node: Node) -> str:
    match node:
        case Symbol(name) | Constant(name):
            return name
        case Apply(name, args) if name not in ("+", "neg", "/", "+-", "-+"):
            return f"{name}({','.join(map(name_of, args))})"
        case Number(value):
            return str(value)
    raise Unreadable("a subscript or prime of what is no name")


def nary(name: str, args: list[Node]) -> Node:
    return args[0] if len(args) == 1 else Apply(name, tuple(args))


def _is_vector(node: Node) -> bool:
    if isinstance(node, Sequence | Matrix):
        return True
    named = node.name if isinstance(node, Symbol | Apply) else ""
    return named.startswith(("vec ", "hat ")) or named == "cross"
