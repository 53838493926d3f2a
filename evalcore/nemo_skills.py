"""NeMo-Skills' result folders, read as they are: ``eval-results/<benchmark>/output-rs0.jsonl``.

>>> [summarize(folder).benchmark for folder in benchmark_folders(Path("openmath-eval/eval-results"))]
['aime24', 'gsm8k']

A line is one problem, and line i of every file is the same problem: ``output-greedy.jsonl`` (or
``output.jsonl``) holds greedy answers and ``output-rs<seed>.jsonl`` one sample each; a file that is still in
pieces is ``output-rs<seed>_chunk_<n>.jsonl``. Their files are never written. ``grade`` puts our verdicts into
``grades/`` beside them, keyed by line and sample, and ``summarize`` and ``evaluated`` take those, or theirs where not
every row has one of ours. Where numbers differ from NeMo-Skills' own: a judgement without a verdict is missing, not
wrong, and a vote groups answers by value, not by text.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError

from evalcore import grading
from evalcore.benchmarks import benchmark_names, load_benchmark
from evalcore.checkpoints import Checkpoint, path_component
from evalcore.counts import ProblemCounts, counts_of
from evalcore.errors import ResultsError
from evalcore.grade import GradeSummary, grade_rows
from evalcore.grading import Options
from evalcore.grading.pool import DEFAULT_TIMEOUT
from evalcore.judge import parse_verdict
from evalcore.manifest import GRADES, Grading
from evalcore.records import GREEDY, Row, read_keys, read_rows, write_file
from evalcore.summarize import Scorecard, score
from evalcore.tally import Tally, plain_name, vote_of

log = logging.getLogger(__name__)

_GRADING = "grading.json"
_OUTPUT = re.compile(r"output(?:-greedy|-rs(?P<seed>\d+))?(?:_chunk_(?P<chunk>\d+))?\.jsonl")
_NUMBERS_DEPEND_ON = {"num_generated_tokens": (int, float), "cluster": (str, int)}


def benchmark_folders(folder: Path) -> list[Path]:
    """The folders with NeMo-Skills' output files: this one, else those in it, else those in ``eval-results``."""
    for root in (folder, folder / "eval-results"):
        if _output_files(root).files:
            return [root]
        if found := [child for child in sorted(root.glob("*/")) if _output_files(child).files]:
            return found
    return []


def is_results(folder: Path) -> bool:
    """Whether a folder, one of its folders, or ``eval-results`` in it, holds NeMo-Skills' output files."""
    return bool(benchmark_folders(folder))


