"""This text, this answer. (How long it takes: ``test_linear``.)"""

from __future__ import annotations

import pytest

from evalcore.grading.extract import boxes, extract

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
    (r"\boxed{8}, in the form \boxed{...} or \boxed{\ldots}, \boxed{ ? }", "8"),
    (r"\boxed{8} and \boxed{\frac{1}{2}", "8"),
    # But this holds something.
    (r"\boxed{8} is \boxed{<}", "<"),
    (r"\boxed{\{}", r"\{"),  # a brace that is escaped closes and opens nothing
    # Without braces TeX boxes the next thing.
    (r"\boxed 5", "5"),
    (r"So it is $\boxed5$.", "5"),
    (r"\fbox 1,234.", "1,234"),
    (r"$\boxed\pi$ of them", r"\pi"),
    (r"\boxed\frac{\sqrt{2}}{2}", r"\frac{\sqrt{2}}{2}"),
    (r"\boxed{7}, no, $\boxed x$", "x"),
    (r"\boxed{7} is as \boxed to say", "7"),
    # Escaped as in JSON, and after a line break.
    (r"\\boxed{11}", "11"),
    ("\\\\\n\\boxed{12}", "12"),
    (r"\\\boxed{13}", "13"),
    (r"\framebox\tcboxed{14}", "14"),
    # Reasoning never counts.
    (r"<think>maybe \boxed{1}</think> It is \boxed{2}.", "2"),
    (r"maybe \boxed{1}</think>\boxed{2}", "2"),
    (r"<think>a</think><think>b \boxed{1}</think>\boxed{3}", "3"),
]

NO_ANSWER = [
    ("", "empty response"),
    ("  \n", "empty response"),
    ("The answer is 5.", "no box"),
    (r"Put it in \boxed format, 5 of it", "no box"),
    (r"\boxed\left(5\right)", "no box"),
    (r"\boxed{", "box empty or not closed"),
    (r"\boxed{ }", "box empty or not closed"),
    (r"\boxed{\ \text{ }}", "box empty or not closed"),
    (r"\boxed{5\}", "box empty or not closed"),
    (r"<think>so \boxed{5}", "reasoning not finished"),
    (r"<think>a</think> wait <think> \boxed{5}", "reasoning not finished"),
    (r"<think>\boxed{5}</think>", "empty response"),
    (r"\boxed{1}</think> I am not sure.", "no box"),
]

