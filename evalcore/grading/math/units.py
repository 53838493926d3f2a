r"""What stands behind a number: units under one name each, and words; and when two of them contradict each other.

>>> unit_of("meters per second squared"), unit_of("m s^{-2}"), unit_of("apples")
('m s -2', 'm s -2', 'apple')
"""

from __future__ import annotations

import re

from evalcore.grading.math.vocabulary import CAPITALS, DIRECTIONS, MEASURES, PERCENT, SHORT_UNITS, UNIT_NAMES

_BEFORE = {"square": "2", "sq": "2", "cubic": "3"}
_BEHIND = {"squared": "2", "cubed": "3"}
# `MW` and `mW`, `M` and `m` differ in the case of a letter alone.
_MEGA = re.compile(r"\bM(?=[A-Z]|eV)")
_CAPITAL = re.compile(r"\b[NJWVACTFKM]\b")
_SHORT = re.compile(rf"\b(?:{'|'.join(SHORT_UNITS)})\b")
_PART = re.compile(r"[a-z]+|[%$/]|-?\d+")


def unit_of(text: str) -> str:
    """One name for a unit however it is written: ``inches``, ``Inch`` and ``in.`` are ``in``; else its words."""
    text = _CAPITAL.sub(lambda letter: CAPITALS[letter[0]], _MEGA.sub("mega", text))
    text = _SHORT.sub(lambda short: SHORT_UNITS[short[0]], text.lower())
    parts = _PART.findall(re.sub(r"[{}^]|(?<=-) ", "", text))
    if any(part in PERCENT for part in parts):
        return "%"
    words: list[str] = []
    power = ""
    for part in parts:
        word = singular(part)
        if word in _BEFORE:
            power = _BEFORE[word]
            continue
        words += [_BEHIND.get(word) or ("/" if word == "per" else UNIT_NAMES.get(word, word))]
        words += [power] if power else []
        power = ""
    return " ".join(words if not _is_measure(words) else _in_order(words))


def singular(word: str) -> str:
    return word.rstrip("s") if len(word) > 2 else word


def _is_measure(words: list[str]) -> bool:
    return all(word in MEASURES or word == "/" or word.lstrip("-").isdigit() for word in words)


def _in_order(words: list[str]) -> list[str]:
    """A product of powers in one order, ``/`` as negative ones: ``m / s 2`` is ``m s -2``."""
    powers: dict[str, int] = {}
    sign, last = 1, ""
    for word in words:
        if word == "/":
            sign = -1
        elif word.lstrip("-").isdigit():
            if last:
                powers[last] += sign * (int(word) - 1)
        else:
            last = word
            powers[last] = powers.get(last, 0) + sign
    return [part for unit, power in sorted(powers.items()) for part in (unit, str(power)) if part != "1"]


def contradict(a: str, b: str) -> bool:
    """Whether two units, or words, cannot belong to the same answer: ``cm`` and ``m``, ``up`` and ``down``.

    ``apples`` and ``fruits`` can, and nothing contradicts what is not there.
    """
    if a == b or not (a and b):
        return False
    first, second = a.split(), b.split()
    if _is_measure(first) and _is_measure(second):
        return True
    for axis in {DIRECTIONS[word][0] for word in first if word in DIRECTIONS}:
        sides = [
            [DIRECTIONS[w][1] for w in words if DIRECTIONS.get(w, "?")[0] == axis]
            for words in (first, second)
        ]
        if sides[1] and sides[0] != sides[1]:
            return True
    numbers = [[word for word in words if word.isdigit()] for words in (first, second)]
    return all(numbers) and numbers[0] != numbers[1]
