"""NeMo-Skills' result folders, read as they are: ``eval-results/<benchmark>/output-rs0.jsonl``.

>>> [card.benchmark for card in summarize(Path("openmath-eval/eval-results"))]
['aime24', 'gsm8k']

A line is one problem, and line i of every file is the same problem: ``output-greedy.jsonl`` (or
``output.jsonl``) holds greedy answers and ``output-rs<seed>.jsonl`` one sample each; a file that is still in
pieces is ``output-rs<seed>_chunk_<n>.jsonl``. Their files are never written. ``grade`` puts our verdicts into
``grades/`` beside them, keyed by line and sample, and ``summarize`` takes those where they are there.
Where numbers differ from NeMo-Skills' own: a judgement without a verdict is missing, not wrong, and a
vote groups answers by value, not by text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from evalcore import grading
from evalcore.errors import ResultsError
from evalcore.grade import GradeSummary, grade_rows
from evalcore.grading.pool import DEFAULT_TIMEOUT
from evalcore.judge import parse_verdict
from evalcore.manifest import GRADES, Grading
from evalcore.records import GREEDY, Row, read_rows
from evalcore.summarize import Scorecard, score
from evalcore.tally import Tally, plain_name, vote_of

_OUTPUT = re.compile(r"output(?:-greedy|-rs(?P<seed>\d+))?(?:_chunk_(?P<chunk>\d+))?\.jsonl")
_NUMBERS_DEPEND_ON = {"num_generated_tokens": (int, float), "cluster": (str, int)}


def is_results(folder: Path) -> bool:
    """Whether a folder, one of its folders, or ``eval-results`` in it, holds NeMo-Skills' output files."""
    return bool(_benchmark_folders(folder))


def summarize(folder: Path) -> list[Scorecard]:
    """One scorecard for each benchmark folder at or below ``folder``, sorted by name.

    Raises:
        ResultsError: no output files, a line that is no row or has a field that cannot be used, or files
            that differ in their problems.
    """
    folders = _benchmark_folders(folder)
    if not folders:
        raise ResultsError(f"{folder}: no output-greedy.jsonl or output-rs<N>.jsonl here or one level below")
    return [_summarize_benchmark(benchmark) for benchmark in folders]


def _benchmark_folders(folder: Path) -> list[Path]:
    for root in (folder, folder / "eval-results"):
        if _output_files(root).files:
            return [root]
        if found := [child for child in sorted(root.glob("*/")) if _output_files(child).files]:
            return found
    return []


class _Outputs(NamedTuple):
    """The files of a benchmark: (sample, its pieces in order), greedy first, then by seed."""

    greedy: bool
    files: list[tuple[int, list[Path]]]

    @property
    def samples(self) -> int:
        return len(self.files) - self.greedy

    @property
    def digest(self) -> str:
        """Of names, sizes and times: other files have other grades."""
        stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for _, files in self.files for f in files]
        return hashlib.sha256(orjson.dumps(stats)).hexdigest()


def _output_files(folder: Path) -> _Outputs:
    whole: dict[int, list[Path]] = {}
    chunks: dict[int, dict[int, Path]] = {}
    for file in folder.glob("output*.jsonl"):
        if match := _OUTPUT.fullmatch(file.name):
            seed = int(match["seed"]) if match["seed"] else GREEDY
            if match["chunk"]:
                chunks.setdefault(seed, {})[int(match["chunk"])] = file
            elif seed not in whole or file.name == "output-greedy.jsonl":
                whole[seed] = [file]
    for seed, pieces in chunks.items():
        # Left over where the whole file is there.
        whole.setdefault(seed, [pieces[n] for n in sorted(pieces)])
    by_seed = [whole[seed] for seed in sorted(whole)]
    greedy = GREEDY in whole
    return _Outputs(greedy, list(enumerate(by_seed, GREEDY if greedy else 0)))


