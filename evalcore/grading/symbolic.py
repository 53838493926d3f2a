r"""Compare two expressions with math-verify: ``\sqrt{8}`` equals ``2\sqrt{2}``.

Only its LaTeX grammar is used (latex2sympy2_extended, an ANTLR parser that builds sympy nodes). Its
``ExprExtractionConfig`` hands text to ``sympy.parse_expr``, which evaluates Python, and its extraction by
regular expressions is quadratic on hostile text: neither is called here. Its time limits are SIGALRM,
which C code ignores and threads cannot have: they are off, the process is killed instead (``pool``).

Importing this module takes a second: sympy.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig, normalize_latex
from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy, convert_to_pct
from math_verify import verify
from math_verify.grader import should_treat_as_complex
from math_verify.parser import get_last_eq

from evalcore.grading.verdict import Equality

# The rules math-verify itself applies to a formula, without its search for boxes: the answer is found.
_RULES = NormalizationConfig(
    basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="none", equations=False
)

_NUMBER = re.compile(r"(?:\d{1,200}(?:\.\d{0,200})?|\.\d{1,200})(?:[eE][+-]?\d{1,4})?", re.ASCII)
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)
_PERCENT = re.compile(r"([^%]*[^%\\])\\?%\s*")  # the grammar's own rule for a lone `50\%` raises

log = logging.getLogger(__name__)
# It warns that there is no time limit.
logging.getLogger("math_verify").setLevel(logging.ERROR)


def equal(answer: str, expected: str) -> Equality:
    """Whether two answers mean the same; text that does not parse differs from all other text.

    Raises:
        MemoryError, RecursionError: undecided. Anything else that math-verify raises says so too.
    """
    wanted = _parse(expected)
    if wanted is None:
        return Equality(False, "reference is no formula, and the text differs")
    found = _parse(answer)
    if found is None:
        return Equality(False, "answer is no formula, and the text differs")
    if any(
        side is sympy.nan or side is sympy.zoo for side in (wanted, found)
    ):  # "12:00" is a division by zero to the parser
        return Equality(False, "no finite value, and the text differs")
    return Equality(bool(verify(wanted, found, timeout_seconds=None, raise_on_error=True)), "math-verify")


class _Parser(_Latex2Sympy):  # type: ignore[misc]
    """latex2sympy's parser; but it reads numbers with ``sympy.Number``, which evaluates them as Python."""

    def parse_number(self, text: str) -> sympy.Number:
        text = text.replace(",", "")
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"not a number: {text!r}")
        return sympy.Integer(text) if text.isdigit() else sympy.Float(text)


def _parse(text: str) -> Any:
    """The sympy object of an answer, or None. Of a chain ``a = b = c`` that is no formula, its end."""
    text = normalize_latex(text, _RULES)
    try:
        try:
            return _read(text)
        except (MemoryError, RecursionError):
            raise
        except Exception:
            if (end := get_last_eq(text)) == text:
                raise
            return _read(end)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # the parser raises bare Exceptions, and any other on what it does not expect
        log.debug("not parsed: %r", text, exc_info=True)
        return None


def _read(text: str) -> Any:
    if percentage := _PERCENT.fullmatch(text):
        return convert_to_pct(_read(percentage[1]))
    parser = _Parser(is_real=not should_treat_as_complex(text))
    return parser.parse_number(text.strip()) if _THOUSANDS.fullmatch(text.strip()) else parser.parse(text)
