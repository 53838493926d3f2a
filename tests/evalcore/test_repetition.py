"""What is a loop at the end of a text, and what only looks like one."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalcore.repetition import ends_in_loop

START = "We want the height of the plant. It starts at one foot and doubles every day, so that "
PROSE = (
    "First we find how many eggs are left: 16 - 3 - 4 = 9. Each of them is sold for two dollars, which makes 18 in "
    "all. Then the muffins have to be paid, and what remains is shared by both friends in equal parts. One of them "
    "spends a third of it on flour; the other one keeps hers. Let us check the sum by adding the parts again. "
)
RNG = random.Random(7)
WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in ("l", "mp", "rst")]


def paragraph(words: int) -> str:
    return " ".join(RNG.choices(WORDS, k=words)) + ". "


LOOPS = {
    "a sentence": START + "Let me check that again. " * 12,
    "cut within the chunk": START + ("The answer is \\boxed{5}. I hope it is correct.\n" * 9)[:-17],
    "digits": "1 / 3 = 0." + "3" * 300,
    "pairs of digits": START + "18" * 150,
    "empty lines": "The answer is" + "\n" * 250,
    "another script": START + "所以答案是五。" * 15,
    "cut within a character": START + "所以答案是五。" * 15 + "\ufffd\ufffd",
    "a paragraph three times": PROSE + paragraph(60) * 3,
    "a page three times": PROSE + paragraph(700) * 3,
    "a page whose end comes twice in it": (paragraph(200) + PROSE + paragraph(90) + PROSE) * 4,
    "after a long text": PROSE * 2 + paragraph(9000) + "So it is four. " * 20,
    "counting days": START + " ".join(f"on day {day}, it is {2**day} feet tall." for day in range(1, 30)),
    "halving": START + " ".join(f"{0.5**n:.12g} / 2 = {0.5 ** (n + 1):.12g} days." for n in range(60)),
    "thousands": START + " ".join(f"After {n} months, the price is {1.2**n:,.2f}." for n in range(1, 40)),
    "numbered sentences": START + "".join(f"\n{n}. Let me check case {n} again." for n in range(1, 40)),
    "few words": START + " ".join(RNG.choices(["no", "no", "yes", "wait,"], k=400)),
    "few words, cut within one": START + " ".join(RNG.choices(["no", "no", "yes", "wait,"], k=400)) + " wai",
    "few words of few letters": START + " ".join(RNG.choices(["the", "of", "a", "it", "5"], k=500)),
}

NO_LOOPS = {
    "nothing": "",
    "prose": PROSE,
    "prose twice": PROSE * 2,
    "long prose": PROSE + paragraph(4000),
    "a decimal": "1 / 3 = 0.3333333333333333, or about 0.3333",
    "a number of a hundred digits": "The number is " + "1" * 100,
    "a large number": f"2^{1000} = {2**1000}",
    "a dashed line": PROSE + "-" * 80,
    "a table's head": PROSE + "| day | height |\n" + "|---|---|" * 8,
    "a table of numbers": PROSE + "\n".join(f"| {n} | {n * n} | {n**3} |" for n in range(60)),
    "a table with units": PROSE + "\n".join(f"| {n} km | {n * n} h |" for n in range(80)),
    "a few like lines": PROSE + "\n".join(f"On day {n} it grows by {2**n} feet." for n in range(1, 8)),
    "primes": "The primes are " + ", ".join(str(n) for n in range(2, 900) if all(n % d for d in range(2, n))),
    "a matrix": r"\begin{pmatrix}" + r" \\ ".join(["0 & 1 & 0 & 1 & 0"] * 5) + r"\end{pmatrix}",
    "zeros and ones": PROSE + " ".join(RNG.choices("01", k=600)),
    "a dozen short lines": PROSE + "\n".join(f"f of {n} is {2**n}" for n in range(12)),
    "five long lines": PROSE
    + "\n".join(f"After {n} hours {PROSE[62:170]} {n * 5} dollars." for n in range(5)),
    "laughter": PROSE + "ha " * 50,
    "an answer three times": PROSE + "The answer is \\boxed{5}. " * 3,
    "a loop that it leaves": START + "Let me check that again. " * 40 + "It is 4. The answer is \\boxed{4}.",
    "days counted, and a conclusion": START
    + " ".join(f"on day {day}, it is {2**day} feet tall." for day in range(1, 30))
    + " So it takes 29 days.",
    "a loop that it leaves with a word": START + "Let me check that again. " * 40 + "\\boxed{4}",
    "code": PROSE + "".join(f"    total_{word} = {word}_eggs * price_of_{word}\n" for word in WORDS),
    "a poem": "\n".join(f"{paragraph(6)}\nAnd the rain went on.\n" for _ in range(12)),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop(name: str) -> None:
    assert ends_in_loop(LOOPS[name])


@pytest.mark.parametrize("name", NO_LOOPS)
def test_no_loop(name: str) -> None:
    assert not ends_in_loop(NO_LOOPS[name])


CHUNKS = st.text(min_size=1, max_size=300)


@given(st.text(max_size=200), CHUNKS, st.integers(0, 299))
@settings(deadline=None, max_examples=200)
def test_any_chunk_often_enough_is_one_wherever_it_is_cut(before: str, chunk: str, cut: int) -> None:
    text = before + chunk * max(4, 1 + -(-240 // len(chunk)))
    # What ends in it is stripped, so that less of the loop is left.
    assert ends_in_loop(text[: len(text) - min(cut, len(chunk) - 1)]) or "\ufffd" in chunk


@pytest.mark.parametrize(("times", "is_loop"), [(23, False), (24, True)])
def test_a_short_chunk_must_come_for_as_long_as_a_long_one(times: int, is_loop: bool) -> None:
    before = "The sum of the first odd numbers is a square, which is seen by drawing them as corners. " * 2
    assert ends_in_loop(f"{before}So we have it: {'and so on ' * times}") is is_loop


@given(CHUNKS.filter(lambda chunk: len(set(chunk)) > 1))
@settings(deadline=None, max_examples=200)
def test_a_chunk_twice_is_none(chunk: str) -> None:
    """Nor with anything after it."""
    end = paragraph(8)
    assert not ends_in_loop(chunk * 40 + end + PROSE)
    inner = f"{paragraph(20)}{chunk[:40]}{paragraph(20)}"
    assert not ends_in_loop(PROSE + inner * 2)


@given(st.text())
def test_any_text_has_an_answer(text: str) -> None:
    assert ends_in_loop(text) in (True, False)
    assert ends_in_loop(text + "\ud800" * 300)


UNITS = [
    "a",
    "ab",
    "a" * 160 + "b",
    "1",
    "1.",
    ", ",
    "no ",
    " ",
    "\n",
    "\ufffd",
    "é",
    "So 1. ",
    "b" + "a" * 159,
]


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS)
def test_time_does_not_depend_on_more_than_the_end(unit: str) -> None:
    """Of ten million characters as of a hundred thousand, whatever they are made to hurt."""
    for end in ("", "x", "ab" + "a" * 158):

        def seconds(length: int, end: str = end) -> float:
            text = unit * (length // len(unit)) + end
            began = time.process_time()
            ends_in_loop(text)
            return time.process_time() - began

        # Either takes a millisecond; but characters that were cut in two are looked for to the last.
        assert min(seconds(10_000_000) for _ in range(3)) < (1 if unit == "\ufffd" else 0.1)
        assert min(seconds(100_000) for _ in range(3)) < 0.1
