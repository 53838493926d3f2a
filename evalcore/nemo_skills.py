"""Scorecards of NeMo-Skills' result folders, as they are: ``eval-results/<benchmark>/output-rs0.jsonl``.

>>> [card.benchmark for card in summarize(Path("openmath-eval/eval-results"))]
['aime24', 'gsm8k']

A line is one problem, and line i of every file is the same problem: ``output-greedy.jsonl`` (or
``output.jsonl``) holds greedy answers and ``output-rs<seed>.jsonl`` one sample each. Nothing is written.
Where numbers differ from NeMo-Skills' own: a judgement without a verdict is missing, not wrong, and a
vote groups answers by value, not by text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from evalcore.errors import ResultsError
from evalcore.judge import parse_verdict
from evalcore.records import GREEDY
from evalcore.summarize import Scorecard, score
from evalcore.tally import Tally, merge_equal_answers, plain_name

_SAMPLES = re.compile(r"output-rs(\d+)\.jsonl")
_GREEDY = ("output-greedy.jsonl", "output.jsonl")
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
        if any(_output_files(root)):
            return [root]
        if found := [child for child in sorted(root.glob("*/")) if any(_output_files(child))]:
            return found
    return []


def _output_files(folder: Path) -> tuple[Path | None, list[Path]]:
    """The greedy file, if there is one, and the sample files in the order of their seeds."""
    greedy = next((folder / name for name in _GREEDY if (folder / name).is_file()), None)
    seeds = {file: _SAMPLES.fullmatch(file.name) for file in folder.glob("output-rs*.jsonl")}
    found = {int(match[1]): file for file, match in seeds.items() if match}
    return greedy, [found[seed] for seed in sorted(found)]


def _summarize_benchmark(folder: Path) -> Scorecard:
    greedy, samples = _output_files(folder)
    tallies: list[Tally] = []
    problems: list[Any] = []
    judged = False
    for sample, file in [*([(GREEDY, greedy)] if greedy else []), *enumerate(samples)]:
        for index, row in enumerate(_read(file)):
            if index == len(tallies):
                tallies.append(Tally(len(samples), {**row, "problem_id": str(index)}))
                problems.append(row.get("problem"))
            if row.get("problem") != problems[index]:
                raise ResultsError(
                    f"{file}:{index + 1}: not the problem that the other files of {folder} have in this line"
                )
            _add(tallies[index], sample, row)
            judged = judged or "judgement" in row or "judge_correct" in row
    merge_equal_answers(tallies, "math")
    return score(
        tallies,
        benchmark=plain_name(folder.name),
        samples=len(samples),
        greedy=greedy is not None,
        judged=judged,
        expected=len(tallies) * (len(samples) + (greedy is not None)),
    )


def _read(file: Path) -> Iterator[dict[str, Any]]:
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


def _add(tally: Tally, sample: int, row: dict[str, Any]) -> None:
    tally.add_generation({**row, "sample": sample})
    if "symbolic_correct" in row or "is_correct" in row:
        answer = row.get("predicted_answer")
        verdict = row["symbolic_correct"] if "symbolic_correct" in row else row["is_correct"]
        tally.add_grade(sample, None if answer in (None, "") else str(answer), _verdict(verdict))
    if "judge_correct" in row:
        tally.add_judgement(sample, _verdict(row["judge_correct"]))
    elif "judgement" in row:
        tally.add_judgement(sample, parse_verdict(str(row["judgement"] or "")))


def _verdict(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None
