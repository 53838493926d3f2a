"""grade: is the answer in each response the expected one? ``generations/`` → ``grades/``.

>>> grade(Path("results/tiny/step-001800/tiny-arithmetic"))
GradeSummary(rows=2160, new=2160, correct=1534, no_answer=1, undecided=0)

A row of a grades part::

    {"problem_id": "tiny-arithmetic-7", "sample": 3, "predicted_answer": "42", "symbolic_correct": true,
     "reason": "text", "repeats": false}

``repeats`` says whether the response ends in a loop (``repetition``); rows without a response, and those of earlier
versions, lack it. A wrong answer that is more than a number has a ``vote``: what it shares with those that mean the
same. ``symbolic_correct`` is false where there is no answer (``reason`` says why: no box, unfinished reasoning,
a request that failed for good) and null where no verdict could be reached (``timeout``, ``memory``, …).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from evalcore import grading
from evalcore.cache import Cache
from evalcore.errors import ResultsError
from evalcore.grading import Grader, Options
from evalcore.grading.pool import DEFAULT_TIMEOUT, Pair, Pool
from evalcore.manifest import GENERATIONS, GRADES, Grading, Manifest
from evalcore.progress import Progress
from evalcore.records import PartWriter, Row, key_of, read_keys, read_rows
from evalcore.repetition import ends_in_loop

_ROWS_AT_ONCE = 1024
_PAIRS_REMEMBERED = 200_000


class GradeSummary(NamedTuple):
    """Counts over all rows of the folder's present grading; new: those graded by this call."""

    rows: int
    new: int
    correct: int
    no_answer: int
    undecided: int


