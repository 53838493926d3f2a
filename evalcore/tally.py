"""What the rows of one problem come to: a few bytes for each sample.

>>> tally = Tally(2, {"problem_id": "a"})
>>> tally.add_grade(0, "42", True)
>>> tally.graded_and_correct("symbolic_correct", slice(1, None))
(1, 1)

Index 0 is the greedy answer, index i + 1 sample i.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from evalcore.grading.math import exact_number
from evalcore.grading.math.bounds import out_of_reach
from evalcore.grading.math.spelling import normalize, squeezed
from evalcore.metrics import both, either, majority_at_k
from evalcore.records import GREEDY, Row

COLUMNS = ("symbolic_correct", "judge_correct", "both_correct", "any_correct")

_ABSENT, _WRONG, _RIGHT, _UNKNOWN = range(4)
_FAILED, _CUT, _ENDED, _UNSAID = range(1, 5)  # of a generation: no answer, or how it ended, if anybody says
_ENDS = {"length": _CUT, None: _UNSAID}
_REPEATS = {True: _RIGHT, False: _WRONG, None: _ABSENT}
_CODE = {False: _WRONG, True: _RIGHT, None: _UNKNOWN}
_VERDICT = {_ABSENT: None, _WRONG: False, _RIGHT: True, _UNKNOWN: None}
_BOTH, _EITHER = (
    {(s, j): _CODE[combine(_VERDICT[s], _VERDICT[j])] for s in range(4) for j in range(4)}
    for combine in (both, either)
)


def deciding(is_judges: bool) -> str:
    """The column by which checkpoints are compared: the judge's where its verdicts count, else the grader's."""
    return "judge_correct" if is_judges else COLUMNS[0]


class Tally:
    """One problem. cluster: what it shares with problems it is not independent of; by default nothing."""

    __slots__ = (
        "answers",
        "cluster",
        "ends",
        "judge",
        "problem",
        "repeats",
        "subset",
        "symbolic",
        "tokens",
        "unread",
    )

    def __init__(self, samples: int, row: Row) -> None:
        size = samples + 1
        self.problem: str = row["problem_id"]
        subset = row.get("subset_for_metrics")
        self.subset = None if subset is None else plain_name(str(subset))
        cluster = row.get("cluster")
        self.cluster = self.problem if cluster in (None, "") else str(cluster)
        self.ends = bytearray(size)
        self.tokens: list[int | None] = [None] * size
        self.answers: list[str | None] = [None] * size
        self.symbolic = bytearray(size)
        self.judge = bytearray(size)
        self.unread = bytearray(size)
        self.repeats = bytearray(size)

    def add_generation(self, row: Row) -> None:
        index = row["sample"] - GREEDY
        if row.get("error") is None:
            self.tokens[index] = row.get("num_generated_tokens")  # None where the server did not say
            self.ends[index] = _ENDS.get(row.get("finish_reason"), _ENDED)
        else:
            self.ends[index] = _FAILED

    def add_grade(
        self,
        sample: int,
        vote: str | None,
        correct: bool | None,
        *,
        is_read: bool = True,
        repeats: bool | None = None,
    ) -> None:
        """vote: see ``vote_of``. is_read False: nobody says what the answer was, or whether there was one.

        repeats: see ``grade``; None: nobody looked.
        """
        self.answers[sample - GREEDY] = vote
        self.symbolic[sample - GREEDY] = _CODE[correct]
        self.unread[sample - GREEDY] = not is_read
        self.repeats[sample - GREEDY] = _REPEATS[repeats]

    def add_judgement(self, sample: int, correct: bool | None) -> None:
        self.judge[sample - GREEDY] = _CODE[correct]

    @property
    def generated(self) -> int:
        return len(self.ends) - self.ends.count(_ABSENT)

    @property
    def failed(self) -> int:
        return self.ends.count(_FAILED)

    @property
    def truncated(self) -> int:
        return self.ends.count(_CUT)

    @property
    def graded(self) -> int:
        return len(self.symbolic) - self.symbolic.count(_ABSENT)

    @property
    def judged(self) -> int:
        return len(self.judge) - self.judge.count(_ABSENT)

    @property
    def undecided(self) -> int:
        return self.symbolic.count(_UNKNOWN)

    @property
    def unparsable(self) -> int:
        return self.judge.count(_UNKNOWN)

    def generated_in(self, part: slice) -> int:
        return len(ends := self.ends[part]) - ends.count(_ABSENT)

    def mean_tokens(self, part: slice) -> float:
        """Of the answers whose length is known; NaN if none is."""
        tokens = [count for count in self.tokens[part] if count is not None]
        return sum(tokens) / len(tokens) if tokens else math.nan

    def grades(self, column: str, part: slice) -> bytes:
        """The samples' codes in one column of the table."""
        if column == "symbolic_correct":
            return bytes(self.symbolic[part])
        if column == "judge_correct":
            return bytes(self.judge[part])
        combined = _BOTH if column == "both_correct" else _EITHER
        return bytes(map(combined.__getitem__, zip(self.symbolic[part], self.judge[part], strict=True)))

    def graded_and_correct(self, column: str, part: slice) -> tuple[int, int]:
        """n and c of pass@k: the samples with a verdict, and those found correct."""
        grades = self.grades(column, part)
        correct = grades.count(_RIGHT)
        return correct + grades.count(_WRONG), correct

    def graded_and_answered(self, part: slice) -> tuple[int, int]:
        """The samples a grader has read, and those of them in which it found an answer."""
        graded = sum(map(bool, self.symbolic[part])) - sum(self.unread[part])
        answers = self.answers[part]
        return graded, len(answers) - answers.count(None)

    def asked_and_failed(self, part: slice) -> tuple[int, int]:
        """The samples that were asked for, and those of them that no answer ever came to."""
        return self.generated_in(part), self.ends[part].count(_FAILED)

    def ended_and_truncated(self, part: slice) -> tuple[int, int]:
        """The answers of which is known how they ended, and those of them that were cut off at the token limit."""
        ends = self.ends[part]
        truncated = ends.count(_CUT)
        return ends.count(_ENDED) + truncated, truncated

    def looked_at_and_repeated(self, part: slice) -> tuple[int, int]:
        """The samples of which ``grade`` says whether they end in a loop, and those that do."""
        repeats = self.repeats[part]
        return len(repeats) - repeats.count(_ABSENT), repeats.count(_RIGHT)

    def judged_and_unparsable(self, part: slice) -> tuple[int, int]:
        """The samples with a judgement, and those of them from which no verdict can be read."""
        judge = self.judge[part]
        return len(judge) - judge.count(_ABSENT), judge.count(_UNKNOWN)

    def counted_and_tokens(self, part: slice) -> tuple[int, int]:
        """The samples whose length is known, and their tokens."""
        tokens = [count for count in self.tokens[part] if count is not None]
        return len(tokens), sum(tokens)

    def majority(self, column: str, part: slice, k: int) -> float:
        """majority@k in one column; NaN if it cannot be known.

        What the column's grader found correct equals the reference, and so each other: those answers
        vote together.
        """
        if any(self.unread[part]):
            return math.nan
        graded = sum(map(bool, self.symbolic[part]))
        votes = Counter(zip(self.answers[part], self.grades(column, part), strict=True))
        right = {answer for answer, grade in votes if grade == _RIGHT}
        known = {answer for answer, grade in votes if grade == _WRONG}
        wrong: Counter[str] = Counter()
        silent, correct = graded, 0
        for (answer, _), count in votes.items():
            if answer is None:
                continue
            silent -= count
            if answer in right:
                correct += count
            else:
                wrong[answer] += count
        groups = [(count, 0.0 if answer in known else math.nan) for answer, count in wrong.items()]
        return majority_at_k([(correct, 1.0), *groups] if correct else groups, silent, k)


