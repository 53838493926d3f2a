r"""explain: why did this answer get this verdict? Everything between a response and its grade, for one problem.

>>> print(explain(Path("results/tiny/step-1800/tiny-arithmetic"), "tiny-arithmetic-7", sample=3))
problem    Sam has 35 pens. Sam finds 47 more. How many pens does Sam have now?
sample     3; seed 5; 19 tokens; finished: stop
response   35 + 47 = 82. The answer is \boxed{82}.
extracted  82 (boxed)
           read as 82
expected   82
           read as 82
verdict    equal, decided by: text
…
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from evalcore import grading, nemo_skills
from evalcore.benchmarks import read_jsonl
from evalcore.errors import ResultsError
from evalcore.grading import Options
from evalcore.grading.math import reading
from evalcore.grading.pool import Pool
from evalcore.judge import parse_verdict
from evalcore.manifest import GENERATIONS, GRADES, JUDGEMENTS, Manifest
from evalcore.records import GREEDY, Row, read_rows

_TAIL = 600
"""Characters of a response that are shown, its last: that is where answers are."""

_VERDICTS = {True: "equal", False: "not equal", None: "undecided"}
_JUDGED = {True: "yes", False: "no", None: "unparsable"}


class _Graded(NamedTuple):
    """One answer of a model, and what was recorded of it, where it was."""

    generation: Row
    grade: Row | None
    judgement: Row | None


def explain(
    place: Path,
    problem_id: str,
    *,
    sample: int | None = None,
    grader: str | None = None,
    options: Options | None = None,
) -> str:
    """What became of one answer, step by step, graded anew beside what is recorded.

    Args:
        place: a benchmark folder, or a JSONL file with ``generation`` and ``expected_answer``, such as
            NeMo-Skills' ``output-rs0.jsonl``, where a problem without an id is known by its line number.
        sample: GREEDY or an index; None: the greedy answer, else the first there is.
        grader, options: for a file, by default as ``nemo_skills.grade`` has them for its folder; a folder's
            manifest names its own.

    Raises:
        ResultsError: there is no such problem or sample; lists some that there are.
    """
    if place.is_dir():
        if nemo_skills.is_results(place):
            raise ResultsError(
                f"{place}: results of NeMo-Skills; name one of their files, as in output-rs0.jsonl"
            )
        manifest = Manifest.load(place)
        grader, options = manifest.grading.grader, manifest.grading.options
        found = _of_folder(place, manifest, problem_id)
    else:
        by = nemo_skills.grading_of(place.absolute().parent, grader, options)
        grader, options = by.grader, by.options
        found = _of_file(place, problem_id)
    samples = sorted(found)
    chosen = samples[0] if sample is None else sample
    if chosen not in found:
        raise ResultsError(
            f"{place}: no sample {chosen} of {problem_id}; there are {', '.join(map(str, samples))}"
        )
    lines = list(_lines(found[chosen], chosen, grader, options))
    if len(found) > 1:
        lines += _others(found)
    return "\n".join(f"{name:<10} {text}" for name, text in lines)


def _lines(graded: _Graded, sample: int, grader: str, options: Options) -> Iterator[tuple[str, str]]:
    row = graded.generation
    expected = str(row["expected_answer"])
    yield "problem", _shown(str(row.get("problem", "")))
    details = [
        "greedy" if sample == GREEDY else str(sample),
        *([f"seed {row['seed']}"] if row.get("seed") is not None else []),
        *([f"{row['num_generated_tokens']} tokens"] if row.get("num_generated_tokens") is not None else []),
        *([f"finished: {row['finish_reason']}"] if row.get("finish_reason") else []),
    ]
    yield "sample", "; ".join(details)
    if row.get("error"):
        yield "response", f"none: {row['error']}"
    text = str(row.get("generation") or "")
    yield "response", _shown(text)
    tools = grading.check_options(grader, options)
    answer, reason = tools.extract(text, options)
    if answer is None:
        yield "extracted", f"nothing: {reason}"
        yield "expected", _shown(expected)
        yield "verdict", f"not equal: {reason}"
    else:
        for name, value, how in (("extracted", answer, f" ({reason})"), ("expected", expected, "")):
            yield name, _shown(value) + how
            if grader == "math":
                yield "", f"read as {reading(value)}"
        equality = tools.quick(answer, expected, options)
        if equality is None:
            with Pool(grader, options, workers=1) as pool:
                timed = pool.compare([(answer, expected)])[0]
            equality = grading.Equality(timed.equal, timed.reason)
        yield "verdict", f"{_VERDICTS[equality.equal]}, decided by: {equality.reason}"
    if graded.grade:
        recorded = graded.grade.get("symbolic_correct", graded.grade.get("is_correct"))
        yield (
            "recorded",
            f"{_VERDICTS.get(recorded, recorded)}, decided by: {graded.grade.get('reason', '?')}",
        )
    if graded.judgement:
        words = str(graded.judgement.get("judgement", ""))
        verdict = graded.judgement.get("judge_correct", parse_verdict(words))
        yield "judge", f"{_JUDGED.get(verdict, verdict)}: {_shown(words)}"


def _others(found: dict[int, _Graded]) -> list[tuple[str, str]]:
    """The answers of all samples, the most frequent first."""
    answers: Counter[tuple[Any, Any]] = Counter()
    for graded in found.values():
        if graded.grade:
            answers[(graded.grade.get("predicted_answer"), graded.grade.get("symbolic_correct"))] += 1
    lines = [("", f"{len(found)} samples are there: {', '.join(map(str, sorted(found)))}")]
    for (answer, correct), count in answers.most_common(10):
        shown = "no answer" if answer is None else _shown(str(answer))
        lines.append(("", f"{count:>5} x  {shown}  ({_VERDICTS.get(correct, 'not graded')})"))
    return lines


def _of_folder(folder: Path, manifest: Manifest, problem_id: str) -> dict[int, _Graded]:
    def rows(kind: str, part: str | None) -> dict[int, Row]:
        if part is None:
            return {}
        return {
            row["sample"]: row for row in read_rows(folder / kind, part) if row["problem_id"] == problem_id
        }

    generations = rows(GENERATIONS, manifest.generation_id)
    if not generations:
        known = dict.fromkeys(
            row["problem_id"] for row in read_rows(folder / GENERATIONS, manifest.generation_id)
        )
        raise ResultsError(_unknown(folder, problem_id, list(known)))
    grades = rows(GRADES, manifest.grading_id)
    judgements = rows(JUDGEMENTS, manifest.judging_id)
    return {s: _Graded(row, grades.get(s), judgements.get(s)) for s, row in generations.items()}


def _of_file(file: Path, problem_id: str) -> dict[int, _Graded]:
    found: dict[int, _Graded] = {}
    known = []
    for number, (place, row) in enumerate(read_jsonl(file), 1):
        identity = str(row.get("problem_id", row.get("id", number)))
        if identity != problem_id:
            known.append(identity)
            continue
        if not {"generation", "expected_answer"} <= row.keys():
            raise ResultsError(f"{place}: not a row with generation and expected_answer")
        sample = row.get("sample", len(found))
        graded = row if "symbolic_correct" in row or "is_correct" in row else None
        found[sample] = _Graded(row, graded, row if "judgement" in row else None)
    if not found:
        raise ResultsError(_unknown(file, problem_id, list(dict.fromkeys(known))))
    return found


def _unknown(place: Path, problem_id: str, known: list[str]) -> str:
    some = ", ".join(known[:5]) + (", …" if len(known) > 5 else "")
    return f"{place}: no problem {problem_id!r}; there are {len(known)}: {some}"


def _shown(text: str) -> str:
    """A text's last lines, indented under the first; control characters escaped, since models may write any."""
    tail = text.strip()
    if len(tail) > _TAIL:
        tail = "… " + tail[-_TAIL:]
    lines = tail.splitlines() or [""]
    return ("\n" + " " * 11).join(
        "".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in lines
    )
