r"""What commands and functions take: ``\frac{…}{…}``, ``\sqrt[3]{…}``, ``\sin^2 x``, matrices, sums, integrals."""

from __future__ import annotations

from fractions import Fraction

from evalcore.grading.math.lexer import Token, Unreadable
from evalcore.grading.math.literals import number_of
from evalcore.grading.math.nodes import (
    Apply,
    Constant,
    Matrix,
    Node,
    Number,
    Sequence,
    SetOf,
    Symbol,
    replace,
)
from evalcore.grading.math.parser import Expressions, name_of, nary
from evalcore.grading.math.vocabulary import (
    DECORATED,
    DELTA,
    GREEK,
    INVERSE,
    MATRICES,
    PLAIN,
    SAME_NAME,
    SILENT,
)


class Commands(Expressions):
    """The grammar with everything that starts with a name."""

    def command(self) -> Node:
        name = self.next().text
        if name in ("frac", "dfrac", "tfrac", "cfrac"):
            return _derivative(Apply("/", (self._part(), self._part())))
        if name in ("binom", "dbinom", "tbinom"):
            return Apply("binom", (self._part(), self._part()))
        if name == "infty":
            return Constant("oo")
        if name == "pi":
            return Constant("pi")
        if name in ("emptyset", "varnothing"):
            return SetOf(())
        if name == "begin":
            return self._environment()
        if name in PLAIN:
            return self.argument()
        if name in ("mathbb", "Bbb"):
            return Symbol(f"mathbb {self._raw()}")
        if name in DECORATED:
            return Symbol(f"{DECORATED[name]} {self._raw()}")
        if name in ("angle", "measuredangle") and (corners := self._corners()):
            return Symbol(f"angle {min(corners, corners[::-1])}")
        if name in SILENT:
            return self.power()
        if name in DELTA:
            return Symbol(f"{name} {name_of(self.atom())}")
        if name in ("sum", "prod", "int", "lim"):
            return self._big(name)
        if name in ("circ", "end", "not", "stackrel", "overset", "underset", "cancel", "phantom", "color"):
            raise Unreadable(f"the command {name}")
        return Symbol(name)

    def _part(self) -> Node:
        r"""A part of a fraction: of ``\frac12`` each digit is one."""
        token = self.token
        if token.kind == "number" and len(token.text) > 1 and token.text.isdigit():
            self.tokens[self.position] = Token("number", token.text[1:], False)
            return number_of(token.text[0])
        return self.argument()

    def _environment(self) -> Node:
        name = self._raw()
        if name not in MATRICES:
            raise Unreadable(f"the environment {name}")
        if name == "array" and self.at("{"):
            self._raw()
        rows: list[tuple[Node, ...]] = []
        row: list[Node] = []
        bars, self.bars = self.bars, 0
        while not self.at_name("end"):
            if self.take("newline"):
                continue
            row.append(self.sum())
            if self.at("newline") or self.at_name("end"):
                rows.append(tuple(row))
                row = []
            else:
                self.expect("&")
        self.bars = bars
        self.next()
        if self._raw() != name or not rows or len({len(r) for r in rows}) > 1 or row:
            raise Unreadable("a matrix whose rows differ")
        matrix = Matrix(tuple(rows))
        return Apply("det", (matrix,)) if name in ("vmatrix", "Vmatrix") else matrix

    def function(self) -> Node:
        name = self.next().text
        name = SAME_NAME.get(name, name)
        if name == "sqrt":
            return self._root()
        if name == "cbrt":
            return Apply("root", (self.argument(), Number(Fraction(3))))
        base: Node | None = None
        power: Node | None = None
        if (
            name == "log"
            and self.token.kind == "number"
            and not self.token.spaced
            and self.peek().text == "("
        ):
            base = self._number()  # log2(8)
        while self.at("_", "^"):
            if self.next().text == "_":
                base = self.argument()
            else:
                power = self._exponent()
        if self.at("{"):
            arguments = [self.group()]
        elif self.at("(", "["):
            inner = self.brackets()
            arguments = list(inner.items) if isinstance(inner, Sequence) else [inner]
        else:
            arguments = [self._bare_argument()]
        if power == Apply("neg", (Number(Fraction(1), None, 1),)) and name in INVERSE:
            name, power = INVERSE[name], None
        if base is not None:
            if name not in ("log", "min", "max") or len(arguments) != 1:
                raise Unreadable(f"{name} with a subscript")
            arguments.append(base)
        applied: Node = Apply(name, tuple(arguments))
        return applied if power is None else Apply("^", (applied, power))

    def _bare_argument(self) -> Node:
        r"""``\sin 2x`` is sin(2x): the factors that follow, up to an operator, bracket or another function."""
        factors = [self.power()]
        while (self.token.kind in ("number", "symbol") and not self._at_differential()) or (
            self.token.kind == "name" and (self.token.text in ("pi", "frac") or self.token.text in GREEK)
        ):
            factors.append(self.power())
        if self.at("/") and self.peek().kind in ("number", "symbol"):
            self.next()
            return Apply("/", (nary("*", factors), self.power()))
        return nary("*", factors)

    def _corners(self) -> str | None:
        """The three letters that name an angle, whose middle one is its vertex; else nothing is taken."""
        letters = self.tokens[self.position : self.position + 3]
        if not all(token.kind == "symbol" and token.text.isupper() for token in letters):
            return None
        self.position += 3
        return "".join(token.text for token in letters)

    def _at_differential(self) -> bool:
        return self.integrals > 0 and self.token.text == "d" and self.peek().kind == "symbol"

    def _root(self) -> Node:
        degree: Node | None = None
        if self.take("["):
            degree = self.sum()
            self.expect("]")
        inner = self.argument() if self.at("{", "(") else self._postfix()
        return Apply("sqrt", (inner,)) if degree is None else Apply("root", (inner, degree))

    def _big(self, name: str) -> Node:
        r"""``\sum_{i=1}^{n} …``, ``\int_a^b … dx``, ``\lim_{x \to a} …``: variable, bounds, body."""
        lower: Node | None = None
        upper: Node | None = None
        variable: Node | None = None
        while self.at("_", "^"):
            if self.next().text == "^":
                upper = self.argument()
                continue
            if not self.take("{"):
                lower = self.atom()
                continue
            lower = self.sum()
            if self.take("=", "to"):
                variable, lower = lower, self.sum()
                self.take("+", "-")
            self.expect("}")
        if name == "int":
            self.integrals += 1
            inner = self.product()
            self.integrals -= 1
            factors = list(inner.args) if isinstance(inner, Apply) and inner.name == "*" else [inner]
            if len(factors) < 2 or factors[-2] != Symbol("d") or not isinstance(factors[-1], Symbol):
                raise Unreadable("an integral without its variable")
            variable, body = factors[-1], nary("*", factors[:-2] or [Number(Fraction(1))])
        else:
            body = self.product()
        if isinstance(variable, Constant):  # the i of a sum is no root of -1
            body, variable = replace(body, variable, Symbol(variable.name)), Symbol(variable.name)
        parts = [p for p in (variable, lower, upper) if p is not None]
        if not isinstance(variable, Symbol) or (name == "lim") != (len(parts) == 2):
            raise Unreadable(f"{name} without its bounds")
        return Apply(name, (body, *parts))


def _derivative(quotient: Apply) -> Node:
    """``dy/dx`` is one symbol, in which no d cancels."""
    match quotient.args:
        case (Apply("*", (Symbol("d"), Symbol(above))), Apply("*", (Symbol("d"), Symbol(below)))):
            return Symbol(f"d{above}/d{below}")
    return quotient
