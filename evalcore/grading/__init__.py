r"""Graders: is the answer in this response the expected one?

>>> grader = GRADERS["math"]
>>> grader.extract(r"So it is $\boxed{\frac{1}{2}}$.", {})
Extraction(answer='\\frac{1}{2}', reason='boxed')
>>> grader.quick(r"\frac{1}{2}", "0.5", {})
Equality(equal=True, reason='number')

A grader has two halves. ``extract`` finds the answer in a response: linear in its length, so it runs
anywhere. The rest compares an answer with the reference: ``quick`` decides what plain text and numbers can,
and otherwise passes (None); ``thorough`` and ``algebra`` may take forever on hostile text, so stages run
them in ``pool.Pool`` only, whose processes are killed at a deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from evalcore.errors import ConfigError
from evalcore.grading import choice, exact, extract, math
from evalcore.grading.verdict import Equality, Extraction, Options

__all__ = [
    "GRADERS",
    "VERSION",
    "Equality",
    "Extraction",
    "Grader",
    "Options",
    "check_options",
]

VERSION = "4"
"""Raised whenever a verdict may differ: it is part of ``grading_id``, so everything is graded again."""


@dataclass(frozen=True)
class Grader:
    """A grader's halves, as plain functions; options are those of the benchmark.

    quick: the verdict that plain text and numbers allow, None to pass on to thorough.
    thorough: decides the rest, but for NEEDS_ALGEBRA; None where quick decides everything.
    algebra: decides that too, after an import that takes a second.
    vote: a key that answers share if they mean the same; None: their text is.
    options: the valid values of each option, the default first.
    """

    extract: Callable[[str, Options], Extraction]
    quick: Callable[[str, str, Options], Equality | None]
    thorough: Callable[[str, str, Options], Equality] | None
    algebra: Callable[[str, str, Options], Equality] | None
    vote: Callable[[str, Options], str] | None
    options: dict[str, tuple[str, ...]]


GRADERS: dict[str, Grader] = {
    "math": Grader(extract.by_options, math.quick, math.thorough, math.with_algebra, math.vote, math.OPTIONS),
    "multiple_choice": Grader(choice.extract, choice.quick, None, None, None, choice.OPTIONS),
    "exact": Grader(extract.by_options, exact.quick, None, None, None, extract.OPTIONS),
}


def check_options(grader: str, options: Options) -> Grader:
    """Return the grader of a name; ConfigError lists the valid ones if it, or an option, is not one."""
    if grader not in GRADERS:
        raise ConfigError(f"unknown grader {grader!r}; valid: {', '.join(GRADERS)}")
    valid = GRADERS[grader].options
    for name, value in options.items():
        if name not in valid:
            raise ConfigError(f"grader {grader}: unknown option {name!r}; valid: {', '.join(valid)}")
        if str(value) not in valid[name]:  # in YAML a number of digits is a number
            raise ConfigError(f"grader {grader}: {name} is {value!r}; valid: {', '.join(valid[name])}")
    return GRADERS[grader]
