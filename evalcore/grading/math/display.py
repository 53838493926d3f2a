r"""An answer as it was understood, on one line: what ``evalcore explain`` shows.

>>> display(parse(r"x \in [1, \frac{1}{2}\sqrt2)"))
'x in [1, 1/2 * sqrt(2))'
"""

from __future__ import annotations

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
)

_INFIX = {"+": " + ", "*": " * ", "/": " / ", "^": "^", "+-": " ± ", "-+": " ∓ ", "cup": " ∪ ", "cap": " ∩ "}
_SPELLED = {"oo": "∞", "pi": "π"}


def display(node: Node) -> str:
    """The node in plain notation, with the brackets that its structure needs."""
    match node:
        case Number(value):
            return str(value)
        case Symbol(name):
            return name
        case Constant(name):
            return _SPELLED.get(name, name)
        case Based(digits, base):
            return f"{digits} in base {base}"
        case Apply("neg", (inner,)):
            return f"-{_inside(inner)}"
        case Apply(name, args) if name in _INFIX and len(args) > 1:
            return _INFIX[name].join(map(_inside, args))
        case Apply(name, args):
            return f"{name}({_listed(args)})"
        case Sequence(items, opening, closing):
            return f"{opening}{_listed(items)}{closing}"
        case SetOf(items):
            return f"{{{_listed(items)}}}"
        case Matrix(rows):
            return f"matrix[{'; '.join(map(_listed, rows))}]"
        case Relation(operators, sides):
            rest = "".join(f" {o} {display(s)}" for o, s in zip(operators, sides[1:], strict=True))
            return display(sides[0]) + rest
        case Answers(items):
            return f"{len(items)} answers: {_listed(items)}"
        case Quantity(value, unit):
            return f"{_inside(value)} [{unit}]"
        case Words(text):
            return f"words {text!r}"
    raise AssertionError(f"a node of another type: {node!r}")


def _listed(nodes: tuple[Node, ...]) -> str:
    return ", ".join(map(display, nodes))


def _inside(node: Node) -> str:
    """With brackets, unless it is a single thing."""
    compound = isinstance(node, Apply) and (node.name in _INFIX or node.name == "neg")
    fraction = isinstance(node, Number) and node.value.denominator != 1
    return f"({display(node)})" if compound or fraction else display(node)