def grade(
    folder: Path,
    *,
    settings: str | None = None,
    workers: int | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> GradeSummary:
    """Grade the rows of a benchmark folder that are not graded yet; rows already graded are kept.

    A folder graded by another version of the graders is graded anew, into another part.

    Args:
        folder: holds ``manifest.json`` and ``generations/``.
        settings: id of the evaluation that the folder must be of (``manifest.settings_id``); None: any.
        workers: processes for the answers that need algebra; None: one for each core.
        timeout: seconds for one of them; over it the row is undecided, and stays so.

    Raises:
        ResultsError: no generations, other settings, or the folder cannot be written.
        ConfigError: the manifest names a grader or an option that does not exist.
    """
    manifest = Manifest.load(folder, settings)
    if manifest.grading.version != grading.VERSION:
        renewed = manifest.grading.model_copy(update={"version": grading.VERSION})
        # What was judged were the old verdicts.
        manifest = manifest.model_copy(update={"grading": renewed, "judging": None})
        manifest.save(folder)
    total = len(read_keys(folder / GENERATIONS, manifest.generation_id))
    if not total:
        raise ResultsError(f"{folder}: no generations under its manifest's settings; run `evalcore generate`")
    return grade_rows(
        read_rows(folder / GENERATIONS, manifest.generation_id),
        total,
        folder,
        manifest.grading_id,
        manifest.grading,
        name=manifest.benchmark.name,
        workers=workers,
        timeout=timeout,
    )


def grade_rows(
    generations: Iterable[Row],
    total: int,
    folder: Path,
    part: str,
    by: Grading,
    *,
    name: str,
    workers: int | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> GradeSummary:
    """Grade those rows of a folder that its part of ``grades/`` lacks.

    Args:
        generations: rows with ``problem_id``, ``sample``, ``generation`` and ``expected_answer``.
        total: how many they are. name: of the benchmark, for the progress.

    Raises:
        ResultsError: the folder cannot be written.
        ConfigError: the grader or an option does not exist.
    """
    grader, options = grading.check_options(by.grader, by.options), by.options
    graded = read_keys(folder / GRADES, part)
    if len(graded) < total:
        with (
            PartWriter(folder / GRADES, f"{part}-0") as writer,
            Pool(by.grader, options, votes=True, workers=workers, timeout=timeout) as pool,
            Cache("grades", [by.grader, grading.VERSION, *_decisive(options)]) as cache,
        ):
            # Again: who wrote here until now may have left less to do.
            graded = read_keys(folder / GRADES, part)
            ungraded = (row for row in generations if key_of(row) not in graded)
            batches = ((batch, batch.passed) for batch in _batches(ungraded, grader, options, cache))
            with Progress(f"grade {name}", total, done=len(graded)) as progress:
                for batch, timed in pool.compare_ahead(batches):
                    verdicts = [_Compared(t.equal, t.reason, t.vote) for t in timed]
                    new = dict(zip(batch.passed, verdicts, strict=True))
                    batch.known.update(new)
                    # Undecided may be a matter of a busy machine, and of the time limit.
                    decided = {pair: [*verdict] for pair, verdict in new.items() if verdict.equal is not None}
                    cache.put(decided)
                    for found in batch.found:
                        writer.write(_graded(found, batch.known))
                    progress.advance(samples=len(batch.found), tokens=0)
    return _summary(folder, part, new=total - len(graded))


def _decisive(options: Options) -> list[Any]:
    """What decides a verdict beside grader and pair: options as text but for that of extraction, and libraries."""
    texts = {name: str(value) for name, value in options.items() if name != "extract"}
    return [texts, *(importlib.metadata.version(library) for library in ("mpmath", "sympy"))]


class _Found(NamedTuple):
    """What is kept of a generation, which may be long: its key and what was found in it.

    pair: (answer, expected_answer); None if there is no answer, and reason says why. repeats: None without a text.
    """

    problem_id: str
    sample: int
    pair: Pair | None
    reason: str
    repeats: bool | None = None


def _found(row: Row, grader: Grader, options: Options) -> _Found:
    problem_id, sample = key_of(row)
    if error := row.get("error"):
        return _Found(problem_id, sample, None, f"no generation: {error}")
    generation = row.get("generation")
    if not isinstance(generation, str):
        return _Found(problem_id, sample, None, "no generation")
    answer, reason = grader.extract(generation, options)
    pair = None if answer is None else (answer, str(row["expected_answer"]))
    return _Found(problem_id, sample, pair, reason, ends_in_loop(generation))


class _Compared(NamedTuple):
    """An ``Equality``, and the vote of a wrong answer where it takes more than reading a number."""

    equal: bool | None
    reason: str
    vote: str | None = None


_Known = dict[Pair, _Compared | None]
"""Verdicts; None for a pair that the workers have."""


class _Batch(NamedTuple):
    """Rows, what is known of their pairs, and those that are for the workers."""

    found: list[_Found]
    known: _Known
    passed: list[Pair]


def _batches(rows: Iterator[Row], grader: Grader, options: Options, cache: Cache) -> Iterator[_Batch]:
    """All rows, with the verdicts that text, numbers and the cache give; no pair is passed on twice."""
    known: _Known = {}
    while found := [_found(row, grader, options) for row in islice(rows, _ROWS_AT_ONCE)]:
        if len(known) > _PAIRS_REMEMBERED:
            known = {}  # batches that wait for their verdicts keep the old one
        new = dict.fromkeys(f.pair for f in found if f.pair and f.pair not in known)
        for pair in new:
            equality = grader.quick(*pair, options)
            known[pair] = _Compared(*equality) if equality else None
        cached = cache.get(pair for pair in new if known[pair] is None)
        known |= {pair: _Compared(*verdict) for pair, verdict in cached.items()}
        yield _Batch(found, known, [pair for pair in new if known[pair] is None])


def _graded(found: _Found, known: _Known) -> Row:
    compared = known[found.pair] if found.pair else _Compared(False, found.reason)
    assert compared, "verdicts come back before the rows that wait for them"
    row: Row = {
        "problem_id": found.problem_id,
        "sample": found.sample,
        "predicted_answer": found.pair[0] if found.pair else None,
        "symbolic_correct": compared.equal,
        "reason": compared.reason,
    }
    if found.repeats is not None:
        row["repeats"] = found.repeats
    return row if compared.vote is None else {**row, "vote": compared.vote}


def _summary(folder: Path, part: str, new: int) -> GradeSummary:
    rows = correct = no_answer = undecided = 0
    for row in read_rows(folder / GRADES, part):
        rows += 1
        correct += row["symbolic_correct"] is True
        no_answer += row["predicted_answer"] is None
        undecided += row["symbolic_correct"] is None
    return GradeSummary(rows, new, correct, no_answer, undecided)
