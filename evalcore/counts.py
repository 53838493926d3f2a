"""``counts.json``: how many samples of each problem have a verdict, and how many of these are correct.

And how many have no answer, were cut off, and so on: what ``rates`` compares.

>>> counts = ProblemCounts.load(Path("results/tiny/step-001800/tiny-arithmetic"))
>>> verdicts = counts.sampled["symbolic_correct"]
>>> counts.problems[0], verdicts.n[0], verdicts.c[0]
('tiny-arithmetic-0', 8, 7)

Written beside ``scorecard.json`` by the same ``summarize``, so that two checkpoints can be compared problem by
problem where their rows are not, since these stay on the cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from evalcore.errors import ResultsError
from evalcore.manifest import COUNTS, SCORECARD
from evalcore.records import write_file
from evalcore.tally import COLUMNS, Tally

ANSWERED = "answered"
"""Beside the columns of the table: n samples that a grader has read, c of them with an answer."""

TRUNCATED = "truncated"
"""n answers of which is known how they ended, c of them at the token limit."""

REPEATED = "repeated"
"""n answers that ``grade`` has looked at, c of them end in a loop (``repetition``)."""

UNPARSABLE = "unparsable"
"""n samples with a judgement, c of them without a verdict in it."""

FAILED = "failed"
"""n samples that were asked for, c of them never got an answer."""

TOKENS = "tokens"
"""n answers whose length is known, c tokens in all of them."""


class Verdicts(BaseModel):
    """n samples with a verdict and c correct ones, of each problem; of other columns, what these say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: tuple[int, ...]
    c: tuple[int, ...]


class ProblemCounts(BaseModel):
    """The contents of ``counts.json``.

    scorecard: SHA-256 of the scorecard's file of the same summary. problems: sorted ids; all the others are in
    their order. clusters, subsets: None for a problem without one. greedy, sampled: by column of the table, or one
    of the above; empty where nothing was asked for. What earlier versions wrote has ``answered`` alone of these.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scorecard: str
    problems: tuple[str, ...]
    clusters: tuple[str | None, ...]
    subsets: tuple[str | None, ...]
    greedy: dict[str, Verdicts]
    sampled: dict[str, Verdicts]

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        verdicts = [*self.greedy.values(), *self.sampled.values()]
        columns = [self.clusters, self.subsets, *(it.n for it in verdicts), *(it.c for it in verdicts)]
        if any(len(column) != len(self.problems) for column in columns):
            raise ValueError("columns of different lengths")
        return self

    def save(self, folder: Path) -> None:
        write_file(folder / COUNTS, self.model_dump_json())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder's counts.

        Raises:
            ResultsError: they are missing, unreadable, or not of the folder's scorecard.
        """
        again = f"run `evalcore summarize {folder}`"
        try:
            # The scorecard first: what replaces both meanwhile has replaced the counts before it.
            scorecard = digest((folder / SCORECARD).read_bytes())
            counts = cls.model_validate_json((folder / COUNTS).read_bytes())
        except FileNotFoundError as error:
            raise ResultsError(f"{folder}: no {Path(error.filename).name}; {again}") from None
        except (OSError, ValidationError) as error:
            raise ResultsError(
                f"{folder / COUNTS}: unreadable ({str(error).splitlines()[0]}); {again}"
            ) from error
        if counts.scorecard != scorecard:
            raise ResultsError(f"{folder}: {COUNTS} and {SCORECARD} are of two summaries; {again}")
        return counts


class Pair(NamedTuple):
    """One problem under both checkpoints: n samples with a verdict, c of them correct."""

    # No dataclass: a comparison makes tens of thousands, and frozen ones take three times as long.

    problem: str
    n: int
    c: int
    base_n: int
    base_c: int
    cluster: str | None = None

    @property
    def difference(self) -> Fraction:
        return Fraction(self.c, self.n) - Fraction(self.base_c, self.base_n)


class Column(NamedTuple):
    """One column of the counts, with the problems that it is of."""

    problems: Sequence[str]
    clusters: Sequence[str | None]
    n: Sequence[int]
    c: Sequence[int]


def paired(new: Column, base: Column) -> list[Pair]:
    """The problems that both have, in the order of the new one."""
    before = dict(zip(base.problems, zip(base.n, base.c, strict=True), strict=True))
    return [
        Pair(problem, n, c, *before[problem], cluster)
        for problem, cluster, n, c in zip(*new, strict=True)
        if problem in before
    ]


def digest(scorecard: bytes) -> str:
    return hashlib.sha256(scorecard).hexdigest()


def counts_of(
    tallies: Sequence[Tally], samples: int, greedy: bool, judged: bool, *, scorecard: bytes
) -> ProblemCounts:
    """The counts of some problems. scorecard: the content of the file that they belong to."""
    tallies = sorted(tallies, key=lambda tally: tally.problem)
    columns = COLUMNS if judged else COLUMNS[:1]

    def verdicts(part: slice) -> dict[str, Verdicts]:
        found = {column: [tally.graded_and_correct(column, part) for tally in tallies] for column in columns}
        found[ANSWERED] = [tally.graded_and_answered(part) for tally in tallies]
        found[TRUNCATED] = [tally.ended_and_truncated(part) for tally in tallies]
        found[REPEATED] = [tally.looked_at_and_repeated(part) for tally in tallies]
        if judged:
            found[UNPARSABLE] = [tally.judged_and_unparsable(part) for tally in tallies]
        found[FAILED] = [tally.asked_and_failed(part) for tally in tallies]
        found[TOKENS] = [tally.counted_and_tokens(part) for tally in tallies]
        return {
            column: Verdicts(n=tuple(n for n, _ in pairs), c=tuple(c for _, c in pairs))
            for column, pairs in found.items()
        }

    return ProblemCounts(
        scorecard=digest(scorecard),
        problems=tuple(tally.problem for tally in tallies),
        clusters=tuple(None if tally.cluster == tally.problem else tally.cluster for tally in tallies),
        subsets=tuple(tally.subset for tally in tallies),
        greedy=verdicts(slice(0, 1)) if greedy else {},
        sampled=verdicts(slice(1, None)) if samples else {},
    )