class _Outputs(NamedTuple):
    """The files of a benchmark: (sample, its pieces in order), greedy first, then by seed."""

    greedy: bool
    files: list[tuple[int, list[Path]]]

    @property
    def samples(self) -> int:
        return len(self.files) - self.greedy

    @property
    def digest(self) -> str:
        """Of names, sizes, times and inodes: other files have other grades."""
        found = [(f.name, f.stat()) for _, files in self.files for f in files]
        stats = [(name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in found]
        return hashlib.sha256(orjson.dumps(stats)).hexdigest()


def _required_outputs(folder: Path) -> _Outputs:
    outputs = _output_files(folder)
    if not outputs.files:
        raise ResultsError(f"{folder}: no output-greedy.jsonl or output-rs<N>.jsonl")
    return outputs


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
    folder: Path,
    *,
    grader: str | None = None,
    options: Options | None = None,
    workers: int | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> GradeSummary:
    """Grade the responses of a benchmark folder, into ``grades/``; what is graded so already is kept.

    grader, options: by default those of our benchmark of the folder's name, or ``math`` without options.

    Raises:
        ConfigError: no such grader or option.
        ResultsError: no output files, or a row that ``summarize`` would not take, or without a response or a
            reference.
    """
    outputs = _required_outputs(folder)
    by = grading_of(folder, grader, options)
    log.info("%s: graded by %s%s", folder, by.grader, f" with {by.options}" if by.options else "")
    total = sum(1 for _ in _with_responses(outputs))
    # What the next summary takes; the last to be asked for counts. Before any row, so that a summary can say
    # how to go on after a kill.
    write_file(folder / GRADES / _GRADING, by.model_dump_json())
    return grade_rows(
        _with_responses(outputs),
        total,
        folder,
        _part(outputs, by),
        by,
        name=_name(folder),
        workers=workers,
        timeout=timeout,
    )


def _name(folder: Path) -> str:
    """The benchmark's name; a link's own, and that of what ``.`` and ``..`` stand for."""
    return plain_name((folder.resolve() if folder.name in ("", "..") else folder).name)


def grading_of(folder: Path, grader: str | None, options: Options | None) -> Grading:
    """How a benchmark's folder is graded: as is asked for, as our benchmark of its name is, or by ``math``.

    Raises:
        ConfigError: no such grader or option.
    """
    name = _name(folder)
    if grader is None and name in benchmark_names():
        benchmark = load_benchmark(name)
        grader, defaults = benchmark.grader, benchmark.grader_options
    else:
        grader, defaults = grader or "math", {}
    # As text, as --option gives them: the command that finishes a grading then makes the same part.
    chosen = {option: str(value) for option, value in {**defaults, **(options or {})}.items()}
    grading.check_options(grader, chosen)
    return Grading(grader=grader, options=chosen, version=grading.VERSION)


def _part(outputs: _Outputs, by: Grading) -> str:
    """The part of ``grades/`` that is about these files and made by this grading."""
    content = orjson.dumps([by.model_dump(), outputs.digest], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:12]


def _our_grades(folder: Path, outputs: _Outputs, total: int) -> tuple[Grading, str] | None:
    """Our grading of a folder and its part, if it is of every row of these files; else None."""
    try:
        by = Grading.model_validate_json((folder / GRADES / _GRADING).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ResultsError(f"{folder / GRADES / _GRADING}: unreadable; delete it and grade again") from error
    part = _part(outputs, by)
    graded = len(read_keys(folder / GRADES, part)) if by.version == grading.VERSION else 0
    if graded < total:
        options = [word for option, value in by.options.items() for word in ("--option", f"{option}={value}")]
        finish = shlex.join(["evalcore", "grade", str(folder), "--grader", by.grader, *options])
        log.warning(
            "%s: the table is of NeMo-Skills' verdicts, since only %s of %s rows are graded as they are now, "
            "by this version; run `%s`",
            *(folder, f"{graded:,}", f"{total:,}", finish),
        )
        return None
    return by, part


def _with_responses(outputs: _Outputs) -> Iterator[Row]:
    for place, index, sample, row in _rows(outputs):
        if "generation" not in row or row.get("expected_answer") is None:
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


def summarize(folder: Path) -> Scorecard:
    """The scorecard of a benchmark folder.

    Raises:
        ResultsError: no output files, a line that is no row or has a field that cannot be used, or files
            that differ in their problems.
    """
    return _score(folder, _read_all(folder))


class Evaluated(NamedTuple):
    """A benchmark folder's numbers. alike: what two of them must share to be compared, as far as the files say it.

    The scorecard's checkpoint is known by the names of folders alone.
    """

    card: Scorecard
    counts: ProblemCounts
    alike: dict[str, Any]


def evaluated(folder: Path) -> Evaluated:
    """A benchmark folder's numbers, of each problem too; a problem is its line, the first is 0.

    Raises:
        ResultsError: as ``summarize``.
    """
    found = _read_all(folder)
    card = _score(folder, found).model_copy(update={"checkpoint": _checkpoint(folder)})
    counts = counts_of(found.tallies, card.samples, card.greedy, card.judged, scorecard=b"")
    alike = {
        "problems": {"number": len(found.tallies), "digest": found.problems},
        "grading": found.ours.model_dump() if found.ours else "NeMo-Skills'",
    }
    return Evaluated(card, counts, alike)


def _checkpoint(folder: Path) -> Checkpoint:
    above = folder.resolve().parent
    if above.name == "eval-results":
        above = above.parent
    name = path_component(above.name or "results", "checkpoint")
    run = path_component(above.parent.name or "results", "training run")
    return Checkpoint(path=None, run=run, name=name, step=None, digest="")


class _Found(NamedTuple):
    """All that a folder's files say. problems: digest of them and their answers. ours: our grading, if it counts."""

    outputs: _Outputs
    tallies: list[Tally]
    judged: bool
    problems: str
    ours: Grading | None


def _score(folder: Path, found: _Found) -> Scorecard:
    return score(
        found.tallies,
        benchmark=_name(folder),
        samples=found.outputs.samples,
        greedy=found.outputs.greedy,
        judged=found.judged,
        expected=len(found.tallies) * len(found.outputs.files),
    )


def _read_all(folder: Path) -> _Found:
    outputs = _required_outputs(folder)
    tallies: list[Tally] = []
    problems: list[Any] = []
    digest = hashlib.sha256()
    judged = False
    for place, index, sample, row in _rows(outputs):
        if index == len(tallies):
            tallies.append(Tally(outputs.samples, {**row, "problem_id": str(index)}))
            problems.append(row.get("problem"))
            digest.update(orjson.dumps([row.get("problem"), row.get("expected_answer")]) + b"\n")
        if row.get("problem") != problems[index]:
            raise ResultsError(f"{place}: not the problem that the other files of {folder} have in this line")
        _add(tallies[index], sample, row)
        judged = judged or "judgement" in row or "judge_correct" in row
    by = None
    if ours := _our_grades(folder, outputs, sum(tally.generated for tally in tallies)):
        by, part = ours
        for row in read_rows(folder / GRADES, part):
            tallies[int(row["problem_id"])].add_grade(
                row["sample"], vote_of(row, by.grader), row["symbolic_correct"]
            )
    return _Found(outputs, tallies, judged, digest.hexdigest(), by)


def _read(file: Path) -> Iterator[Row]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                if not line.endswith(b"\n"):
                    log.warning("%s:%d: the last line is torn; it counts as not there yet", file, number)
                    return
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
        is_read = "predicted_answer" in row
        tally.add_grade(sample, vote_of(plain, "math"), _verdict(verdict), is_read=is_read)
    if "judge_correct" in row:
        tally.add_judgement(sample, _verdict(row["judge_correct"]))
    elif "judgement" in row:
        tally.add_judgement(sample, parse_verdict(str(row["judgement"] or "")))


def _verdict(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None
