"""When does a decimal stand for another number? By the digits it shows, never by an absolute distance."""

from __future__ import annotations

from fractions import Fraction

from evalcore.grading.math.exact import exact
from evalcore.grading.math.nodes import Apply, Node, Number, Quantity


def within(decimal: Number, value: Fraction, shown: Fraction) -> bool:
    """Whether a value rounds, or is cut off, to what a decimal shows."""
    if decimal.digits >= 12 and close(value, shown, Fraction(1, 10**11)):
        return True  # the last digits of a binary float are noise
    places = decimal.places or 0
    difference = abs(value - shown)
    unit = Fraction(1, 10**places) if places >= 0 else Fraction(10**-places)
    return difference <= unit / 2 or (difference < unit and abs(shown) < abs(value) and decimal.digits >= 6)


def close(x: Fraction, y: Fraction, relative: Fraction) -> bool:
    return abs(x - y) <= relative * max(abs(x), abs(y))


def decimal(node: Node) -> Number | None:
    """The decimal that a node is, its sign aside."""
    while (isinstance(node, Apply) and node.name == "neg") or isinstance(node, Quantity):
        node = node.args[0] if isinstance(node, Apply) else node.value
    if isinstance(node, Apply) and node.name == "*" and len(node.args) == 2:
        # 1.5 \times 10^3 shows two digits.
        first, power = node.args
        if isinstance(first, Number) and isinstance(power, Apply) and power.name == "^":
            exponent = exact(power.args[1])
            if power.args[0] == Number(Fraction(10), None, 2) and exponent is not None and first.places:
                return Number(first.value, first.places - int(exponent), first.digits)
    return node if isinstance(node, Number) and node.places is not None else None


def is_whole(node: Node) -> bool:
    while isinstance(node, Apply) and node.name == "neg":
        node = node.args[0]
    return isinstance(node, Number)
