r"""Graders: is the answer in this response the expected one?

>>> GRADERS["math"].grade(r"So it is $\boxed{\frac{1}{2}}$.", "0.5", {})
Verdict(predicted_answer='\\frac{1}{2}', correct=True, reason='math-verify')

A grader has two halves. ``extract`` finds the answer in a response: linear in its length, so it runs
anywhere. ``quick`` and ``thorough`` compare an answer with the reference: ``quick`` decides what needs
no algebra and otherwise passes (None); ``thorough`` may take forever on hostile text, so stages run it
in ``pool.Pool`` only, whose processes are killed at a deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from evalcore.errors import ConfigError
from evalcore.grading import choice, exact, math
from evalcore.grading.verdict import Equality, Extraction, Options, Verdict

__all__ = [
    "GRADERS",
    "VERSION",
    "Equality",
    "Extraction",
    "Grader",
    "Options",
    "Verdict",
    "check_options",
    "normalize",
]

VERSION = "1"
"""Raised whenever a verdict may differ: it is part of ``grading_id``, so everything is graded again."""

normalize = math.normalize


@dataclass(frozen=True)
class Grader:
    """A grader's halves, as plain functions; options are those of the benchmark.

    quick: the verdict that needs no algebra, None to pass on to thorough.
    thorough: decides the rest; None where quick decides everything.
    options: the valid values of each option, the default first.
    """

    extract: Callable[[str, Options], Extraction]
    quick: Callable[[str, str], Equality | None]
    thorough: Callable[[str, str], Equality] | None
    options: dict[str, tuple[str, ...]]

    def grade(self, generation: str, expected_answer: str, options: Options) -> Verdict:
        """Grade one response in this process, with no limit of time or memory: for trusted text only."""
        answer, reason = self.extract(generation, options)
        if answer is None:
            return Verdict(None, False, reason)
        equality = self.quick(answer, expected_answer)
        if equality is None:
            assert self.thorough is not None, "quick passes only where there is a thorough"
            equality = self.thorough(answer, expected_answer)
        return Verdict(answer, *equality)


GRADERS: dict[str, Grader] = {
    "math": Grader(math.extract, math.quick, math.thorough, math.OPTIONS),
    "multiple_choice": Grader(choice.extract, choice.quick, None, choice.OPTIONS),
    "exact": Grader(exact.extract, exact.quick, None, exact.OPTIONS),
}


def check_options(grader: str, options: Options) -> Grader:
    """Return the grader of a name; ConfigError lists the valid ones if it, or an option, is not one."""
    if grader not in GRADERS:
        raise ConfigError(f"unknown grader {grader!r}; valid: {', '.join(GRADERS)}")
    valid = GRADERS[grader].options
    for name, value in options.items():
        if name not in valid:
            raise ConfigError(f"grader {grader}: unknown option {name!r}; valid: {', '.join(valid)}")
        if value not in valid[name]:
            raise ConfigError(f"grader {grader}: {name} is {value!r}; valid: {', '.join(valid[name])}")
    return GRADERS[grader]
