r"""equal: does a grader find the pairs of a file equal? For tuning graders, and for other people's data.

>>> list(equal(Path("pairs.jsonl")))  # a line: {"gold": "1/2", "pred": "0.5", "kind": "answer"}
[{'gold': '1/2', 'pred': '0.5', 'kind': 'answer', 'equal': True, 'stage': 'number', 'ms': 0.02}]

``kind`` is ``answer`` (the default) or ``text``: a response, in which the answer is looked for first, relaxed
unless the options say otherwise. Each pair is compared anew: no cache, no two the same skipped. ``ms`` is what
one pair took on one core.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from evalcore import grading
from evalcore.benchmarks import read_jsonl
from evalcore.errors import ResultsError
from evalcore.grading import Grader, Options
from evalcore.grading.pool import DEFAULT_TIMEOUT, Pool, Timed
from evalcore.records import Row

_ROWS_AT_ONCE = 4096


class Counts(NamedTuple):
    """What became of a file's pairs. labelled, right: those with an ``expected`` verdict, and those like it."""

    pairs: int = 0
    equal: int = 0
    different: int = 0
    undecided: int = 0
    labelled: int = 0
    right: int = 0

    def plus(self, row: Row) -> Counts:
        verdict, labelled = row["equal"], isinstance(row.get("expected"), bool)
        return Counts(
            self.pairs + 1,
            self.equal + (verdict is True),
            self.different + (verdict is False),
            self.undecided + (verdict is None),
            self.labelled + labelled,
            self.right + (labelled and verdict is row["expected"]),
        )

    def __str__(self) -> str:
        counts = f"{self.pairs:,} pairs: {self.equal:,} equal, {self.different:,} not, {self.undecided:,} undecided"
        if not self.labelled:
            return counts
        return f"{counts}; {self.right:,} of {self.labelled:,} as expected ({self.right / self.labelled:.2%})"


def equal(
    file: Path,
    *,
    grader: str = "math",
    options: Options | None = None,
    workers: int | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Iterator[Row]:
    """The rows of a JSONL file in their order, each with ``equal``, ``stage`` and ``ms``.

    stage: which stage decided (``grading.math``), or why none could; for ``text`` without an answer, why.

    Raises:
        ConfigError: no such grader or option.
        BenchmarkError: an unreadable file or line.
        ResultsError: a row without ``gold`` or ``pred``, or of another kind.
    """
    options = options or {}
    tools = grading.check_options(grader, options)
    rows = (_checked(place, row) for place, row in read_jsonl(file))
    with Pool(grader, options, workers=workers, timeout=timeout) as pool:
        if tools.thorough:
            pool.start()
        while part := list(islice(rows, _ROWS_AT_ONCE)):
            yield from _compare(part, tools, options, pool)


def _compare(rows: list[Row], grader: Grader, options: Options, pool: Pool) -> Iterable[Row]:
    relaxed = {"extract": "relaxed", **options} if "extract" in grader.options else options
    verdicts: list[Timed | None] = []
    answers: list[str] = []
    spent: list[float] = []
    for row in rows:
        start = time.perf_counter()
        answer, equality = _found(row, grader, relaxed)
        if equality is None:
            equality = grader.quick(answer, str(row["gold"]), options)
        milliseconds = (time.perf_counter() - start) * 1000
        verdicts.append(None if equality is None else Timed(*equality, milliseconds))
        answers.append(answer)
        spent.append(milliseconds)
    passed = [i for i, verdict in enumerate(verdicts) if verdict is None]
    for i, timed in zip(
        passed, pool.compare([(answers[i], str(rows[i]["gold"])) for i in passed]), strict=True
    ):
        verdicts[i] = timed._replace(ms=timed.ms + spent[i])
    for row, verdict in zip(rows, verdicts, strict=True):
        assert verdict is not None, "what quick passes the pool decides"
        yield {**row, "equal": verdict.equal, "stage": verdict.reason, "ms": round(verdict.ms, 3)}


def _found(row: Row, grader: Grader, relaxed: Options) -> tuple[str, grading.Equality | None]:
    """The answer of a row; or, of a text in which there is none, the verdict."""
    if row.get("kind", "answer") == "answer":
        return str(row["pred"]), None
    answer, reason = grader.extract(str(row["pred"]), relaxed)
    return (answer, None) if answer is not None else ("", grading.Equality(False, f"no answer: {reason}"))


def _checked(place: str, row: Row) -> Row:
    for field in ("gold", "pred"):
        if not isinstance(row.get(field), str | int | float):
            raise ResultsError(f"{place}: no {field}; a row needs gold and pred, and may have kind")
    if row.get("kind", "answer") not in ("answer", "text"):
        raise ResultsError(f"{place}: kind is {row['kind']!r}; valid: answer, text")
    return row
