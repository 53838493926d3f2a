"""This text, this letter."""

from __future__ import annotations

import pytest

from evalcore.grading.choice import extract, quick

BOXED = [
    *[r"\boxed{C}", r"\boxed{(C)}", r"\fbox{[C]}", r"\boxed{c}", r"\boxed{\text{C}}", r"\boxed{\text{(C)}}"],
    *[r"\boxed{\textbf{(C)}}", r"\boxed{\textbf{(C)}\ 12}", r"\boxed{\mathrm{(C)}~12}", r"\boxed{\text{C) } 12}"],
    *[r"\boxed{C. 5 apples}", r"\boxed{C: 5}", r"\boxed{C \text{ (5 apples)}}", r"\boxed{\text{Option C}}"],
    *[r"\boxed{12 \text{ (C)}}", r"\boxed{\text{The answer is C}}", r"\boxed{\left(\text{C}\right)}"],
]  # fmt: skip

ANNOUNCED = [
    *["Answer: C", "answer: c", "ANSWER: C", "**Answer:** C", "**Answer: C**", "Answer:\n\nC", "Answer: (C)"],
    *["Answer: [C]", "Answer: $C$", r"Answer: \(C\)", r"Answer: \text{(C)}", 'Answer: "C"', "Answer: 'C'"],
    *["Answer: C) 12", "Answer: C. 12", "Answer: C, since 12 is even", "Answer: C – the second", "Answer：C"],
    *["Answer: option C", "Answer choice: C", "Correct choice: C", "**Answer**\n\n**C**", "## Final answer\nC"],
    *["The answer is C", "The answer is (C).", "The answer is c.", "The correct answer is **C**.", "#### C"],
    *["The correct option is C.", "The best choice is (C)", "The answer is option C", "The answer choice is C"],
    *["The answer must be C", "The answer is therefore C.", "The answer to this question is C."],
    *["Answer: [[C]]", "<answer>C</answer>", "<answer>\n(C) 12\n</answer> as above", "答案是C。", "Ans. (C)"],
    *["The answer is probably C.", "The answer is most likely (C).", "The answer might be C.", '{"answer": "C"}'],
    *["The correct answer among these is C.", "The answer (by elimination) is C.", "The answer is the letter C."],
    *["The answer is C because A is too small", "The answer is C (not D).", "Final Answer: The final answer is (C)"],
]  # fmt: skip

OTHERWISE = [
    ("I would go with option (C).", "chosen"),
    ("I choose C, for A is too small.", "chosen"),
    ("This matches option C.", "chosen"),
    ("So the option is C", "chosen"),
    ("Option C is correct. A is not.", "chosen"),
    ("So (C) is the correct answer.", "chosen"),
    ("It is even. Hence, C.", "chosen"),
    ("It's C.", "chosen"),
    ("I'd say C.", "chosen"),
    ("It is even. Therefore, (C).", "chosen"),
    ("I doubt that A is correct. It is C.", "chosen"),
    ("C", "alone on its line"),
    ("c)", "alone on its line"),
    ("[[C]]", "alone on its line"),
    ("It is even.\nSelected option: C", "alone on its line"),
    ("(C)", "alone on its line"),
    ("C.", "alone on its line"),
    ("It is even.\n**C**\nI hope this helps.", "alone on its line"),
    ("(A)\n(B)\n(C)\n(D)\nIt is even:\n(C)", "alone on its line"),
    ("C) 12", "the only option named"),
    ("**C.** The second one\n\nIt is even.", "the only option named"),
]

LETTERS = [
    # The last announcement wins, and a boxed equation announces no letter.
    (r"The answer is A. No: \boxed{B}", "B"),
    (r"\boxed{A} Checking again. Answer: D", "D"),
    (r"We get \boxed{x = 5}. Answer: D", "D"),
    (r"Answer: D. For \boxed{x = 5}", "D"),
    (r"\boxed{B}, as \boxed{x = 5}", "B"),
    ("Answer: A. But 5 is odd. Answer: B", "B"),
    (r"The answer is \boxed{B}, not A.", "B"),
    # Who corrects himself announces.
    ("A. Wait, no: B", "B"),
    ("The answer is A. Wait, no, it's B.", "B"),
    ("The answer is A. Actually, (B).", "B"),
    ("The answer is B. No, A is too small.", "B"),
    ("There are no A. Answer: B", "B"),
    # What is said of the others announces nothing.
    ("The answer is B. Option A is wrong because it is negative.", "B"),
    ("The answer is B. A is correct only for n = 1.", "B"),
    ("The correct option is B, since A is too small.", "B"),
    ("Answer: B\nA\nis not it", "B"),
    ("Answer: B\n\nA) 5\nB) 6\nC) 7\nD) 8", "B"),
    ("Answer: B\n(A)\n(B)\n(C)\n(D)", "B"),
    ("**Answer: (B) A train**", "B"),
    # A and I are words, but letters too.
    ("The answer is A because it floats", "A"),
    ("The correct answer is A: 5", "A"),
    ("The answer is I.", "I"),
    ("The answer is J", "J"),
    (r"\boxed{J}", "J"),
    ("<think>Answer: A</think>Answer: B", "B"),
]

