r"""Find the answer in a response: ``"… so it is $\boxed{\frac{1}{2}}$."`` → ``\frac{1}{2}``.

Every function here takes time linear in the text, whatever the text: each pattern scans a character a
bounded number of times, and braces are matched in one pass.
"""

from __future__ import annotations

import re
from collections import deque

from evalcore.grading.verdict import Extraction

OPTIONS: dict[str, tuple[str, ...]] = {"extract": ("boxed", "relaxed")}

_THINK, _END_THINK = "<think>", "</think>"
# A box, a brace, or an escaped character, which is no brace. `\\boxed{` with two backslashes (a model
# that escapes as in JSON) is a box too: the escape must not swallow the second one.
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*(\{)|\\(?!\\(?:boxed|fbox)).|[{}]", re.DOTALL)
_ANNOUNCED = re.compile(r"\banswer[*_]{0,3}(?:\s+is\b|\s?[:=])[*_:=\s]{0,6}|####\s?", re.IGNORECASE)
# Between \( and \) no other of them: each character is looked at once, however many stay open.
_FORMULA = re.compile(
    r"\$\$?([^$]+)\$\$?|\\\(((?:[^\\]|\\[^()\[\]])+)\\\)|\\\[((?:[^\\]|\\[^()\[\]])+)\\\]", re.DOTALL
)
_NUMBER = re.compile(r"(?<![\w.])[-−]?[$€£]?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?(?:\s?\\?%)?")
_FEW_WORDS = 4
_LONGEST_LINE = 1000  # of an announced answer; what goes on for longer is no answer


def extract(text: str, mode: str) -> Extraction:
    """The answer of a response. mode ``boxed``: the last box; ``relaxed``: else announced, else final value."""
    answer, reason = after_reasoning(text)
    if answer is None:
        return Extraction(None, reason)
    found = boxed(answer)
    if found.answer is None and mode == "relaxed":
        return announced(answer) or final_value(answer) or Extraction(None, f"{found.reason}, no number")
    return found


def after_reasoning(text: str) -> Extraction:
    """What follows ``</think>``: reasoning never counts, and an unclosed block leaves no answer.

    The opening tag may be missing: some chat templates put it into the prompt.
    """
    text = text[text.rfind(_END_THINK) + len(_END_THINK) :] if _END_THINK in text else text
    if _THINK in text:
        return Extraction(None, "reasoning not finished")
    if not text.strip():
        return Extraction(None, "empty response")
    return Extraction(text, "")


def boxed(text: str) -> Extraction:
    r"""The content of the last balanced ``\boxed{…}`` or ``\fbox{…}`` that holds anything.

    A malformed or empty last box falls back to the one before.
    """
    open_braces: list[tuple[int, bool]] = []  # (where its content starts, whether it is a box)
    start = end = -1
    opened = False
    for token in _BRACES.finditer(text):
        if token[0][-1] == "{" and (token[1] or len(token[0]) == 1):
            open_braces.append((token.end(), bool(token[1])))
            opened |= bool(token[1])
        elif token[0] == "}" and open_braces:
            content, is_box = open_braces.pop()
            # Of nested boxes the inner one closes first and starts last: it stays.
            if is_box and content > start and not _is_blank(text, content, token.start()):
                start, end = content, token.start()
    if start >= 0:
        return Extraction(text[start:end].strip(), "boxed")
    return Extraction(None, "box empty or not closed" if opened else "no box")


def announced(text: str) -> Extraction | None:
    """What the last ``answer is …``, ``Answer: …`` or ``#### …`` says: its formula, or its few words.

    Of a whole sentence (``Answer: the largest number of points is 19.``) the last formula or number.
    """
    last = _last(_ANNOUNCED, text)
    if last is None:
        return None
    line = text[last.end() : last.end() + _LONGEST_LINE].lstrip().split("\n\n")[0]
    # Only a formula at the start is the answer: "5 apples, since $2+3=5$".
    if (formula := _FORMULA.search(line)) and formula.start() < 3:
        return Extraction((formula[1] or formula[2] or formula[3]).strip(), "announced")
    sentence = re.split(r"\.(?:\s|$)|\n", line, maxsplit=1)[0].strip(" *_`")
    if len(sentence.split()) > _FEW_WORDS and (found := final_value(sentence)):
        return Extraction(found.answer, "announced")
    return Extraction(sentence, "announced") if sentence else None


def final_value(text: str) -> Extraction | None:
    """The last formula of a response, or its last number if that comes after all formulas."""
    formula = _last(_FORMULA, text)
    if number := _last(_NUMBER, text, formula.end() if formula else 0):
        return Extraction(number[0], "final number")
    if formula:
        return Extraction((formula[1] or formula[2] or formula[3]).strip(), "final formula")
    return None


def _last(pattern: re.Pattern[str], text: str, start: int = 0) -> re.Match[str] | None:
    """The last match, in one pass and without a list of all."""
    matches = deque(pattern.finditer(text, start), maxlen=1)
    return matches[0] if matches else None


def _is_blank(text: str, start: int, end: int) -> bool:
    return not re.compile(r"\s*\S").match(text, start, end)
