"""This text, this answer; and how long it takes on text that is made to hurt."""

from __future__ import annotations

import time

import pytest

from evalcore.grading.extract import extract

BOXED = [
    (r"So it is $\boxed{42}$.", "42"),
    (r"\fbox{7}", "7"),
    (r"\boxed {7}", "7"),
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"first \boxed{1}, no, \boxed{2}", "2"),
    (r"\boxed{\left\{1, 2\right\}}", r"\left\{1, 2\right\}"),
    (r"\boxed{x \in \{1\}} and a stray }", r"x \in \{1\}"),
    (r"a stray { and then \boxed{3}", "3"),
    # Nested: the inner one is what the writer boxed last.
    (r"\boxed{x = \boxed{5}}", "5"),
    # A malformed or empty last box falls back to the one before.
    (r"\boxed{8} \boxed{9", "8"),
    (r"\boxed{8}. Always write \boxed{}!", "8"),
    (r"\boxed{8} and \boxed{\frac{1}{2}", "8"),
    # Escaped as in JSON, and after a line break.
    (r"\\boxed{11}", "11"),
    ("\\\\\n\\boxed{12}", "12"),
    (r"\\\boxed{13}", "13"),
    (r"\unboxed{1}\boxed{14}", "14"),
    # Reasoning never counts.
    (r"<think>maybe \boxed{1}</think> It is \boxed{2}.", "2"),
    (r"maybe \boxed{1}</think>\boxed{2}", "2"),
    (r"<think>a</think><think>b \boxed{1}</think>\boxed{3}", "3"),
]

NO_ANSWER = [
    ("", "empty response"),
    ("  \n", "empty response"),
    ("The answer is 5.", "no box"),
    (r"\boxed 5", "no box"),
    (r"\boxed{", "box empty or not closed"),
    (r"\boxed{ }", "box empty or not closed"),
    (r"\boxed{\{}", None),  # a brace that is escaped closes and opens nothing
    (r"<think>so \boxed{5}", "reasoning not finished"),
    (r"<think>a</think> wait <think> \boxed{5}", "reasoning not finished"),
    (r"<think>\boxed{5}</think>", "empty response"),
    (r"\boxed{1}</think> I am not sure.", "no box"),
]

RELAXED = [
    (r"The answer is 5, or \boxed{6}", "6"),
    ("The answer is 42.", "42"),
    ("The final answer is: $\\frac{3}{4}$. I hope it is correct.", r"\frac{3}{4}"),
    ("**Answer:** 1,234", "1,234"),
    ("**Final Answer**: $12$", "12"),
    ("Answer: 5 apples, since $2+3=5$", "5 apples, since $2+3=5$"),
    ("Answer: the largest number of points there can be is 19. Next question", "19"),
    ("He has 4. #### 72", "72"),
    ("#### 1\nQuestion: and then?\n#### 2", "2"),
    ("that makes 12 apples and 30 pears", "30"),
    ("it costs $1,250.50 in all.", "$1,250.50"),
    ("so -3", "-3"),
    ("half of it, 3/4", "3/4"),
    ("we find $x = 3$ in 2 steps; so $x+1 = 4$", "x+1 = 4"),
    (r"so \(y\) is \[ \sqrt{2} \]", r"\sqrt{2}"),
    ("AZYUK2A", None),
    ("I do not know.", None),
    ("<think>The answer is 5", None),
]


@pytest.mark.parametrize(("text", "answer"), BOXED)
def test_the_last_box_counts(text: str, answer: str) -> None:
    assert extract(text, "boxed") == (answer, "boxed")
    assert extract(text, "relaxed").answer == answer


@pytest.mark.parametrize(("text", "reason"), NO_ANSWER)
def test_a_missing_answer_has_its_reason(text: str, reason: str | None) -> None:
    found = extract(text, "boxed")
    assert found == ((None, reason) if reason else (r"\{", "boxed"))


@pytest.mark.parametrize(("text", "answer"), RELAXED)
def test_relaxed_reads_what_is_announced_and_then_the_final_value(text: str, answer: str | None) -> None:
    assert extract(text, "relaxed").answer == answer


@pytest.mark.parametrize(
    "unit",
    ["{", "}", "\\", r"\boxed{", r"\boxed", r"\boxed ", "{}", r"\boxed{}", "<think>", "</think>", "$", "$ ",
     r"\(", r"\[", "answer is ", "answer: ", "answer ", "####", "*", " ", "\n", "1", "1,111", "1/", "-", "é"],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["boxed", "relaxed"])
def test_hostile_text_takes_linear_time(unit: str, mode: str) -> None:
    text = unit * (100_000 // len(unit))
    start = time.process_time()
    extract(text, mode)
    # Linear needs 0.05 s; quadratic, minutes.
    assert time.process_time() - start < 3
