r"""Do two answers mean the same? Structure first, then values.

>>> Comparison({}).equal("x = 1, 2", r"\{2, 1\}")
Equality(equal=True, reason='structure')

Both answers are read (``answers.parse``) and compared as what they are: several answers in any order, tuples
and intervals by their brackets, sets as sets, equations and inequalities by their solutions, numbers
exactly, and the rest by value (``points``). The reason is the furthest stage that was needed. The order
of the two makes no difference.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from types import ModuleType

from evalcore.grading.math import points, sets
from evalcore.grading.math.answers import is_sequence_of_letters, parse
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
    items,
    label,
    member_of,
    names,
    normal,
    same_name,
    unnamed,
)
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
    Words,
    children,
    symbols,
)
from evalcore.grading.math.rounding import close, decimal, is_whole, within
from evalcore.grading.math.units import contradict
from evalcore.grading.verdict import NEEDS_ALGEBRA, Equality, Options

STAGES = ("text", "number", "structure", "points", "algebra")


class _NeedsAlgebra(Exception):
    """The last stage was reached, and is not to be had here."""


class Comparison:
    """One comparison under a benchmark's options; see ``math.OPTIONS``.

    algebra: that module, where the time may be taken to import it. stage: index of the furthest so far.
    """

    def __init__(self, options: Options, algebra: ModuleType | None = None) -> None:
        self.algebra = algebra
        self.percent: str = options.get("percent", "either")
        self.rounding = int(options.get("rounding", "4"))
        self.stage = 0

    def equal(self, answer: str, expected: str) -> Equality:
        """The verdict on two normalised texts; None where it takes algebra, or is beyond all bounds."""
        if is_sequence_of_letters(answer) and is_sequence_of_letters(expected):
            return Equality(answer == expected, "text")
        what = "reference"
        try:
            wanted = parse(expected)
            what = "answer"
            found = parse(answer)
            same = self.same(found, wanted)
        except Unreadable as error:
            return Equality(False, f"text; the {what} is no formula: {error}")
        except _NeedsAlgebra:
            return Equality(None, NEEDS_ALGEBRA)
        except TooBig as error:
            return Equality(None, str(error))
        except RecursionError:
            return Equality(None, "nested too deep")
        return Equality(
            same, STAGES[self.stage] if same is not None else "no value at any point, nor by algebra"
        )

    def _reached(self, stage: str) -> None:
        self.stage = max(self.stage, STAGES.index(stage))

    # --- structure ------------------------------------------------------------------------------------

    def same(self, a: Node, b: Node) -> bool | None:
        """Whether two nodes mean the same; None if it cannot be told here."""
        if a == b:
            return True
        a, b = expanded(a), expanded(b)
        if isinstance(a, Words) or isinstance(b, Words) or (is_letter(a) and is_letter(b)):
            return as_words(a) == as_words(b)
        if isinstance(a, Relation) or isinstance(b, Relation):
            return self._relations(a, b)
        if isinstance(a, Answers) or isinstance(b, Answers):
            self._reached("structure")
            return self._answers(a, b)
        if isinstance(a, Quantity) or isinstance(b, Quantity):
            return self._quantities(a, b)
        if sets.is_set(a) and sets.is_set(b):
            self._reached("structure")
            return self._sets(a, b)
        if isinstance(a, Sequence | SetOf) or isinstance(b, Sequence | SetOf):
            self._reached("structure")
            return self._sequences(a, b)
        if isinstance(a, Matrix) or isinstance(b, Matrix):
            self._reached("structure")
            return self._matrices(a, b)
        if _is_mod(a) or _is_mod(b):
            return self._modulo(a, b)
        return self._values(a, b)

    def _all(self, pairs: list[tuple[Node, Node]]) -> bool | None:
        unknown = False
        for a, b in pairs:
            same = self.same(a, b)
            if same is False:
                return False
            unknown |= same is None
        return None if unknown else True

    def _unordered(self, left: list[Node], right: list[Node]) -> bool | None:
        """Whether each item of one has its own partner in the other."""
        if len(left) != len(right):
            return False
        rest, unknown = list(right), False
        for item in left:
            for i, other in enumerate(rest):
                same = self.same(item, other)
                if same:
                    del rest[i]
                    break
                unknown |= same is None
            else:
                return None if unknown else False
        return True

    def _answers(self, a: Node, b: Node) -> bool | None:
        """Several answers: in any order, but in the same one as a tuple, or where only one side has names."""
        left, right = items(a), items(b)
        if left is None or right is None:
            return self._sets(a, b) if sets.is_set(a) and sets.is_set(b) else False
        labels_left, labels_right = list(map(label, left)), list(map(label, right))
        if sorted(labels_left) == sorted(labels_right) and len(set(labels_left)) == len(left) > 1:
            return self._all(list(zip(sorted(left, key=label), sorted(right, key=label), strict=True)))
        names_left, names_right = names(left), names(right)
        if bool(names_left) != bool(names_right):
            named = names_left or names_right
            left, right = list(map(unnamed, left)), list(map(unnamed, right))
            if len(set(map(str, named))) == len(named) > 1:
                return self._all(list(zip(left, right, strict=True))) if len(left) == len(right) else False
        elif names_left and not any(same_name(x, y) for x in names_left for y in names_right):
            return False
        elif names_left and (len(set(map(str, names_left))) == 1 or len(names_left) < len(left)):
            left, right = list(map(unnamed, left)), list(map(unnamed, right))
        if _is_tuple(a) or _is_tuple(b):
            return self._all(list(zip(left, right, strict=True))) if len(left) == len(right) else False
        return self._unordered(left, right)

    def _sequences(self, a: Node, b: Node) -> bool | None:
        """Tuples by their brackets and order; a set in any order; one value in brackets is that value."""
        for this, other in ((a, b), (b, a)):
            if not isinstance(this, Sequence | SetOf):
                if isinstance(other, Sequence | SetOf) and len(other.items) == 1:
                    return self.same(this, other.items[0])
                if isinstance(this, Matrix) and isinstance(other, Sequence) and 1 in _shape(this):
                    cells = children(this)
                    return len(cells) == len(other.items) and self._all(
                        list(zip(cells, other.items, strict=True))
                    )
                return self._values(a, b) if is_scalar(this) and is_scalar(other) else False
        if isinstance(a, SetOf) and isinstance(b, SetOf):
            return self._unordered(self._distinct(a.items), self._distinct(b.items))
        if isinstance(a, Sequence) and isinstance(b, Sequence):
            if len(a.items) != len(b.items):
                return False
            if (a.opening, a.closing) != (b.opening, b.closing) and len(a.items) == 2:
                return False
            return self._all(list(zip(a.items, b.items, strict=True)))
        listed = next(n for n in (a, b) if isinstance(n, Sequence))
        if (listed.opening, listed.closing) == ("[", "]"):
            return self._unordered(list(children(a)), list(children(b)))
        return False

    def _distinct(self, items: tuple[Node, ...]) -> list[Node]:
        distinct: list[Node] = []
        for item in items:
            if not any(self.same(item, other) for other in distinct):
                distinct.append(item)
        return distinct

    def _sets(self, a: Node, b: Node) -> bool | None:
        left, right = sets.pieces(a), sets.pieces(b)
        if left is None or right is None:
            if isinstance(a, Apply) and isinstance(b, Apply) and a.name == b.name:
                if a.name == "minus":
                    return self._all(list(zip(a.args, b.args, strict=True)))
                return self._unordered(list(a.args), list(b.args))
            listed = isinstance(a, Sequence | SetOf) and isinstance(b, Sequence | SetOf)
            return self._sequences(a, b) if listed else None
        if len(left) != len(right):
            return False
        for one, other in zip(left, right, strict=True):
            if (one.low_closed, one.high_closed) != (other.low_closed, other.high_closed):
                return False
        ends = [
            (x, y) for p, q in zip(left, right, strict=True) for x, y in ((p.low, q.low), (p.high, q.high))
        ]
        return self._all(ends)

    def _matrices(self, a: Node, b: Node) -> bool | None:
        if isinstance(a, Matrix) and isinstance(b, Matrix):
            if _shape(a) != _shape(b):
                return False
            return self._all(list(zip(children(a), children(b), strict=True)))
        return self._values(a, b)

    def _modulo(self, a: Node, b: Node) -> bool | None:
        if _is_mod(a) and _is_mod(b):
            return self._all(list(zip(children(a), children(b), strict=True)))
        residue, other = (a, b) if _is_mod(a) else (b, a)
        return self.same(children(residue)[0], other)

    # --- relations ------------------------------------------------------------------------------------

    def _relations(self, a: Node, b: Node) -> bool | None:
        """Equations and inequalities; ``x = 2`` is 2, ``1 < x < 3`` is ``(1, 3)``, ``x \\in S`` is S."""
        self._reached("structure")
        if isinstance(a, Relation) and isinstance(b, Relation):
            name_a, name_b = assigned(a), assigned(b)
            for name, whole in ((name_a, b), (name_b, a)):
                if name and isinstance(name[0], Words) and not assigned(whole):
                    return self.same(name[1], whole)  # `Domain: x > 3`
            if name_a and name_b:
                if not same_name(name_a[0], name_b[0]):
                    return False
                return self.same(name_a[1], name_b[1])
            if member := member_of(a):
                return self.same(member, b)
            if member := member_of(b):
                return self.same(a, member)
            if sets.is_set(a) and sets.is_set(b):
                return self._sets(a, b) if symbols(a) == symbols(b) else False
            if len(a.operators) == len(b.operators) == 1:
                return self._one_relation(a, b)
            if a.operators == b.operators:
                return self._all(list(zip(a.sides, b.sides, strict=True)))
            if a.operators == tuple(OPPOSITE.get(o, o) for o in reversed(b.operators)):
                return self._all(list(zip(a.sides, reversed(b.sides), strict=True)))
            return False
        relation, other = (a, b) if isinstance(a, Relation) else (b, a)
        assert isinstance(relation, Relation)
        if named := assigned(relation):
            return self.same(named[1], other)
        if isinstance(other, Answers):
            return self._answers(a, b)
        if sets.is_set(relation) and sets.is_set(other):
            return self._sets(relation, other)
        values = chain_values(relation)
        verdicts = [self.same(value, other) for value in values]
        return True if True in verdicts else None if None in verdicts else False

    def _one_relation(self, a: Relation, b: Relation) -> bool | None:
        """Both as ``f = 0``, ``f > 0`` …: the same if one f is a multiple of the other."""
        (kind_a, f), (kind_b, g) = normal(a), normal(b)
        if kind_a != kind_b or f is None or g is None:
            if a.operators == b.operators == ("in",):
                return self._all(list(zip(a.sides, b.sides, strict=True)))
            return False
        self._reached("points")
        return points.proportional(f, g, positive=kind_a in (">", ">="))

    # --- quantities and values ------------------------------------------------------------------------

    def _quantities(self, a: Node, b: Node) -> bool | None:
        unit_a, value_a = (a.unit, a.value) if isinstance(a, Quantity) else ("", a)
        unit_b, value_b = (b.unit, b.value) if isinstance(b, Quantity) else ("", b)
        if {unit_a, unit_b} == {"deg", "rad"}:
            degrees, radians = (value_a, value_b) if unit_a == "deg" else (value_b, value_a)
            return self._values(
                Apply("/", (Apply("*", (degrees, Constant("pi"))), Number(Fraction(180)))), radians
            )
        units_a, units_b = _units(a), _units(b)
        if any(contradict(x, y) for x in units_a - units_b for y in units_b - units_a):
            return False
        if "%" in (unit_a, unit_b) and unit_a != unit_b:
            percent, other = (value_a, value_b) if unit_a == "%" else (value_b, value_a)
            hundredth = Apply("/", (percent, Number(Fraction(100))))
            if self.percent == "either" and (same := self.same(percent, other)):
                return same
            return self._values(hundredth, other)
        same = self.same(value_a, value_b)
        if same is False and "deg" in (unit_a, unit_b) and unit_a != unit_b:
            return self._values(a, b)  # 90 degrees and pi/2
        return same

    def _values(self, a: Node, b: Node) -> bool | None:
        for one, other in ((a, b), (b, a)):
            if isinstance(one, Based) and not isinstance(other, Based) and _digits(other) == one.digits:
                self._reached("number")
                return True  # the base is in the question
        if not (is_scalar(a) and is_scalar(b)):
            return False
        if any(isinstance(n, Based) and exact(n) is None for n in (a, b)):
            return False  # 9 is no digit in base 8
        x, y = _exact_or_huge(a), _exact_or_huge(b)
        if x is _HUGE or y is _HUGE:
            if x is y:
                raise TooBig("two numbers of too many digits")
            return False
        if isinstance(x, Fraction) and isinstance(y, Fraction):
            self._reached("number")
            return x == y or self._rounds(a, b, x, y)
        self._reached("points")
        if self._rounds_value(a, b, points.approximation):
            return True
        if _infinity(a) or _infinity(b):
            return _infinity(a) == _infinity(b)
        same = points.agree(a, b)
        if same is None:
            self._reached("algebra")
            if self.algebra is None:
                raise _NeedsAlgebra
            same = self._rounds_value(a, b, self.algebra.approximation) or self.algebra.agree(a, b)
        return same

    def _rounds(self, a: Node, b: Node, x: Fraction, y: Fraction) -> bool:
        """Whether a decimal is a rounded form of the other number, to as many digits as it shows."""
        first, second = decimal(a), decimal(b)
        if first is None and second is None:
            return False
        if first is None or second is None:
            shown, value = (first, y) if first else (second, x)
            assert shown is not None
            other = b if first else a
            if isinstance(other, Number) or is_whole(other):
                # A whole number is no rounding: 1001 is not 1001.5; but 11.999999999 is 12.
                return shown.digits >= 9 and close(x, y, Fraction(1, 10**8))
            return shown.digits >= self.rounding and within(shown, value, x if first else y)
        shorter = first if first.digits <= second.digits else second
        longer_value = y if shorter is first else x
        shorter_value = x if shorter is first else y
        if shorter.digits >= 6 and within(shorter, longer_value, shorter_value):
            return True
        return max(first.digits, second.digits) >= 12 and close(x, y, Fraction(1, 10**10))

    def _rounds_value(self, a: Node, b: Node, approximation: Callable[[Node], Fraction | None]) -> bool:
        """Whether one is a decimal that stands for the value of the other."""
        for one, other in ((a, b), (b, a)):
            shown = decimal(one)
            if shown is None or symbols(other) or shown.digits < self.rounding:
                continue
            value, rounded = approximation(other), exact(one)
            if value is not None and rounded is not None and within(shown, value, rounded):
                return True
        return False


_HUGE = object()


def _exact_or_huge(node: Node) -> Fraction | object | None:
    """Its exact value; _HUGE for a power or factorial that is certainly beyond every number written out."""
    try:
        return exact(node)
    except TooBig:
        if isinstance(node, Apply) and node.name in ("^", "!", "binom"):
            try:
                base = exact(node.args[0])
            except TooBig:
                return _HUGE
            if base is not None and abs(base) > 1 and not _negative_exponent(node):
                return _HUGE
        raise


def _negative_exponent(node: Apply) -> bool:
    return node.name == "^" and isinstance(node.args[1], Apply) and node.args[1].name == "neg"


def _digits(node: Node) -> str | None:
    return str(node.value) if isinstance(node, Number) and node.places is None else None


def _infinity(node: Node) -> int | None:
    if node == Constant("oo"):
        return 1
    if isinstance(node, Apply) and node.name == "neg" and node.args[0] == Constant("oo"):
        return -1
    return None


def _units(node: Node) -> set[str]:
    r"""The units of ``10\%\text{ increase}``, one around the other."""
    units = set()
    while isinstance(node, Quantity):
        units.add(node.unit)
        node = node.value
    return units


def _is_mod(node: Node) -> bool:
    return isinstance(node, Apply) and node.name == "mod"


def _is_tuple(node: Node) -> bool:
    return isinstance(node, Sequence) and node.opening == "("


def _shape(matrix: Matrix) -> tuple[int, int]:
    return len(matrix.rows), len(matrix.rows[0])
