"""This text, this letter."""

from __future__ import annotations

import pytest

from evalcore.grading.choice import extract, quick

LETTERS = [
    (r"\boxed{C}", "C"),
    (r"\boxed{(C)}", "C"),
    (r"\boxed{\text{C}}", "C"),
    (r"\boxed{\textbf{(C)}}", "C"),
    (r"\boxed{C. 5 apples}", "C"),
    ("Answer: C", "C"),
    ("**Answer:** C", "C"),
    ("The answer is (C).", "C"),
    ("The correct answer is **C**.", "C"),
    ("the answer is option B", "B"),
    ("The correct option is B, since A is too small.", "B"),
    ("Reasons.\n**C**", "C"),
    ("(D)", "D"),
    ("B.", "B"),
    # The last announcement wins, and a boxed equation announces no letter.
    (r"The answer is A. No: \boxed{B}", "B"),
    (r"\boxed{A} Checking again. Answer: D", "D"),
    (r"We get \boxed{x = 5}. Answer: D", "D"),
    ("The answer is B. Option A is wrong because it is negative.", "B"),
    ("Answer: B\nA\nis not it", "B"),
    ("<think>Answer: A</think>Answer: B", "B"),
]

NONE = [
    ("", "empty response"),
    ("I like Cats", "no letter announced"),
    ("The answer is Cats", "no letter announced"),
    ("The answer is A's value", "no letter announced"),
    (r"\boxed{x = 5}", "no letter announced"),
    ("<think>Answer: A", "reasoning not finished"),
]


@pytest.mark.parametrize(("text", "letter"), LETTERS)
def test_the_letter_a_response_settles_on(text: str, letter: str) -> None:
    assert extract(text, {}).answer == letter


@pytest.mark.parametrize(("text", "reason"), NONE)
def test_no_letter(text: str, reason: str) -> None:
    assert extract(text, {}) == (None, reason)


@pytest.mark.parametrize("reference", ["C", "c", "(C)", "C.", " C ", "$C$"])
def test_references_in_any_dress(reference: str) -> None:
    assert quick("C", reference) == (True, "letter")
    assert quick("D", reference) == (False, "letter")
