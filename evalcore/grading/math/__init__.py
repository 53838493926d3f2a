r"""Grade a mathematical answer: ``\boxed{\frac{1}{2}}`` against ``0.5`` is right.

Stages, each of which decides or passes on, the cheapest first::

    text        the same spelling                                       spelling
    number      the same exact number                                   spelling, exact
    structure   tuples, sets, intervals, equations … part by part       answers, equality, sets
    points      the same values at random points, to 30 digits          points
    algebra     sympy simplifies the difference to zero                 algebra

``quick`` has the first two, for plain numbers, and never takes long; ``thorough`` has all but the last.
"""

from __future__ import annotations

import re
from fractions import Fraction

from evalcore.grading import extract
from evalcore.grading.math.bounds import out_of_bounds, out_of_reach
from evalcore.grading.math.spelling import normalize, squeezed
from evalcore.grading.verdict import Equality, Options

OPTIONS: dict[str, tuple[str, ...]] = {
    **extract.OPTIONS,
    # Is 10% equal to 0.1 alone, or to 10 as well, the sign being taken for a unit?
    "percent": ("either", "value"),
    # How many digits a decimal must show to stand for an exact value: 0.3333 for 1/3.
    "rounding": ("4", "2", "3", "5", "6", "8", "10"),
}

_PLAIN = re.compile(r"-?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d{1,200}(?:\.\d{0,200})?|\.\d{1,200})", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3}){1,66}(?:\.\d{1,200})?", re.ASCII)
_FRACTION = re.compile(
    r"([+-]?)(?:\\frac\{([+-]?\d{1,200})\}\{(\d{1,200})\}|(\d{1,200})/(\d{1,200}))", re.ASCII
)


def quick(answer: str, expected: str, options: Options) -> Equality | None:
    """The verdict if text, numbers or size decide it; never imports sympy, never takes long."""
    if _PLAIN.fullmatch(answer) and _PLAIN.fullmatch(expected):  # most pairs there are
        return Equality(int(answer) == int(expected), "text" if answer == expected else "number")
    if too_long := out_of_reach(answer) or out_of_reach(expected):
        return Equality(True, "text") if answer == expected else Equality(None, too_long)
    found, wanted = squeezed(normalize(answer)), squeezed(reference(expected))
    if too_big := out_of_bounds(found) or out_of_bounds(wanted):
        return Equality(True, "text") if answer == expected else Equality(None, too_big)
    if found == wanted and found:
        return Equality(True, "text")
    if not found or not wanted:
        return Equality(False, "text")
    return _numbers(found, wanted)


def thorough(answer: str, expected: str, options: Options) -> Equality:
    """The verdict of structure and points, or NEEDS_ALGEBRA: bounded, but for processes that can be killed."""
    from evalcore.grading.math.equality import Comparison

    return Comparison(options).equal(normalize(answer), reference(expected))


def with_algebra(answer: str, expected: str, options: Options) -> Equality:
    """The verdict of all stages. Slow to start, and without any bound: only for such processes."""
    from evalcore.grading.math import algebra
    from evalcore.grading.math.equality import Comparison

    return Comparison(options, algebra).equal(normalize(answer), reference(expected))


def vote(answer: str, options: Options) -> str:
    """A key that answers share if they mean the same; as unbounded as thorough."""
    from evalcore.grading.math.voting import key

    return key(answer, options)


def reading(answer: str) -> str:
    """How an answer is understood, in plain notation; or why it is not."""
    from evalcore.grading.math.answers import parse
    from evalcore.grading.math.display import display
    from evalcore.grading.math.lexer import Unreadable

    if too_big := out_of_bounds(answer):
        return f"nothing: {too_big}"
    try:
        return display(parse(reference(answer)))
    except Unreadable as error:
        return f"plain text: {error}"
    except RecursionError:
        return "nothing: nested too deep"


def reference(expected: str) -> str:
    """The normalised reference; some data sets leave its box, or the sentence, around it."""
    return normalize(extract.boxed(expected).answer or expected)


def _numbers(answer: str, expected: str) -> Equality | None:
    found, wanted = exact_number(answer), exact_number(expected)
    if found is None or wanted is None:
        return None
    if found == wanted:
        return Equality(True, "number")
    # 0.3333 against 1/3 is a question of rounding, and so are two decimals that differ in far places.
    if "." in answer or "." in expected:
        near = abs(found - wanted) <= max(abs(found), abs(wanted)) / 10  # what two shown digits may be off
        return None if near else Equality(False, "number")
    return Equality(False, "number")


def exact_number(text: str) -> Fraction | None:
    """The number that a squeezed text is, or None."""
    if _NUMBER.fullmatch(text):
        return Fraction(text)
    if _THOUSANDS.fullmatch(text):
        return Fraction(text.replace(",", ""))
    if match := _FRACTION.fullmatch(text):
        sign, *parts = match.groups()
        top, bottom = (int(part) for part in parts if part)
        return Fraction(-top if sign == "-" else top, bottom) if bottom else None
    return None