ANNOUNCED = [
    ("The answer is 42.", "42"),
    ("The answer is 2.5. I checked it twice, 7 by 7.", "2.5"),
    ("The final answer is: $\\frac{3}{4}$. I hope it is correct.", r"\frac{3}{4}"),
    ("Hence the answer to the second question is 17", "17"),
    ("so the answer must be 12 cm. That was 3 steps.", "12 cm"),
    ("We find the answer to be 8. It took 2 steps", "8"),
    ("The answer is, therefore, $5$. It took 2 steps", "5"),
    ("The answer is not 5. Rather 6", "6"),
    ("Ans: 5 (of 3)", "5 (of 3)"),
    ("Answer：42", "42"),
    # In bold, and as a heading.
    ("**Answer:** 1,234", "1,234"),
    ("**Answer: 42**", "42"),
    ("**Final Answer**: $12$", "12"),
    ("It took 2 steps.\n\n**Final Answer**\n\n42", "42"),
    ("### Final Answer\n\\[\n\\frac{1}{2}\n\\]\nin 2 steps", r"\frac{1}{2}"),
    ("**Answer**\n\nThe area is 15 square metres.", "15"),
    # Several formulas, as long as nothing but a comma or a conjunction joins them.
    ("The answer is $3$, $4$, or $5$. Of 7", "$3$, $4$, or $5$"),
    (r"The answer is \(x\) and \(-x\), for all 7", r"\(x\) and \(-x\)"),
    ("The answer is $3$, as $4-1=3$.", "3"),
    # The reason, and what follows of a conversation, is none of it.
    ("Answer: 5 apples, since $2+3=5$", "5 apples"),
    ("Answer: 12 (because 3 times 4 is that)", "12"),
    ("The answer is 42<|im_end|>7", "42"),
    ("The answer is 42.<|im_start|>user 7", "42"),
    # Of a sentence its value: the number that it starts with, or the last.
    ("The answer is 80 + 150 = 230 miles.", "230"),
    ("The answer is 5 of the 12 apples.", "5"),
    ("Answer: $5 per apple and $6 per pear", "$5"),
    ("Answer: 15 minutes after 3 o'clock", "15"),
    ("The answer is that he has 3 left.", "3"),
    ("Answer: the largest number of points there can be is 19. Next question", "19"),
    ("The answer is no such triangle exists here", "no such triangle exists here"),
    # But what else "Answer:" starts, leads to its value.
    ("Answer: He has 3 apples. He buys 4 more. So he has 7 apples.", "7"),
    ("Answer: Let's think step by step. He has 3 apples, buys 4, so has 7", "7"),
    # Short answers are taken whole.
    ("Answer: 60 miles per hour", "60 miles per hour"),
    ("Final Answer: (2, 5)", "(2, 5)"),
    ("Answer: $x = 3$, $y = 4$", "$x = 3$, $y = 4$"),
    # A box that was never closed.
    (r"The answer is $\boxed{\frac{1}{2}$.", r"\frac{1}{2}"),
    # What has no words is whole, but for a calculation.
    ("The answer is 3 < x < 5", "3 < x < 5"),
    ("The answer is 3 <= x <= 5.", "3 <= x <= 5"),
    ("The answer is x = 3 or x = -1.", "x = 3 or x = -1"),
    ("The answer is y = -2x + 3, with slope -2", "y = -2x + 3"),
    ("The answer is {1, 2, 3, 4, 5}.", "{1, 2, 3, 4, 5}"),
    ("The answer is [2, 5) \\cup (7, 9].", "[2, 5) \\cup (7, 9]"),
    ("The answer is x = 3 + 4 + 5 = 12.", "12"),
    ("The answer is 1 hour and 30 minutes.", "1 hour and 30 minutes"),
    # What says it again, or what it is not.
    ("The answer is therefore the sum, i.e. 12", "12"),
    ("The answer is the sum, which is 12.", "12"),
    ("The answer is 3 times 4, which is 12.", "12"),
    ("The answer is 5, which is 2 more than 3.", "5"),
    ("The answer is 10, not 12.", "10"),
    ("The answer is 5/6, or about 0.83.", "5/6"),
    ("The answer is 5 p.m. It took 3 hours.", "5 p.m"),
    # Words around the announcement.
    ("The answer (in dollars) is 5. It took 3", "5"),
    ("The answer, in dollars, is 5. It took 3", "5"),
    ("The answer in simplest form is 3/4. Or 7", "3/4"),
    ("The answer probably is 5. It took 3", "5"),
    ("The answer might be 5. It took 3", "5"),
    ("The answer is found to be 5. It took 3", "5"),
    ("The answers are $3$ and $5$.", "$3$ and $5$"),
    ("It took 3 steps (the answer is 5).", "5"),
    ("答案是5。共3步", "5"),
    ("Final Answer\n5\n\nI hope this helps with all 3.", "5"),
    ("The answer is 5 ✅", "5"),
    # What leads to it, and on what condition, or where, it is so.
    ("The answer is as follows:\n\n$5$\n\nIt took 3 steps", "5"),
    ("The answer is shown below.\n\n$$5$$ in 3 steps", "5"),
    ("The answer is the point (2, 5).", "(2, 5)"),
    ("The answer is the ordered pair $(2, 5)$.", "(2, 5)"),
    ("The answer is 5 if n = 3", "5"),
    ("The answer is 5 at x = 3", "5"),
    ("The answer is 5, so 3 is wrong", "5"),
    ("The answer is 5 — that is 3 more", "5"),
    ("The answer is 12 (see step 5).", "12"),
    ('Answer: "5"', "5"),
    ("The answer is 5</s>", "5"),
    ("The answer is 5<end_of_turn>", "5"),
    ("The answer is 5[/INST]", "5"),
    # Tags, JSON and Python; but a tag alone, or a blank box, says nothing.
    ("<answer> 5 </answer> in 3 steps", "5"),
    ("<answer>\n\\frac{1}{2}\n</answer>", r"\frac{1}{2}"),
    ('{"answer": 5, "steps": 3}', "5"),
    ('{"final_answer": "\\\\frac{1}{2}", "steps": 3}', r"\frac{1}{2}"),
    ('{"answer": "\\frac{1}{2}"}', r"\frac{1}{2}"),
    ('{"answer": "\\sqrt{2}"}', r"\sqrt{2}"),
    ("{'answer': '12', 'steps': 3}", "12"),
    ('{"answer": [1, 2], "steps": 3}', "[1, 2]"),
    (r"The answer is 5. Final answer: \boxed{}", "5"),
    # Of gsm8k; the same signs before words are a heading, unless they are the last of all.
    ("He has 4. #### 72", "72"),
    ("#### 1\nQuestion: and then?\n#### 2", "2"),
    ("#### Step 1\n3 apples\n#### Conclusion\nHe has 7 of them", "7"),
    ("#### 1. Find it\nIt is 3 by 5\n#### 2. Conclude\nSo 15.", "15"),
    ("Work in 2 steps.\n#### Paris", "Paris"),
    ("First 7.\nA: 72 clips in 2 months", "72"),
    ("A: He had 70 clips in May. So it is 72 in all, I think", "72"),
    ("The answer is 5, or \\boxed{6}", "6"),
]

