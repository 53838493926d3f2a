r"""Find the answer in a response: ``"… so it is $\boxed{\frac{1}{2}}$."`` → ``\frac{1}{2}``.

Every function here takes time linear in the text, whatever the text: each pattern scans a character a
bounded number of times, and braces are matched in one pass.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from evalcore.grading.verdict import Extraction, Options

OPTIONS: dict[str, tuple[str, ...]] = {"extract": ("boxed", "relaxed")}

_THINK, _END_THINK = "<think>", "</think>"
_OUTPUT, _END_OUTPUT = "```output\n", "```"

# \boxed, \fbox, and a command that ends in one of them, as in "\beginboxed{".
_BOX = r"\\[A-Za-z]*(?:boxed|fbox)"
# A box, a brace, or an escaped character, which is no brace. `\\boxed{` with two backslashes (a model
# that escapes as in JSON) is a box too: the escape must not swallow the second one.
_BRACES = re.compile(rf"{_BOX}\s*(\{{)|\\(?!{_BOX}).|[{{}}]", re.DOTALL)
_BOX_OPENS = re.compile(_BOX + r"\s*\{")
# What a prompt leaves to be filled in: `\boxed{}`, `\boxed{...}`, `\boxed{?}`.
_BLANK = re.compile(r"(?:[\s~.…?_]|\\[,;:! ]|\\(?:q?quad|[lc]?dots)\b|\\text\{\s*\})*+")

# Formulas hold no blank line; and "$5 per apple, $6 each" holds no formula.
_DOLLARS = r"(?:[^$\n]|\n(?![ \t]*\n))+"
# Between \( and \) no other of them: each character is looked at once, however many stay open.
_FORMULA = re.compile(
    rf"\$\$({_DOLLARS})\$\$|\$(?![\d.,]+\s+[A-Za-z]{{2}})({_DOLLARS})\$(?!\d)"
    r"|\\\(((?:[^\\]|\\[^()\[\]])+)\\\)|\\\[((?:[^\\]|\\[^()\[\]])+)\\\]",
    re.DOTALL,
)
_JOINED = re.compile(r"\s*(?:[,;]\s*(?:(?:and|or)\b)?|(?:and|or)\b)\s*")
_NUMBER = re.compile(
    r"(?<![\w.^])[-−]?[$€£]?(?:(?:\d+(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)"
    r"(?:(?:\s\d+)?/\d+|(?::\d+)+|e[-+]?\d+|(?:\s?(?:[x×*·]|\\times)\s?10)?\^\{?[-−]?\d+\}?)?(?:\s?\\?%)?"
)

# "The answer is 5", "the final answer to this question must be 5", "**Answer:** 5"; a heading
# "**Final Answer**"; "#### 5", but no "#### Step 2" or "#### 2. Check", unless nothing follows; "A: 5".
_ANNOUNCED = re.compile(
    r"""
      \b(?:answer|ans)\b[.)"'*_]{0,3}
      (?:   (?P<colon>\s?[:：=])
        | (?:\s(?:to|for|of)\s[^.:\n]{1,100}?)?\s+(?:is|equals|(?:should|must|would|will|to)\sbe)\b(?!\s+not\b) )
    | ^[#*_\s]{1,12}(?:the\s)?(?:final\s)?answer[*_\s]{0,6}$
    | \#\#\#\#\s?+(?:(?!\d+[.)]\s|[*_]{0,3}[A-Za-z])|(?=[^\n]{0,200}+\Z))
    | ^A:(?=[ \t]*+\S++(?:[ \t]\S++){0,5}+[ \t]*+$)
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_MENTIONS = ("####", "\na:")  # each announcement has one of them, or a word that starts with "ans"
_BEFORE_MENTION = 40  # where it may begin: "### The final answer"
_ANNOUNCEMENTS = 8  # looked at, from the last one back, for one that says something
_LEADING = re.compile(
    r"[\s*_:：=`,]{0,12}(?:(?:therefore|thus|hence|then|simply|just|indeed|clearly)\b[\s,:]{0,3})?",
    re.IGNORECASE,
)
_TRAILING = " *_`,;("
# Where an answer ends: with its sentence, its line, its turn, or where its reason begins.
_END = re.compile(r"[.。](?:\s|$|<\|)|\n|<\||\b(?:since|because|which)\b")
_FEW_WORDS = 4
# "5 of the 12 apples", "$5 per hour": the number at the start is the answer.
_NUMBER_OF = re.compile(_NUMBER.pattern + r"(?=\s+(?:of|per|for|in|each|more|less|fewer)\s+[A-Za-z])")
_NUMBER_AND_WORD = re.compile(_NUMBER.pattern + r"(?=\s+[A-Za-z])")
_PROSE = re.compile(r"[A-Z][a-z'’]*\s+[a-z]+\s")  # "He has 3 apples"
_OPEN_BOX = re.compile(_BOX + r"\s*\{?")

_LONGEST_ANSWER = 200
_COMMAND = re.compile(r"\\(?:text|mbox|mathrm)\s?\{[^{}]*\}|\\[A-Za-z]+|\b(?:and|or|percent|pct)\b")
_WORD = re.compile(r"[A-Za-z]{2,}(?!\()")
_LONGEST_SHORT_WORD = 3
_LONGEST_LINE = 1000  # of an announced answer; what goes on for longer is no answer


def by_options(generation: str, options: Options) -> Extraction:
    """The answer of a response; options: ``extract: boxed`` (default) or ``relaxed``."""
    return extract(generation, options.get("extract", OPTIONS["extract"][0]))


def extract(text: str, mode: str) -> Extraction:
    """The answer of a response. mode ``boxed``: the last box; ``relaxed``: else what ``relaxed`` finds."""
    answer, reason = after_reasoning(text)
    if answer is None:
        return Extraction(None, reason)
    found = boxed(answer)
    if found.answer is None and mode == "relaxed":
        return relaxed(answer) or Extraction(None, f"{found.reason}, no number")
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

    A malformed or empty last box falls back to the one before. Of nested boxes it is the innermost.
    """
    start, end = max(boxes(text), default=(-1, -1))
    if start >= 0:
        return Extraction(text[start:end].strip(), "boxed")
    return Extraction(None, "box empty or not closed" if _BOX_OPENS.search(text) else "no box")


def boxes(text: str) -> Iterator[tuple[int, int]]:
    """Where the contents of all balanced boxes that hold anything start and end, in the order of the ends."""
    first = text.find("box")
    if first < 0:
        return  # searching for a word is many times faster than for a pattern
    open_braces: list[tuple[int, bool]] = []  # (where its content starts, whether it is a box)
    for token in _BRACES.finditer(text, max(0, text.rfind("\\", 0, first))):
        if token[0][-1] == "{" and (token[1] or len(token[0]) == 1):
            open_braces.append((token.end(), bool(token[1])))
        elif token[0] == "}" and open_braces:
            start, is_box = open_braces.pop()
            if is_box and not _BLANK.fullmatch(text, start, token.start()):
                yield start, token.start()


def relaxed(text: str) -> Extraction | None:
    """What is announced, else the whole if it is but an answer, else what a program printed, else the last value.

    Before a program's output nothing counts: programs have a variable called ``answer``.
    """
    output = None
    start = text.rfind(_OUTPUT)
    end = text.find(_END_OUTPUT, start + len(_OUTPUT))
    if 0 <= start < end:
        lines = text[start + len(_OUTPUT) : end].strip().splitlines()
        output, text = nothing_else(lines[-1]) if lines else None, text[end + len(_END_OUTPUT) :]
    if found := announced(text) or nothing_else(text):
        return found
    # Text that calculates goes beyond what was printed; a sentence only says what it is.
    if output and "=" not in text:
        return Extraction(output.answer, "program output")
    return final_value(text)


def announced(text: str) -> Extraction | None:
    """What the last ``answer is …``, ``Answer: …``, ``#### …`` says: its formulas, or its few words.

    Of a whole sentence (``Answer: the largest number of points is 19.``) its value.
    """
    text = text.rstrip()
    start = _first_mention(text)
    if start is None:
        return None
    for marker in reversed(deque(_ANNOUNCED.finditer(text, start), maxlen=_ANNOUNCEMENTS)):
        leading = _LEADING.match(text, marker.end())
        assert leading is not None
        after = text[leading.end() : leading.end() + _LONGEST_LINE]
        answer = _answer(after, sentences=bool(marker["colon"]))
        if answer:
            return Extraction(_OPEN_BOX.sub("", answer).strip(), "announced")
    return None


def _first_mention(text: str) -> int | None:
    """From where on there may be an announcement: searching for a word is many times faster than for a pattern."""
    lower = "\n" + text.lower()
    if len(lower) != len(text) + 1:  # İ becomes two characters
        return 0
    mentions = [at for word in _MENTIONS if (at := lower.find(word)) >= 0]
    word = lower.find("ans")
    while word > 0 and lower[word - 1].isalnum():  # "beans"
        word = lower.find("ans", word + 1)
    if word >= 0:
        mentions.append(word)
    return max(0, min(mentions) - _BEFORE_MENTION) if mentions else None


def _answer(text: str, sentences: bool) -> str | None:
    """The answer that a text starts with. sentences: where it is a sentence, others may lead to the value."""
    # Only formulas at the start are the answer: "5 apples, since $2+3=5$".
    if formula := _FORMULA.match(text):
        end = formula.end()
        while (joint := _JOINED.match(text, end)) and (other := _FORMULA.match(text, joint.end())):
            end = other.end()
        return _content(formula) if end == formula.end() else text[:end]
    stop = _END.search(text)
    sentence = (text[: stop.start()] if stop else text).rstrip(_TRAILING)
    if number := _NUMBER_OF.match(sentence):
        return number[0]
    goes_on = bool(stop and text[stop.end() :].strip())
    if len(sentence.split()) <= _FEW_WORDS and not (goes_on and sentences and _PROSE.match(sentence)):
        return sentence
    if "=" not in sentence and (number := _NUMBER_AND_WORD.match(sentence)):
        return number[0]
    if value := final_value(text.split("\n\n")[0] if sentences else sentence):
        return value.answer
    return None if goes_on else sentence


def nothing_else(text: str) -> Extraction | None:
    """The whole response, if it is but an answer: one short line that is no sentence."""
    line = text.strip()
    if len(line) > _LONGEST_ANSWER or "\n" in line:
        return None
    words = _WORD.findall(_COMMAND.sub(" ", line))
    if len(words) > 1 or any(len(word) > _LONGEST_SHORT_WORD for word in words):
        return None
    return Extraction(line, "nothing else") if line else None


def final_value(text: str) -> Extraction | None:
    """The last formula of a response, or its last number if that comes after all formulas."""
    formula = _last(_FORMULA, text)
    if number := _last(_NUMBER, text, formula.end() if formula else 0):
        return Extraction(number[0], "final number")
    return Extraction(_content(formula), "final formula") if formula else None


def _content(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group).strip()


def _last(pattern: re.Pattern[str], text: str, start: int = 0) -> re.Match[str] | None:
    """The last match, in one pass and without a list of all."""
    matches = deque(pattern.finditer(text, start), maxlen=1)
    return matches[0] if matches else None
