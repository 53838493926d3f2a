"""prepare: fetch a benchmark's problems, check them, and keep them under our names.

    evalcore prepare gsm8k                            from the Hugging Face hub (the extra ``hub``)
    evalcore prepare gsm8k --source gsm8k_test.jsonl  from a file, where the hub is out of reach

leaves ``gsm8k/test.jsonl`` and, beside it, ``test.json`` with their digest, count and origin, in
``EVALCORE_DATA`` or ``~/.cache/evalcore/benchmarks``. Done again it changes nothing, unless a local
source or the benchmark's own YAML changed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from evalcore import hub
from evalcore.benchmarks import (
    NAME,
    SUBSET,
    Benchmark,
    Column,
    ProblemSet,
    Source,
    load_benchmark,
    problems_of,
    read_jsonl,
    row_of,
)
from evalcore.errors import BenchmarkError, ResultsError
from evalcore.records import write_file

log = logging.getLogger(__name__)

_Placed = Iterator[tuple[str, dict[str, Any]]]


class Origin(BaseModel):
    """Where problems came from: a file with its SHA-256, or a hub dataset with the commit it had."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str | None = None
    sha256: str | None = None
    hub: str | None = None
    config: str | None = None
    split: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return self.path or f"{self.hub}@{self.revision}"


