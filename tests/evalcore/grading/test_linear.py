"""Finding an answer takes time linear in the text, on text that is made to hurt."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from evalcore.grading import GRADERS

pytestmark = pytest.mark.slow

# Of a response; and of the part of it that is looked at more closely.
LENGTHS = (15_000, 500)
# Times below it are no growth but the clock's own.
_FLOOR = 0.01

UNITS = [
    *["{", "}", "{}", "\\", r"\boxed", r"\boxed ", r"\boxed{", r"\boxed{ ", r"\boxed{}", r"\boxed{x}", r"\text{"],
    *["<think>", "</think>", "$", "$ ", "$5 ", "$x\n", r"\(", r"\[", r"\(x\)", r"\(\["],
    *["answer is ", "answer: ", "answer to ", "answer ", "\nA: x ", "####", "#### 1", "#### x", "**answer**\n"],
    *['"answer": "', "<answer>", r"\boxed 1", r"\boxed\a{{x}"],
    *["答案", "no, ", "i.e. ", "which is 1 ", "1 hour and ", "**1", "**1**", "1 111", r"\begin{align}", r"&\\ "],
    *["so A", "A is ", "A", "A\n", "A, ", "A or ", "(A)\n", "answer: A or ", "because, "],
    *["```output\n", "```output\n1\n```\n"],
    *[" ", "\n", " \n", "\t", "\u3000", "*", "_", "'", "1", "1,", "1,111", "1/", "1:", "1 1", "2^", "x10^", "-", "é"],
]  # fmt: skip
# Before and after them: what opens something that goes on over all of it.
AROUND = [
    ("", ""),
    ("the answer is ", "."),
    ("the answer is $", "$"),
    (r"\boxed{", "}"),
    ("```output\n", "\n```"),
    ("so A", "x"),
]

EXTRACTIONS: list[tuple[str, dict[str, str]]] = [
    ("math", {"extract": "boxed"}),
    ("math", {"extract": "relaxed"}),
    ("multiple_choice", {}),
]


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def grows_linearly(call: Callable[[int], object]) -> bool:
    """Whether twice the length takes about twice the time, in one of three trials; quadratic, it takes four times."""

    def trial(length: int) -> bool:
        once, twice = seconds(lambda: call(length)), seconds(lambda: call(2 * length))
        return twice <= max(3 * once, _FLOOR)

    return all(any(trial(length) for _ in range(3)) for length in LENGTHS)


@pytest.mark.parametrize(("grader", "options"), EXTRACTIONS, ids=["boxed", "relaxed", "choice"])
@pytest.mark.parametrize(("before", "after"), AROUND)
def test_extraction(grader: str, options: dict[str, str], before: str, after: str) -> None:
    extract = GRADERS[grader].extract
    for unit in UNITS:
        text = unit * (2 * max(LENGTHS) // len(unit))

        def call(length: int, text: str = text) -> object:
            return extract(before + text[:length] + after, options)

        assert grows_linearly(call), unit


@pytest.mark.parametrize("grader", ["multiple_choice", "exact"])
def test_comparison_of_texts(grader: str) -> None:
    quick = GRADERS[grader].quick
    for unit in [*UNITS, '"', "x. ", "**", "“", r"\text{a}"]:
        text = unit * (2 * max(LENGTHS) // len(unit))

        def call(length: int, text: str = text) -> object:
            return quick(text[:length], text[1 : length + 1], {})

        assert grows_linearly(call), unit


def test_math_compares_text_in_linear_time() -> None:
    def call(length: int) -> object:
        return GRADERS["math"].quick("a\\\\" + " " * (length // 4) + "x", "5", {})

    assert grows_linearly(call)


def test_the_measure_itself_knows_quadratic_time() -> None:
    # More than once: a busy machine can slow the shorter one down.
    trials = (grows_linearly(lambda length: sum(1 for _ in range(length * length // 250))) for _ in range(5))
    assert not all(trials)


def test_a_megabyte_without_a_line_end() -> None:
    text = "x" * 1_000_000 + r" so the answer is \boxed{5}"
    assert GRADERS["math"].extract(text, {}).answer == "5"
    assert GRADERS["math"].extract("1" * 1_000_000, {"extract": "relaxed"}).answer == "1" * 1_000_000
    assert GRADERS["multiple_choice"].extract("A" * 1_000_000 + " Answer: B", {}).answer == "B"
