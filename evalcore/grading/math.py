r"""Grade a mathematical answer: ``\boxed{\frac{1}{2}}`` against ``0.5`` is right.

Three stages, each decides or passes on: the same normalised text, the same exact number, and then
math-verify (``symbolic``), the only one that needs sympy and the only one that may take long.
"""

from __future__ import annotations

import re
from fractions import Fraction

from evalcore.grading import extract as _extract
from evalcore.grading.verdict import Equality, Extraction, Options

OPTIONS: dict[str, tuple[str, ...]] = _extract.OPTIONS

MAX_LENGTH = 1000
MAX_NESTING = 24
MAX_DIGITS = 200
MAX_CELLS = 100

_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
# Spacing commands, and sizes of brackets; `\left\{` and `\{` mean the same. No letter of the answer goes.
_LOOK = re.compile(r"(?<!\\)\\[!,;: ]|\\(?:left|right|displaystyle|big|Big|bigg|Bigg)(?![A-Za-z])\.?|\{,\}|~")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_NUMBER = re.compile(r"[+-]?(?:\d{1,200}(?:\.\d{0,200})?|\.\d{1,200})", re.ASCII)
_FRACTION = re.compile(
    r"([+-]?)(?:\\frac\{([+-]?\d{1,200})\}\{(\d{1,200})\}|(\d{1,200})/(\d{1,200}))", re.ASCII
)
_MATH_VERIFY_PLACES = 6


def extract(generation: str, options: Options) -> Extraction:
    """The answer of a response; options: ``extract: boxed`` (default) or ``relaxed``."""
    return _extract.extract(generation, options.get("extract", OPTIONS["extract"][0]))


def quick(answer: str, expected: str) -> Equality | None:
    """The verdict if text, numbers or size decide it; never imports sympy, never takes long."""
    if too_big := out_of_bounds(answer) or out_of_bounds(expected):
        return Equality(True, "text") if answer == expected else Equality(None, too_big)
    answer, expected = normalize(answer), _reference(expected)
    if answer == expected and answer:
        return Equality(True, "text")
    if not answer or not expected:
        return Equality(False, "text")
    return _numbers(answer, expected)


def thorough(answer: str, expected: str) -> Equality:
    """The verdict of math-verify. Slow to start, unbounded in time and memory: for killable processes."""
    from evalcore.grading import symbolic

    return symbolic.equal(normalize(answer), _reference(expected))


def normalize(answer: str) -> str:
    r"""One spelling for what only looks different: ``$1,\!234$`` and ``1234``; ``\dfrac 12``, ``\frac12``.

    Linear in the text. Letters are never deleted: ``\text{east}`` stays what it is.
    """
    answer = answer.strip()
    for opening, closing in _DELIMITERS:
        inner = answer[len(opening) : len(answer) - len(closing)]
        if answer.startswith(opening) and answer.endswith(closing) and inner.strip() and opening not in inner:
            answer = inner.strip()
            break
    if "matrix" not in answer and re.search(r"\\\\[a-z]", answer):  # escaped as in JSON: \\frac
        answer = answer.replace("\\\\", "\\")
    answer = _LOOK.sub(lambda look: {"{,}": ",", "~": " ", "\\ ": " "}.get(look[0], ""), answer)
    answer = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", answer).replace("−", "-")
    answer = re.sub(r"\\frac\s*(\d)\s*(\d)(?!\d)", r"\\frac{\1}{\2}", answer)
    # A space between two letters or digits means something ("1 1/2"); elsewhere it does not.
    answer = re.sub(r"\s+", " ", answer)
    answer = re.sub(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])", "", answer.strip().rstrip(".\\ "))
    return answer.replace(",", "") if _THOUSANDS.fullmatch(answer) else answer


def out_of_bounds(text: str) -> str | None:
    """Why a text is too big to be parsed, or None."""
    if len(text) > MAX_LENGTH:
        return f"too long ({len(text)} characters)"
    depth = deepest = 0
    for character in text:
        depth += (character in "{[(") - (character in "}])")
        deepest = max(deepest, depth)
    if deepest > MAX_NESTING:
        return f"nested too deep ({deepest})"
    if text.count("&") > MAX_CELLS:
        return f"too many cells ({text.count('&')})"
    if re.search(rf"\d{{{MAX_DIGITS + 1}}}", text):
        return f"a number of more than {MAX_DIGITS} digits"
    return None


def _reference(expected: str) -> str:
    """The normalised reference; some data sets leave its box around it."""
    return normalize(_extract.boxed(expected).answer or expected)


def _numbers(answer: str, expected: str) -> Equality | None:
    found, wanted = exact_number(answer), exact_number(expected)
    if found is None or wanted is None:
        return None
    if found == wanted:
        return Equality(True, "number")
    # 0.333 against 1/3 is a question of rounding, and so are two decimals that differ in far places.
    decimals = [len(text.partition(".")[2]) for text in (answer, expected)]
    fraction = "/" in answer + expected or "frac" in answer + expected
    if any(decimals) and (fraction or max(decimals) >= _MATH_VERIFY_PLACES):
        return None
    return Equality(False, "number")


def exact_number(text: str) -> Fraction | None:
    """The number that a normalised text is, or None."""
    if _NUMBER.fullmatch(text):
        return Fraction(text)
    if match := _FRACTION.fullmatch(text):
        sign, *parts = match.groups()
        top, bottom = (int(part) for part in parts if part)
        return Fraction(-top if sign == "-" else top, bottom) if bottom else None
    return None
