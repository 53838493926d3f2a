r"""One spelling for what only looks different: ``$1,\!234$`` and ``1,234``; ``\dfrac 12`` and ``\frac12``."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Fullwidth characters and vulgar fractions: ３, ＝, ½.
_PLAIN = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | {
    code: re.sub(r"(\d+)⁄(\d+)", r"\\frac{\1}{\2}", unicodedata.normalize("NFKC", chr(code)))
    for code in (0xBC, 0xBD, 0xBE, *range(0x2150, 0x215F))
}
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
# Spacing commands, and sizes of brackets; `\left\{` and `\{` mean the same. No letter of the answer goes.
_LOOK = re.compile(
    r"\{,\}|,\\!\s*|(?<!\\)\\[!,;:> ]|\\(?:left|right|displaystyle|textstyle|[bB]igg?[lr]?)(?![A-Za-z])\.?|~"
    r"|\\q?quad(?![A-Za-z])"
)
_REPLACED = {"{,}": ",", "~": " ", "\\ ": " ", "\\quad": " ", "\\qquad": " "}
_FRACTION = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_SHORT_FRACTION = re.compile(r"\\frac\s*(\d)\s*(\d)(?!\d)")
_SPACED_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?: \d{3})+(?:\.\d+)?", re.ASCII)
_REMARK = re.compile(r"\s\((?:since|because|where|assuming|as|which)\b[^()]*\)$", re.IGNORECASE)
_FAR_PLACES = re.compile(r"(\.\d{60})\d+")  # nobody's answer; a program's float or loop
_DOLLAR = re.compile(r"(?<!\\)\$")
_ESCAPED_TWICE = re.compile(r"\\\\[a-zA-Z]")
_LINE_BREAK = re.compile(r"\\\\\s*+(?:[a-zA-Z]\s*+)?[&\d-]|&")


@lru_cache(maxsize=4096)
def normalize(answer: str) -> str:
    r"""An answer in one spelling: without delimiters, spacing commands and trailing punctuation.

    Linear in the text. Letters are never deleted: ``\text{east}`` stays what it is.
    """
    answer = _undelimited((answer if answer.isascii() else answer.translate(_PLAIN)).strip())
    if "\\\\" in answer and not _LINE_BREAK.search(answer) and _ESCAPED_TWICE.search(answer):
        answer = answer.replace("\\\\", "\\")  # escaped as in JSON: \\frac
    answer = _FAR_PLACES.sub(r"\1", _LOOK.sub(_look, answer).replace("−", "-"))
    answer = _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", _FRACTION.sub(r"\\frac", answer))
    answer = _undelimited(_ended(_REMARK.sub("", re.sub(r"\s+", " ", answer).strip())))
    return answer.replace(" ", "") if _SPACED_THOUSANDS.fullmatch(answer) else answer


def squeezed(normalized: str) -> str:
    """Without the spaces that mean nothing: those between two letters or digits stay (``1 1/2``)."""
    return re.sub(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])", "", normalized)


def _ended(answer: str) -> str:
    """Without the punctuation around it; but the dots of a number that goes on stay."""
    answer = answer.lstrip(": ")
    while True:
        shorter = answer.rstrip("\\ ;:")
        if shorter.endswith(".") and not shorter.endswith(".."):
            shorter = shorter[:-1]
        if shorter == answer:
            return answer
        answer = shorter


def _look(look: re.Match[str]) -> str:
    return "," if look[0].startswith(",") else _REPLACED.get(look[0], "")


def _undelimited(answer: str) -> str:
    for opening, closing in _DELIMITERS:
        inner = answer[len(opening) : len(answer) - len(closing)]
        if answer.startswith(opening) and answer.endswith(closing) and inner.strip() and opening not in inner:
            return inner.strip()
    dollars = len(_DOLLAR.findall(answer))
    # `odd $n$`; and of a lone one behind, the other half stayed outside the box.
    if dollars and (dollars % 2 == 0 or (dollars == 1 and answer.endswith("$"))):
        return _DOLLAR.sub("", answer).strip()
    return answer
