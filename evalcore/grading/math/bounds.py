"""What is too big to be parsed: looked for in one pass over the characters, before anything else is done."""

from __future__ import annotations

import re

MAX_LENGTH = 2000
MAX_NESTING = 24
MAX_DIGITS = 400
MAX_CELLS = 100
MAX_ITEMS = 200

_DIGITS = re.compile(rf"\d{{{MAX_DIGITS + 1}}}")
# Between answers, elements, the parts of a union, the rows of a matrix.
_SEPARATOR = re.compile(
    r"[,;∪∩∨∧]|\\(?:cup|cap|lor|vee|land|wedge|\\)|(?<![A-Za-z])(?:and|or|U)(?![A-Za-z])", re.IGNORECASE
)


def out_of_reach(text: str) -> str | None:
    """Why a text is too long even to be normalised, or None."""
    return f"too long ({len(text)} characters)" if len(text) > 10 * MAX_LENGTH else None


def out_of_bounds(text: str) -> str | None:
    """Why a normalised text is too big to be parsed, or None."""
    if len(text) > MAX_LENGTH:
        return f"too long ({len(text)} characters)"
    if len(text) <= MAX_NESTING:
        return None
    depth = deepest = 0
    for character in text:
        if character in "{[(":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "}])":
            depth -= 1
    if deepest > MAX_NESTING:
        return f"nested too deep ({deepest})"
    if text.count("^") + text.count("**") > MAX_NESTING * 4:
        return "too many powers"
    if text.count("&") > MAX_CELLS:
        return f"too many cells ({text.count('&')})"
    # No text is looked through that is too short for them.
    if len(text) > MAX_ITEMS and (separators := len(_SEPARATOR.findall(text))) > MAX_ITEMS:
        return f"too many items ({separators + 1})"
    if _DIGITS.search(text):
        return f"a number of more than {MAX_DIGITS} digits"
    return None