def sample_spread(tallies: Sequence[Tally]) -> float | None:
    """The standard deviation (of a sample, n − 1) between the samples' shares of correct answers, or None.

    A sample's share is over the problems of which it has a symbolic verdict.
    """
    if not tallies:
        return None
    right = np.zeros(len(tallies[0].symbolic) - 1)
    graded = np.zeros_like(right)
    for tally in tallies:
        codes = np.frombuffer(tally.symbolic, dtype=np.uint8)[1:]
        right += codes == _RIGHT
        graded += (codes == _RIGHT) | (codes == _WRONG)
    shares = right[graded > 0] / graded[graded > 0]
    return float(shares.std(ddof=1)) if len(shares) > 1 else None


def plain_name(name: str) -> str:
    """A name from outside as part of table headers and metric names: in one line, and "/" has a meaning there."""
    return re.sub(r"[^\w.+=@ -]", "-", name)


def vote_of(row: Row, grader: str) -> str | None:
    """What a graded row votes for; answers that mean the same vote for the same. None: there is no answer.

    ``grade`` records it where it takes more than reading a number; elsewhere, and in NeMo-Skills' rows,
    a mathematical answer votes by its value if it is a plain number (``1/2``, ``0.5``), else by its
    normalised text.
    """
    answer = row.get("predicted_answer")
    if answer is None:
        return None
    if out_of_reach(answer):  # nobody reads it, so it need not be kept
        return f"digest {hashlib.sha256(answer.encode(errors='surrogatepass')).hexdigest()[:24]}"
    if grader != "math":
        return str(answer)
    return row.get("vote") or _plain_vote(answer)


@lru_cache(maxsize=1 << 16)  # problems of one benchmark share many answers
def _plain_vote(answer: str) -> str:
    text = squeezed(normalize(answer))
    number = exact_number(text)
    return text if number is None else str(number)