def grade(
    folder: Path, *, workers: int | None = None, timeout: float = DEFAULT_TIMEOUT
) -> list[tuple[Path, GradeSummary]]:
    """Grade the responses of each benchmark at or below a folder with our math grader, into ``grades/``.

    Raises:
        ResultsError: as ``summarize``; or a row without a response or a reference.
    """
    found = []
    for benchmark in _benchmark_folders(folder):
        outputs = _output_files(benchmark)
        total = sum(1 for _ in _rows(outputs))
        part, by = _grading(outputs)
        rows = _with_responses(outputs)
        summary = grade_rows(
            rows,
            total,
            benchmark,
            part,
            by,
            name=plain_name(benchmark.name),
            workers=workers,
            timeout=timeout,
        )
        found.append((benchmark, summary))
    return found


def _grading(outputs: _Outputs) -> tuple[str, Grading]:
    """The part of ``grades/`` that is about these files, and what makes it."""
    by = Grading(grader="math", options={}, version=grading.VERSION)
    content = orjson.dumps([by.model_dump(), outputs.digest], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:12], by


def _with_responses(outputs: _Outputs) -> Iterator[Row]:
    for place, index, sample, row in _rows(outputs):
        if not isinstance(row.get("generation"), str) or row.get("expected_answer") is None:
            raise ResultsError(f"{place}: a row without generation or expected_answer")
        yield {**row, "problem_id": str(index), "sample": sample}


def _rows(outputs: _Outputs) -> Iterator[tuple[str, int, int, Row]]:
    """(``<file>:<line>`` for messages, problem, sample, row) of all files."""
    for sample, files in outputs.files:
        index = 0
        for file in files:
            for number, row in enumerate(_read(file), 1):
                yield f"{file}:{number}", index, sample, row
                index += 1


def _summarize_benchmark(folder: Path) -> Scorecard:
    outputs = _output_files(folder)
    tallies: list[Tally] = []
    problems: list[Any] = []
    judged = False
    for place, index, sample, row in _rows(outputs):
        if index == len(tallies):
            tallies.append(Tally(outputs.samples, {**row, "problem_id": str(index)}))
            problems.append(row.get("problem"))
        if row.get("problem") != problems[index]:
            raise ResultsError(f"{place}: not the problem that the other files of {folder} have in this line")
        _add(tallies[index], sample, row)
        judged = judged or "judgement" in row or "judge_correct" in row
    part, by = _grading(outputs)
    for row in read_rows(folder / GRADES, part):
        tallies[int(row["problem_id"])].add_grade(
            row["sample"], vote_of(row, by.grader), row["symbolic_correct"]
        )
    return score(
        tallies,
        benchmark=plain_name(folder.name),
        samples=outputs.samples,
        greedy=outputs.greedy,
        judged=judged,
        expected=len(tallies) * len(outputs.files),
    )


def _read(file: Path) -> Iterator[Row]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise ResultsError(f"{file}:{number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise ResultsError(f"{file}:{number}: not a row, but {type(row).__name__}")
            for field, kinds in _NUMBERS_DEPEND_ON.items():
                if row.get(field) is not None and type(row[field]) not in kinds:
                    expected = " or ".join(kind.__name__ for kind in kinds)
                    raise ResultsError(
                        f"{file}:{number}: {field} is {type(row[field]).__name__}, expected {expected}"
                    )
            yield row


def _add(tally: Tally, sample: int, row: Row) -> None:
    tally.add_generation({**row, "sample": sample})
    if "symbolic_correct" in row or "is_correct" in row:
        answer = row.get("predicted_answer")
        verdict = row["symbolic_correct"] if "symbolic_correct" in row else row["is_correct"]
        plain = {"predicted_answer": None if answer in (None, "") else str(answer)}
        tally.add_grade(sample, vote_of(plain, "math"), _verdict(verdict))
    if "judge_correct" in row:
        tally.add_judgement(sample, _verdict(row["judge_correct"]))
    elif "judgement" in row:
        tally.add_judgement(sample, parse_verdict(str(row["judgement"] or "")))


def _verdict(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None
