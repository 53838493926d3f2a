r"""equal: does a grader find the pairs of a file equal? For tuning graders, and for other people's data.

>>> list(equal(Path("pairs.jsonl")))  # a line: {"gold": "1/2", "pred": "0.5", "kind": "answer"}
[{'gold': '1/2', 'pred': '0.5', 'kind': 'answer', 'equal': True, 'stage': 'number', 'ms': 0.02}]

``kind`` is ``answer`` (the default) or ``text``: a response, in which the answer is looked for first, relaxed
unless the options say otherwise. Each pair is compared anew: no cache, no two the same skipped. ``ms`` is what
one pair took on one core.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from evalcore import grading
from evalcore.benchmarks import read_jsonl
from evalcore.errors import ResultsError
from evalcore.grading import Equality, Grader, Options
from evalcore.grading.pool import DEFAULT_TIMEOUT, Pair, Pool
from evalcore.records import Row

_ROWS_AT_ONCE = 512


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
        read = iter(lambda: [_read(row, tools, options) for row in islice(rows, _ROWS_AT_ONCE)], [])
        parts = ((part, [r.pair for r in part if r.verdict is None]) for part in read)
        for part, compared in pool.compare_ahead(parts):
            passed = iter(compared)
            for row, _, verdict, spent in part:
                if verdict is None:
                    timed = next(passed)
                    equal, stage, spent = timed.equal, timed.reason, timed.ms + spent
                else:
                    equal, stage = verdict
                yield {**row, "equal": equal, "stage": stage, "ms": round(spent, 3)}


class _Read(NamedTuple):
    """A row, its pair, what needs no worker, and the milliseconds that took."""

    row: Row
    pair: Pair
    verdict: Equality | None
    ms: float


def _read(row: Row, grader: Grader, options: Options) -> _Read:
    start = time.perf_counter()
    relaxed = {"extract": "relaxed", **options} if "extract" in grader.options else options
    answer, verdict = _found(row, grader, relaxed)
    pair = (answer, str(row["gold"]))
    if verdict is None:
        verdict = grader.quick(*pair, options)
    return _Read(row, pair, verdict, (time.perf_counter() - start) * 1000)


def _found(row: Row, grader: Grader, relaxed: Options) -> tuple[str, Equality | None]:
    """The answer of a row; or, of a text in which there is none, the verdict."""
    if row["pred"] is None:
        return "", Equality(False, "no answer: null")
    if row.get("kind", "answer") == "answer":
        return str(row["pred"]), None
    answer, reason = grader.extract(str(row["pred"]), relaxed)
    return (answer, None) if answer is not None else ("", Equality(False, f"no answer: {reason}"))


def _checked(place: str, row: Row) -> Row:
    for field in ("gold", "pred"):
        if field == "pred" and field in row and row[field] is None:
            continue  # whoever answered had no answer
        if not isinstance(row.get(field), (str, int, float)):
            raise ResultsError(f"{place}: no {field}; a row needs gold and pred, and may have kind")
    if row.get("kind", "answer") not in ("answer", "text"):
        raise ResultsError(f"{place}: kind is {row['kind']!r}; valid: answer, text")
    return row
