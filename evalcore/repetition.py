"""Does a text end in a loop, as a model's does that says the same until it is cut off?

>>> ends_in_loop("So it is 4. " + "Let me check that again. " * 40)
True
>>> ends_in_loop("0.333333333333, and so the answer is \\boxed{1/3}.")
False

Of each text only the end is looked at. It is a loop if it is

- one chunk, at least three times over, word for word (as Holtzman et al. 2020, arXiv:1904.09751, count repetitions:
  a phrase that ends the text, three times), and as long as two or three sentences: a decimal's digits or a dashed
  line are not;
- one chunk with other numbers in it, at least eight times over ("On day 45, it is 512 feet tall. On day 46, …"), a
  quarter of it letters: numbers with little between them are a table;
- many words, but hardly any different ones ("no no yes no no no yes …").

A text that says something after its loop does not end in it.
"""

from __future__ import annotations

import re
import string

_WINDOW = 16_384
"""Bytes of the end that are looked at: room for three times the longest chunk, a page of reasoning."""

_EXACT, _EXACT_TIMES = 240, 3
"""Least bytes and times of a chunk that is the same each time. 240 bytes are some 60 tokens, in any script."""

_NUMBERED, _NUMBERED_TIMES = 360, 8
"""The same where numbers may differ, and are not counted: a list of a few like sentences is none."""

_WORDS, _FEWEST, _DIFFERENT = 1000, 120, 8
"""Bytes of the end whose words are counted; at least so many words, and at most so many different ones."""

_SOME = 100
"""Bytes of the end that nearly always have more different words already."""

_TRIES = 8
_NUMBERS = b"0123456789.,"
_LETTERS = string.ascii_letters.encode() + bytes(range(128, 256))
_WORD = re.compile(rb"[A-Za-z\x80-\xff]{2}")


def ends_in_loop(text: str) -> bool:
    """Whether it does; in time linear in the text's length, and far less than reading it takes."""
    # A character that the token limit cut in two is no part of the loop.
    tail = text.rstrip("\ufffd")[-_WINDOW:].encode("utf-8", "surrogatepass")[-_WINDOW:]
    if _period(tail, _EXACT, _EXACT_TIMES):
        return True
    if len(tail) > _NUMBERED:
        masked = tail.translate(None, _NUMBERS)
        if period := _period(masked, _NUMBERED, _NUMBERED_TIMES):
            chunk = masked[-period:]
            letters = period - len(chunk.translate(None, _LETTERS))
            if letters * 4 >= period:
                return True
    return _has_few_words(tail)


def _period(tail: bytes, least: int, times: int) -> int:
    """After how many bytes the end repeats itself, for so many bytes and times at least; 0: it does not."""
    # Where a chunk comes so often, two thirds of the least there is came one chunk earlier, too.
    end = tail[-(least * 2 // 3) :]
    stop = len(tail) - 1
    for _ in range(_TRIES if len(tail) >= least else 0):
        if (at := tail.rfind(end, 0, stop)) < 0:
            return 0
        period = len(tail) - len(end) - at
        start = len(tail) - max(times * period, least)
        if start >= 0 and tail[start + period :] == tail[start:-period]:
            return period
        stop = at + len(end) - 1  # a long chunk may have that end in its middle, too
    return 0


def _has_few_words(tail: bytes) -> bool:
    if len(tail) < _WORDS or len(set(tail[-_SOME:].split())) > _DIFFERENT + 1:  # the first may be cut
        return False
    words = tail[-_WORDS:].split()
    last = words.pop() if words else b""
    different = set(words)
    if len(words) < _FEWEST or len(different) > _DIFFERENT + 1:
        return False
    # Cut off, or one of them: another word says something after the loop.
    return any(word.startswith(last) for word in different) and any(map(_WORD.search, different))
