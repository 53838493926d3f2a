r"""Grade by exact match: ``\boxed{Paris}`` against ``Paris``. Case counts, the amount of white space does not."""

from __future__ import annotations

from evalcore.grading import extract as _extract
from evalcore.grading.verdict import Equality, Extraction, Options

OPTIONS = _extract.OPTIONS


def extract(generation: str, options: Options) -> Extraction:
    """The answer of a response; options: ``extract: boxed`` (default) or ``relaxed``."""
    return _extract.extract(generation, options.get("extract", OPTIONS["extract"][0]))


def quick(answer: str, expected: str) -> Equality:
    """Whether the texts are the same."""
    return Equality(answer.split() == expected.split(), "text")
