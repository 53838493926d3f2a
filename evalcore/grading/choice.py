r"""Grade a multiple-choice answer: ``Answer: C``, ``\boxed{\text{C) } 12}``, ``**(c)**`` are all C.

The last announced letter wins, boxed or in words: a boxed equation does not beat a final ``Answer: D``.
Letters of prose (``A train``, ``I think``) and of formulas (``B = 5``) are no choice, and who names two
letters has not chosen. What is looked at is the text without its markup, of the same length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from evalcore.grading.extract import after_reasoning, boxed, boxes
from evalcore.grading.verdict import Equality, Extraction, Options

OPTIONS: dict[str, tuple[str, ...]] = {}

# Fonts, spaces, bold, quotes, delimiters; but not the underscore of C_2, nor the apostrophe of A's.
_MARKUP = re.compile(
    r"\\(?:text(?:bf|it|rm|sf)?|math(?:bf|it|rm|sf)|mbox|bf|rm|left|right|q?quad)(?![A-Za-z])"
    r"|\\[,;:! ()\[\]]|[*`$~{}\"“”<>]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9{])|'(?=[A-Ja-j]')|(?<=\W'[A-Ja-j])'"
    r"|\[(?=\[)|(?<=\])\]"
)
_TAG, _END_TAG = "<answer>", "</answer>"
# A letter, perhaps in brackets; no part of a word, of a name or of a formula: C++, B-tree, D(1, 2).
_LETTER = re.compile(
    r" *(?:(?i:(?:the +)?(?:choice|option|letter|answer))\b *+:? *+)?(?P<open>[(\[] *)?(?P<letter>[A-Ja-j])"
    r"(?![\w'’^+#(\[]|-\w)(?P<close> *[)\]])?"
)
# "A or B", "A, C", "I and II".
_ANOTHER = re.compile(
    r" *(?:,? *(?:\b(?:and|or)\b|[/&]) *(?i:option )? *[(\[]? *(?:[A-J]|[IVX]+)\b"
    r"|, *[(\[]? *(?:[A-J]|[IVX]{2,}) *[)\]]? *(?:[.,;]|and\b|or\b|$))",
    re.MULTILINE,
)
# What follows a letter on its own; others go on as a word or a variable does: "A train", "b times 2".
_ENDS = re.compile(r" *(?:[.,;:!?)\]–—(。，-]|\d|because\b|since\b|as\b|is\b|with\b|which\b|$)", re.MULTILINE)
_OPERATOR = re.compile(r" *(?:[=+^≤≥]|\\[a-z])")
_LAST_IN_BOX = re.compile(r" [(\[] *([A-J]) *[)\]] *$")
_LONGEST_BOX = 200

_IS = (
    r"(?:(?:(?: +(?:to|for|of|in|from|among|that|based)\b| *,)[^.:\n]{1,100}?| +here| +\([^().:\n]{1,60}\))?"
    r" +(?:probably +|likely +)?(?:is|(?:must|would|should|will|might|may|could) be)\b(?! +not\b)| *+'? *+[:：=])"
)
_SURELY = (
    r"therefore|thus|hence|then|clearly|probably|(?:most +)?likely|definitely|certainly|indeed"
    r"|given by|found to be"
)
_ANNOUNCED = re.compile(
    r"(?-i:(?=[AaBbCcFfRr#答故]|^))(?:"  # a first letter is looked for many times faster than the rest
    r"\b(?:answer|ans\b\.?|(?:correct|right|best|final) +(?:choice|option|letter|one))(?: +(?:choice|option|letter))?"
    rf"(?:{_IS}|(?<=ans\.))(?: +(?:{_SURELY})\b,?)?[:\s]{{0,6}}"
    r"|^[# ]*(?:the +)?(?:final +|correct +)?answer *$\s{0,6}|####|答案 *(?:是|为|為|[:：])|故选 *[:：]?)",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_ENDS_WITH = r"[(\[]?[A-J](?: *[)\]])?(?: *[.!;:]| *$| +(?:because|since)\b)"
# "A. Wait, no: B."; but "No, B is too small" corrects nothing.
_CORRECTED = re.compile(
    r"(?-i:(?=[acnrswACNRSW]))\b(?:(?:wait|no|sorry|correction)\b *[,:.–—]|(?:actually|rather)\b)[,: ]{1,2}"
    r"(?:(?:wait|no|actually|i mean|it(?:['’]s| is| must be))\b[,: ]{1,2}){0,3}"
    rf"(?-i:(?={_SENTENCE_ENDS_WITH}))",
    re.IGNORECASE | re.MULTILINE,
)
# What stands before a letter, or an announcement, that is not meant: "I doubt that the answer is A".
_NOT_MEANT = re.compile(
    r"(?:\b(?:if|whether|suppose|assum(?:e|ing)|doubt|unlikely)"
    r"|(?:\b(?:not|never|cannot)|n['’]t)\b[^.,;:!?\n]{0,30}\b(?:that|think|believe|say|mean))"
    r"(?: +that)?(?: +the)?(?: +(?:correct|right|best|final))?(?: +option)? *$",
    re.IGNORECASE,
)
_LONGEST_BEFORE = 80
_CHOSEN = re.compile(
    r"(?-i:(?=[cgimopsCGIMOPS]))\b(?:"
    r"(?:choose|pick|select|(?:go|going) +with|matches|corresponds +to|(?:choice|option) +is)(?= )"
    rf"|(?:it(?:['’]s| +is| +must +be)|say) +(?-i:(?={_SENTENCE_ENDS_WITH})))",
    re.IGNORECASE | re.MULTILINE,
)
_CORRECT = re.compile(
    r"(?=[(\[A-J])(?<![\w'’.^\\(\[])(?:[(\[] *)?([A-J])(?: *[)\]])? +(?i:is +(?:indeed +)?(?:the +)?"
    r"(?:(?:correct|right|best|final) +(?:answer|choice|option|one)\b|answer\b|correct\b|right\b))"
)
_NOT_ALONE = re.compile(r"\b(?:nor|and|or)(?: +option)? *$", re.IGNORECASE)
_CONCLUSION = re.compile(
    r"(?=[htsHTS])\b(?i:therefore|thus|hence|so)[,: ] *(?i:option +|choice +)?(?:[(\[] *)?([A-J])(?: *[)\]])? *+"
    r"(?=[.!]? *+$)",
    re.MULTILINE,
)
_ALONE = re.compile(
    r"^ *(?i:(?:(?:the|my|final|correct|right|best|selected|chosen) +)*(?:answer|option|choice) *+:? *+)?"
    r"(?:[(\[] *)?([A-J])[.): \]]*$",
    re.MULTILINE,
)
_NOTHING_ELSE = re.compile(r"\s*+[(\[]? *+([a-j]) *+[.)\]]?\s*+")
_STARTS_A_LINE = re.compile(r"^ *(?:[(\[] *)?([A-J]) *[.)\]]", re.MULTILINE)

_SEVERAL = "several"


def extract(generation: str, options: Options) -> Extraction:
    """The letter a response settles on: the last announced; else chosen, alone on its line, the only one."""
    answer, reason = after_reasoning(generation)
    if answer is None:
        return Extraction(None, reason)
    text = _without_markup(answer)
    for how, find in _WAYS.items():
        if found := find(answer, text):
            letter = max(found)[1]
            several = Extraction(None, f"{how}: several letters")
            return several if letter == _SEVERAL else Extraction(letter, how)
    return Extraction(None, "no letter announced")


def quick(answer: str, expected: str, options: Options) -> Equality:
    """Whether the letters are the same; both may be written ``C``, ``c``, ``(C)`` or ``C) 12``."""
    return Equality(_only_letter(answer) == _only_letter(expected), "letter")


def _without_markup(text: str) -> str:
    if _TAG in text:
        text = text.replace(_TAG, " answer:").replace(_END_TAG, " " * len(_END_TAG))
    return _MARKUP.sub(lambda markup: " " * len(markup[0]), text)


def _only_letter(text: str) -> str:
    """The letter that a text starts with, or all of it."""
    plain = _without_markup(boxed(text).answer or text).strip()
    return _letter(plain, 0, sure=False) or plain.upper()


def _letter(text: str, start: int, *, sure: bool) -> str | None:
    """The choice at a place of a text without markup; ``_SEVERAL`` if there are more; None if it is none.

    sure: a choice is expected there, and any capital that is not a word is one.
    """
    found = _LETTER.match(text, start)
    if not found or (found["open"] and not found["close"]):
        return None
    if _ANOTHER.match(text, found.end()):
        return _SEVERAL
    letter = found["letter"]
    if found["close"] or _ENDS.match(text, found.end()):
        return letter.upper()
    goes_on = letter.islower() or letter in "AI" or _OPERATOR.match(text, found.end())
    return letter if sure and not goes_on else None


def _announced(answer: str, text: str) -> list[tuple[int, str]]:
    return [*_boxed(answer, text), *_named(_ANNOUNCED, text), *_named(_CORRECTED, text)]


def _chosen(answer: str, text: str) -> list[tuple[int, str]]:
    return [*_named(_CHOSEN, text), *_called_correct(text)]


def _boxed(answer: str, text: str) -> Iterator[tuple[int, str]]:
    for start, end in boxes(answer):
        if end - start > _LONGEST_BOX:
            continue
        content = text[start:end]
        if letter := _letter(content, 0, sure=False):
            yield start, letter
        elif last := _LAST_IN_BOX.search(content):
            yield start, last[1]


def _named(marker: re.Pattern[str], text: str) -> Iterator[tuple[int, str]]:
    for place in marker.finditer(text):
        if (letter := _letter(text, place.end(), sure=True)) and _is_meant(text, place.start()):
            yield place.end(), letter


def _is_meant(text: str, start: int) -> bool:
    return not _NOT_MEANT.search(text[max(0, start - _LONGEST_BEFORE) : start])


def _called_correct(text: str) -> Iterator[tuple[int, str]]:
    for found in _CORRECT.finditer(text):
        alone = not _NOT_ALONE.search(text[max(0, found.start() - 20) : found.start()])
        if alone and _is_meant(text, found.start()):
            yield found.start(), found[1]
    for found in _CONCLUSION.finditer(text):
        yield found.start(), found[1]


def _alone(answer: str, text: str) -> list[tuple[int, str]]:
    """The letters alone on their lines, but for a list of the options: A, B, C, …"""
    if whole := _NOTHING_ELSE.fullmatch(text):
        return [(0, whole[1].upper())]
    found = [(place.start(), place[1]) for place in _ALONE.finditer(text)]
    listed = 0
    while listed < len(found) and found[listed][1] == "ABCDEFGHIJ"[listed : listed + 1]:
        listed += 1
    return found[listed:] if listed > 1 else found


def _only_option(answer: str, text: str) -> list[tuple[int, str]]:
    """The letter that starts a line, as in ``B. The second one``, if it is the only one that does."""
    found = [(place.start(), place[1]) for place in _STARTS_A_LINE.finditer(text)]
    return found if len({letter for _, letter in found}) == 1 else []


_WAYS: dict[str, Callable[[str, str], list[tuple[int, str]]]] = {
    "announced": _announced,
    "chosen": _chosen,
    "alone on its line": _alone,
    "the only option named": _only_option,
}
"""How letters and their places are found in a response and in its text without markup, the surest way first."""