NONE = [
    # Prose.
    *["I like Cats", "The answer is Cats", "The answer is A's value", "Answer: A train leaves at 5"],
    *["The answer is a train", "Answer: I think it is hard", "A train leaves. I am late.", "Option A is wrong."],
    *["The answer is not A.", "The correct answer is not listed", "None of the options is correct", "Answer:"],
    *["I cannot answer this question.", "I'm sorry, as an AI I can't help.", "Neither A nor C is correct."],
    *["It cannot be said that A is correct", "I don't think A is correct.", "It is not true that A is correct."],
    *["It is unlikely that the answer is A.", "If the answer is A, then x = 5.", "There is no A.", "It is A-rated."],
    # Formulas and names.
    *[r"\boxed{x = 5}", r"\boxed{B = 5}", r"\boxed{AB}", r"\boxed{D(2,3)}", r"\boxed{C_2}", r"\boxed{A'}"],
    *[r"\boxed{A \cup B}", r"\boxed{\angle C}", "Answer: B = 5", "The answer is E = mc^2", "Answer: A^2"],
    *["The answer is C++", "The answer is B-tree", "Answer: $x_A$", "Answer: K"],
    # Options, of which none is chosen.
    *["(A)\n(B)\n(C)\n(D)", "A\nB\nC\nD", "A) 5\nB) 6\nC) 7", "(a) First we compute", "A or B?"],
    *["Is the answer A or B?", r"\boxed{C"],
]  # fmt: skip

SEVERAL = [
    *["The answer is A or B.", "Answer: A, C", "Answer: A and C", "Answer: A/B", "Answer: (A) or (B)"],
    *["Answer: option A or option B", "Answer: I and II only", "Answer: I, II and III"],
    *["Answer: B. No, answer: A or C", r"\boxed{A, C}", r"\boxed{A \text{ and } C}", r"\boxed{\text{(A) and (C)}}"],
]  # fmt: skip


@pytest.mark.parametrize("text", BOXED + ANNOUNCED)
def test_a_letter_in_any_dress(text: str) -> None:
    assert extract(text, {}) == ("C", "announced")


@pytest.mark.parametrize(("text", "how"), OTHERWISE)
def test_a_letter_that_is_not_announced(text: str, how: str) -> None:
    assert extract(text, {}) == ("C", how)
    assert extract(text + "\nAnswer: E", {}) == ("E", "announced")


@pytest.mark.parametrize(("text", "letter"), LETTERS)
def test_the_letter_a_response_settles_on(text: str, letter: str) -> None:
    assert extract(text, {}) == (letter, "announced")


@pytest.mark.parametrize("text", NONE)
def test_no_letter(text: str) -> None:
    assert extract(text, {}) == (None, "no letter announced")


@pytest.mark.parametrize("text", SEVERAL)
def test_who_names_two_letters_has_not_chosen(text: str) -> None:
    assert extract(text, {}) == (None, "announced: several letters")


def test_no_response_has_its_own_reason() -> None:
    assert extract("", {}) == (None, "empty response")
    assert extract("<think>Answer: A", {}) == (None, "reasoning not finished")


@pytest.mark.parametrize(
    "written",
    [
        "C",
        "c",
        "(C)",
        "(c)",
        "C.",
        "C)",
        " C ",
        "$C$",
        r"\text{C}",
        r"\textbf{(C)}",
        "C) 12",
        "Option C",
        r"\boxed{C}",
    ],
)
def test_answer_and_reference_in_any_dress(written: str) -> None:
    assert quick("C", written, {}) == (True, "letter")
    assert quick(written, "C", {}) == (True, "letter")
    assert quick("D", written, {}) == (False, "letter")
    assert quick(written, "Cat", {}) == (False, "letter")


def test_a_letter_alone_after_reasoning_is_the_choice() -> None:
    assert extract("It rises, then falls.\n\nA", {}).answer == "A"