FINAL_VALUE = [
    ("that makes 12 apples and 30 pears", "30"),
    ("it costs $1,250.50 in all.", "$1,250.50"),
    ("so it lost -$5.20 of it", "-$5.20"),
    ("that leaves -3", "-3"),
    ("that leaves .25 of it", ".25"),
    ("values 3, 4,5", "5"),
    ("half of it, 3/4", "3/4"),
    ("She needs 3 1/2 cups", "3 1/2"),
    ("He gets 2 x 10^5 of them", "2 x 10^5"),
    ("It makes 10^5", "10^5"),
    ("about 3.2e-5 in all", "3.2e-5"),
    ("He left at 3:45", "3:45"),
    ("that is 25%", "25%"),
    ("we find $x = 3$ in 2 steps; so $x+1 = 4$", "x+1 = 4"),
    (r"so \(y\) is \[ \sqrt{2} \]", r"\sqrt{2}"),
    (r"so it is $\sqrt3 $", r"\sqrt3"),
    ("so it is $ 5 $ in total", "5"),
    ("It is 1 234 567 in all", "1 234 567"),
    (r"It is 1\,234.5 in all", r"1\,234.5"),
    ("Rows of 12 3456", "3456"),
    ("so the area is 9π cm", "9π"),
    ("It is 3 × 10⁸ m/s", "3 × 10⁸"),
    ("It takes 2½ cups", "2½"),
    ("So it is √2", "√2"),
    ("It is 3 : 4 then", "3 : 4"),
    ("### 42", "42"),
    # In bold is what the last line says.
    ("So she has **45 apples** left after 3 days.", "45"),
    ("So it is **$x=7$**. Check: 7 + 3 = 10.", "x=7"),
    ("**3 apples** cost it.\nSo it is 15 in all", "15"),
    ("**2. Check** that it is 15 then", "15"),
    # Rows that go on calculating, and the sign that ends a proof.
    ("So it is\n\\begin{align*}\nx &= 2+3\\\\\n&= 5\n\\end{align*}", "= 5"),
    ("\\[\\begin{aligned}x &= 2+3\\\\&= 5\\end{aligned}\\] so", "= 5"),
    (r"Hence it must be $x=5$. $\blacksquare$", "x=5"),
    ("Hence it must be 5. ∎", "5"),
    ("So x = 5", "5"),
    # Money is no formula.
    ("It costs $5 per apple, so $x = 7$.", "x = 7"),
    ("She pays $5+$3 = $8", "$8"),
    (r"x^2+1", "x^2+1"),
    ("AZYUK2A", None),
    ("I do not know.", None),
]

PROGRAM = "```python\nanswer = 4\nprint(answer)\n```\n```output\n{}\n```\n"

PRINTED = [
    ("12", "", "12"),
    ("a step\n3.0", "The three of them came within 15 minutes.", "3.0"),
    ("3", "The answer is 7.", "7"),
    ("3", r"\boxed{8}", "8"),
    # Whoever goes on to calculate is not done with the output.
    ("12", "So each of them gets 12/4 = 3", "3"),
    # What is printed when a program fails is no answer, whatever number is in it.
    ("ZeroDivisionError: division of 2 by zero", "error", None),
    ("None", "There are 7 of them", "7"),
]


@pytest.mark.parametrize(("text", "answer"), BOXED)
def test_the_last_box_counts(text: str, answer: str) -> None:
    assert extract(text, "boxed") == (answer, "boxed")
    assert extract(text, "relaxed") == (answer, "boxed")


@pytest.mark.parametrize(("text", "reason"), NO_ANSWER)
def test_a_missing_answer_has_its_reason(text: str, reason: str) -> None:
    assert extract(text, "boxed") == (None, reason)


@pytest.mark.parametrize(("text", "answer"), ANNOUNCED)
def test_relaxed_reads_what_is_announced(text: str, answer: str) -> None:
    assert extract(text, "relaxed").answer == answer


@pytest.mark.parametrize(("text", "answer"), FINAL_VALUE)
def test_relaxed_reads_the_final_value(text: str, answer: str | None) -> None:
    assert extract(text, "relaxed").answer == answer


@pytest.mark.parametrize(("printed", "after", "answer"), PRINTED)
def test_relaxed_reads_what_a_program_printed(printed: str, after: str, answer: str | None) -> None:
    assert extract(PROGRAM.format(printed) + after, "relaxed").answer == answer


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The answer is 5", "announced"),
        ("5", "nothing else"),
        ("It is 5 then", "final number"),
        ("It is $x$ then", "final formula"),
        ("```output\n5\n```", "program output"),
        ("No idea", "no box, no number"),
        (r"No idea, \boxed{}", "box empty or not closed, no number"),
        ("<think>The answer is 5", "reasoning not finished"),
        (" ", "empty response"),
    ],
)
def test_relaxed_says_where_an_answer_was_found_or_why_not(text: str, reason: str) -> None:
    assert extract(text, "relaxed").reason == reason


def test_boxes_are_found_with_their_places() -> None:
    text = r"\boxed{a \boxed{b}} { \boxed{} \boxed{c}"
    assert [text[start:end] for start, end in boxes(text)] == ["b", r"a \boxed{b}", "c"]


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("The answer is 12. There are 3 ways.\n\nAnswer: \\boxed{}", "12"),
        ("The answer is 3 apples plus 4 apples = 7 apples.", "7"),
        (
            "The answer is $" + "+".join(f"x_{i}" for i in range(30)) + "$.",
            "+".join(f"x_{i}" for i in range(30)),
        ),
    ],
)
def test_what_is_announced_whole_or_by_its_value(response: str, answer: str) -> None:
    assert extract(response, "relaxed").answer == answer
