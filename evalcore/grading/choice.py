r"""Grade a multiple-choice answer: ``Answer: C``, ``\boxed{C}``, ``**(C)**`` are all C.

The last announced letter wins, boxed or in words: a boxed equation does not beat a final ``Answer: D``.
"""

from __future__ import annotations

import re

from evalcore.grading.extract import after_reasoning
from evalcore.grading.verdict import Equality, Extraction, Options

OPTIONS: dict[str, tuple[str, ...]] = {}

_LETTER = r"(?:\\(?:text|textbf|mathrm|mathbf)\{)?\s{0,3}[(\[]?\s?([A-Z])\s?(?:[)\]]|(?![A-Za-z0-9'’^_]))"
_BOX = re.compile(r"\\(?:boxed|fbox)\s?\{\s?" + _LETTER + r"(?=[\s.:})\]])")
# "Option A is wrong" announces nothing: it takes "answer" or "correct option", and "is" or a colon.
_WORDS = re.compile(
    r"(?i:\b(?:answer|(?:correct|right|best)\s(?:choice|option))\b)[*_]{0,3}(?:\s(?i:choice|option))?"
    r"(?:\s(?i:is)\b|\s?[:=])(?:\s(?i:choice|option))?[\s*_:=$]{0,6}" + _LETTER
)
# The letter alone on a line, in whatever dress: `C`, `(C)`, `**C**`, `C.`
_ALONE = re.compile(r"^[\s*_$]{0,6}" + _LETTER + r"[.):\s*_$}]{0,6}$", re.MULTILINE)


def extract(generation: str, options: Options) -> Extraction:
    """The letter a response settles on: the last announced one, else the last alone on its line."""
    answer, reason = after_reasoning(generation)
    if answer is None:
        return Extraction(None, reason)
    announced = [*_BOX.finditer(answer), *_WORDS.finditer(answer)]
    if announced:
        return Extraction(max(announced, key=lambda match: match.start(1))[1], "announced")
    alone = _ALONE.findall(answer)
    if alone:
        return Extraction(alone[-1], "alone on its line")
    return Extraction(None, "no letter announced")


def quick(answer: str, expected: str) -> Equality:
    """Whether the letters are the same; the reference may be written ``C``, ``c``, ``(C)`` or ``C.``."""
    return Equality(answer == expected.strip().strip("()[]$.: ").upper(), "letter")