class Prepared(BaseModel):
    """The contents of ``<split>.json``. recipe: hash of the YAML's part that shapes the problems.

    given: whether ``--source`` named the file; it is then not looked at again, and may be gone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str
    split: str
    digest: str
    count: int
    recipe: str
    given: bool
    origins: tuple[Origin, ...]


def data_folder() -> Path:
    """Where prepared benchmarks are kept.

    Raises:
        BenchmarkError: ``EVALCORE_DATA`` is below the home of a user who does not exist.
    """
    folder = os.environ.get("EVALCORE_DATA")
    return _expanded(Path(folder)) if folder else Path.home() / ".cache" / "evalcore" / "benchmarks"


def prepare(
    benchmark: Benchmark | str, *, split: str | None = None, source: Path | None = None, force: bool = False
) -> ProblemSet:
    """Make sure the problems of one split are there and as their origin has them; return them.

    source: a JSONL file to take instead of the benchmark's own source. Its rows carry the columns of the
    original dataset, or ``problem`` and ``expected_answer`` already, as NeMo-Skills' files do.
    force: fetch again in any case; without source, from the benchmark's own.

    Raises:
        BenchmarkError: the origin cannot be read or reached, or a row is unusable (names file, line, id).
    """
    if isinstance(benchmark, str):
        benchmark = load_benchmark(benchmark)
    split = split or benchmark.split
    source = source and _expanded(source)
    if not NAME.fullmatch(split):
        raise BenchmarkError(f"benchmark {benchmark.name}: {split!r} cannot be the name of a split")
    rows_file = data_folder() / benchmark.name / f"{split}.jsonl"
    prepared = _read_prepared(rows_file.with_suffix(".json"))
    what = f"{benchmark.name}/{split}"
    if prepared and not force:
        stale = _why_stale(prepared, benchmark, split, source)
        problem_set = None if stale else _read_problems(rows_file, benchmark.name, split)
        if problem_set and problem_set.digest == prepared.digest:
            if prepared.recipe != _recipe(benchmark):
                log.warning("%s: prepared from %s before its YAML changed", what, prepared.origins[0])
            return problem_set
        stale = stale or f"{rows_file} is not what was written there"
        if prepared.given and source is None:
            raise BenchmarkError(
                f"benchmark {what}: {stale}; run `evalcore prepare {benchmark.name} --source "
                f"{prepared.origins[0]}` again"
            )
        log.info("%s: %s, preparing it again", what, stale)

    sources = _sources(benchmark, split, source)
    rows: list[tuple[str, dict[str, Any]]] = []
    origins = []
    counts: Counter[str] = Counter()
    for part in sources:
        origin, found = _fetch(part, benchmark, split)
        origins.append(origin)
        rows.extend(_in_our_names(found, part, benchmark, counts))
    problems = problems_of(rows, f"benchmark {what}, from {', '.join(map(str, origins))}")
    try:
        problem_set = ProblemSet.of(benchmark.name, split, problems)
    except TypeError as error:
        raise BenchmarkError(f"benchmark {what}: a field is not text or a plain value ({error})") from error
    content = Prepared(
        benchmark=benchmark.name,
        split=split,
        digest=problem_set.digest,
        count=len(problem_set),
        recipe=_recipe(benchmark),
        given=source is not None,
        origins=tuple(origins),
    )
    try:
        # The description goes last: without it, or with another digest, the rows do not count.
        write_file(rows_file, b"".join(_line(row_of(problem)) for problem in problems))
        write_file(rows_file.with_suffix(".json"), content.model_dump_json(indent=2) + "\n")
    except ResultsError as error:
        raise BenchmarkError(f"{error}; EVALCORE_DATA names another folder for benchmarks") from error
    log.info("%s: %d problems from %s", what, len(problem_set), ", ".join(map(str, origins)))
    return problem_set


def _sources(benchmark: Benchmark, split: str, given: Path | None) -> tuple[Source, ...]:
    if given is not None:
        if len(benchmark.source) > 1:
            return (Source(path=str(given)),)
        own = benchmark.source[0].model_dump(include={"fields", "where", "skip_unanswered"})
        return (Source(path=str(given), **own),)
    for source in benchmark.source:
        if split != benchmark.split and (source.path or source.split):
            raise BenchmarkError(
                f"benchmark {benchmark.name}: no split {split!r}; valid: {benchmark.split} "
                f"(or give the rows: evalcore prepare {benchmark.name} --split {split} --source FILE)"
            )
    return benchmark.source


def _fetch(source: Source, benchmark: Benchmark, split: str) -> tuple[Origin, _Placed]:
    """The rows of one source as they are, each with its place for messages."""
    if source.path:
        file = Path(source.path).absolute()
        return Origin(path=str(file), sha256=_sha256(file)), read_jsonl(file)
    needed = {column.column for column in _columns(source, benchmark).values()} | set(source.where)
    found = hub.fetch(source, split, needed, benchmark.name)
    origin = Origin(
        hub=source.hub, config=source.config, split=source.split or split, revision=found.revision
    )
    return origin, ((f"{source.hub}, row {index}", row) for index, row in enumerate(found.rows))


def _columns(source: Source, benchmark: Benchmark) -> dict[str, Column]:
    own = {field: Column(column=field) for field in ("problem", "expected_answer")}
    return {**own, **benchmark.fields, **source.fields}


def _in_our_names(rows: _Placed, source: Source, benchmark: Benchmark, counts: Counter[str]) -> _Placed:
    """Rows as problems are kept. Those without an id get ``<prefix>-<n>``; counts is the next n by prefix."""
    columns = _columns(source, benchmark)
    prefix = source.label or benchmark.name
    skipped = 0
    for place, row in rows:
        generated = f"{prefix}-{counts[prefix]}"
        counts[prefix] += 1  # also for a row left out, so that ids do not depend on the filter
        if source.path and "problem" in row and "expected_answer" in row:
            ours = dict(row)  # in our names already
        elif _selected(row, source.where, place):
            ours = {field: _value(row, column, place) for field, column in columns.items()}
        else:
            continue
        if source.skip_unanswered and ours["expected_answer"] in (None, ""):
            skipped += 1
            continue
        if ours.get("id") in (None, ""):
            ours["id"] = generated
        subset = source.label
        if subset is None and benchmark.subset_field:
            if benchmark.subset_field not in ours:
                raise BenchmarkError(
                    f"{place}: no {benchmark.subset_field!r}, which benchmark {benchmark.name} names as its "
                    f"subset_field; there are: {', '.join(map(str, ours))}; `fields:` takes over other columns"
                )
            subset = ours[benchmark.subset_field]
        ours.pop(SUBSET, None)
        if subset is not None:
            ours[SUBSET] = str(subset)
        yield place, ours
    if skipped:
        log.info("%s: %d rows without an answer left out", benchmark.name, skipped)


def _selected(row: Mapping[str, Any], where: Mapping[str, Any], place: str) -> bool:
    return all(
        ("" if (value := _cell(row, column, place)) is None else value) == wanted
        for column, wanted in where.items()
    )


def _cell(row: Mapping[str, Any], column: str, place: str) -> Any:
    if column not in row:
        raise BenchmarkError(f"{place}: no column {column!r}; there are: {', '.join(map(str, row))}")
    return row[column]


def _value(row: Mapping[str, Any], column: Column, place: str) -> Any:
    value = _cell(row, column.column, place)
    if column.join is not None and isinstance(value, list):
        value = column.join.join(map(str, value))
    if not isinstance(value, str):
        return value
    if column.after is not None:
        _, mark, value = value.rpartition(column.after)
        if not mark:
            raise BenchmarkError(f"{place}: no {column.after!r} in column {column.column!r}")
    if column.remove:
        value = re.sub(f"[{re.escape(column.remove)}]", "", value)
    return value.strip()


def _why_stale(prepared: Prepared, benchmark: Benchmark, split: str, source: Path | None) -> str | None:
    """Why what is prepared is not what is asked for, or None."""
    if source is not None:
        if [_sha256(source)] != [origin.sha256 for origin in prepared.origins]:
            return f"it came from {prepared.origins[0]}, not from what {source} holds now"
        return None if prepared.recipe == _recipe(benchmark) else "its YAML changed"
    if prepared.given:
        return None
    if prepared.recipe != _recipe(benchmark):
        return "its YAML changed"
    for part, origin in zip(_sources(benchmark, split, None), prepared.origins, strict=True):
        if part.path and _sha256(Path(part.path)) != origin.sha256:
            return f"{part.path} changed"
    return None


def _recipe(benchmark: Benchmark) -> str:
    shaping = benchmark.model_dump(include={"name", "source", "fields", "subset_field"})
    for source in shaping["source"]:
        # The same benchmark in another place is the same.
        source["path"] = source["path"] and Path(source["path"]).name
    return hashlib.sha256(orjson.dumps(shaping, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _read_prepared(file: Path) -> Prepared | None:
    try:
        return Prepared.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        log.warning("%s is unreadable, preparing the benchmark again", file)
        return None


def _read_problems(file: Path, benchmark: str, split: str) -> ProblemSet | None:
    try:
        return ProblemSet.of(benchmark, split, problems_of(read_jsonl(file), str(file)))
    except BenchmarkError as error:
        log.warning("%s", error)
        return None


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise BenchmarkError(f"path {path}: there is no such user's home; write the whole path") from error


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BenchmarkError(f"cannot read {file}: {error.strerror}") from error


def _line(row: Mapping[str, Any]) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
