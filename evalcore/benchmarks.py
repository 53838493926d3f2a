r"""Benchmarks: what is asked, where it comes from, and how the answers are graded.

>>> benchmark = load_benchmark("tiny-arithmetic")
>>> prepare(benchmark).problems[0].fields["problem"]
'Sam has 35 pens. Sam finds 47 more. How many pens does Sam have now?'

One YAML per benchmark in ``include/benchmarks``::

    name: gsm8k
    source: {hub: openai/gsm8k, config: main}     # or {path: problems.jsonl}, beside this file
    split: test
    fields:                                       # ours: theirs
      problem: question
      expected_answer: {column: answer, after: "####", remove: ","}
    prompt: generic/math
    grader: math

``evalcore.prepare`` fetches the problems, checks them and keeps them under our names; this module
reads what it keeps.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BeforeValidator, Field, model_validator

from evalcore import include
from evalcore.config import BenchmarkRun, EvalConfig, Inference
from evalcore.errors import BenchmarkError, ConfigError
from evalcore.records import GREEDY
from evalcore.settings import Settings, validated

SUBSET = "subset_for_metrics"
"""The field that carries a problem's subset, as NeMo-Skills calls it."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Column(Settings):
    """A field made from a column of the source; the steps are taken in this order.

    join: a list becomes text with this between its items. after: only what follows the last such mark.
    remove: these characters are taken out. White space around the result is stripped.
    """

    column: str
    join: str | None = None
    after: str | None = None
    remove: str = ""


def _column(value: object) -> object:
    return {"column": value} if isinstance(value, str) else value


Fields = dict[str, Annotated[Column, BeforeValidator(_column)]]


class Source(Settings):
    """Where problems come from: a JSONL file beside the YAML, or a dataset of the Hugging Face hub.

    config, revision, split: the dataset's own; split defaults to the benchmark's.
    label: the subset these problems form. fields: overrides of the benchmark's for this source.
    where: only rows whose columns have these values; an empty string also stands for none.
    skip_unanswered: leave rows without an answer out; they are an error otherwise.
    """

    path: str | None = None
    hub: str | None = None
    config: str | None = None
    revision: str | None = None
    split: str | None = None
    label: str | None = None
    fields: Fields = {}
    where: dict[str, str | int | float | bool] = {}
    skip_unanswered: bool = False

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give either path or hub")
        if self.path and (self.config or self.revision or self.split):
            raise ValueError("config, revision and split belong to hub")
        return self


def _sources(value: object) -> object:
    return [value] if isinstance(value, dict) else value


Metric = Literal["pass", "majority"]


class Benchmark(Settings):
    """One benchmark, as its YAML says.

    fields: our names to the source's columns; a field left out is the column of the same name.
    subset_field: the field whose values form subsets, each with its own table; every row must have it, and
    null is no subset. samples: how many answers of each problem, beside the greedy one, unless the user says.
    generation: its defaults for sampling. metrics: the modes its table has: ``pass`` is pass@k, ``majority``
    majority@k. judge: whether its answers need a judge model, so that a table without one says so.

    Problems that share a source, such as questions about one text, are no independent evidence: a field
    ``cluster`` that names the source makes the error bars clustered.
    """

    name: str
    description: str = ""
    source: Annotated[tuple[Source, ...], BeforeValidator(_sources), Field(min_length=1)]
    split: str = "test"
    fields: Fields = {}
    prompt: str = "generic/math"
    grader: Literal["math", "multiple_choice", "exact"] = "math"
    grader_options: dict[str, Any] = {}
    metrics: tuple[Metric, ...] = ("majority", "pass")
    subset_field: str | None = None
    samples: int = Field(0, ge=0)
    generation: Inference = Inference()
    judge: bool = False

    @model_validator(mode="after")
    def _names_are_safe(self) -> Self:
        # Both become file names.
        for value in (self.name, self.split):
            if not NAME.fullmatch(value):
                raise ValueError(f"{value!r} must be letters, digits, '.', '_' and '-'")
        return self


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. fields: everything a prompt or a grader may want, ``problem`` and ``expected_answer`` first."""

    id: str
    fields: dict[str, Any]

    @property
    def expected_answer(self) -> str:
        return str(self.fields["expected_answer"])

    @property
    def subset(self) -> str | None:
        """The subset it counts to, or None."""
        return self.fields.get(SUBSET)


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """The problems that are asked, in order. digest: SHA-256 over their canonical JSON, 64 hex digits."""

    benchmark: str
    split: str
    problems: tuple[Problem, ...]
    digest: str

    @classmethod
    def of(cls, benchmark: str, split: str, problems: Iterable[Problem]) -> ProblemSet:
        problems = tuple(problems)
        total = hashlib.sha256()
        for problem in problems:
            total.update(
                orjson.dumps(row_of(problem), option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
            )
        return cls(benchmark, split, problems, total.hexdigest())

    def first(self, limit: int | None) -> ProblemSet:
        """The first ``limit`` problems, with a digest of their own; all of them if None."""
        if limit is None or limit >= len(self):
            return self
        return ProblemSet.of(self.benchmark, self.split, self.problems[:limit])

    def __len__(self) -> int:
        return len(self.problems)


def wanted_samples(config: EvalConfig, run: BenchmarkRun, benchmark: Benchmark) -> range:
    """The sample indices that a run of a benchmark asks for, GREEDY among them unless skipped.

    Raises:
        ConfigError: there are none.
    """
    samples = benchmark.samples if run.samples is None else run.samples
    wanted = range(0 if config.skip_greedy else GREEDY, samples)
    if not wanted:
        raise ConfigError(f"{benchmark.name}: 0 samples and no greedy answer (skip_greedy): nothing to ask")
    return wanted


def benchmark_names() -> list[str]:
    """The names of all benchmarks there are, sorted."""
    return include.names("benchmarks")


def load_benchmark(name: str) -> Benchmark:
    """Load a benchmark by name, or by a path that ends in ``.yaml``.

    A source's ``path`` comes back absolute.

    Raises:
        ConfigError: there is none of that name (the valid ones are listed), or its YAML has an unknown key or
            a value out of range.
    """
    file, content = include.load("benchmarks", name)
    where = f"benchmark {name}"
    benchmark = validated(Benchmark, content, where)
    if benchmark.name != file.stem:
        raise ConfigError(f"{where}: {file} names itself {benchmark.name!r}; name and file name must agree")
    located = [
        source.model_copy(update={"path": str(file.parent / source.path)}) if source.path else source
        for source in benchmark.source
    ]
    return benchmark.model_copy(update={"source": tuple(located)})


def read_jsonl(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """``(place, row)`` of each line that is not blank; place is ``<file>:<line>`` for messages.

    Raises:
        BenchmarkError: the file or a line of it cannot be read.
    """
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                try:
                    row = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    raise BenchmarkError(f"{file}:{number}: unreadable line ({error})") from error
                if not isinstance(row, dict):
                    raise BenchmarkError(f"{file}:{number}: not a JSON object")
                yield f"{file}:{number}", row
    except OSError as error:
        raise BenchmarkError(f"cannot read {file}: {error.strerror}") from error


def problems_of(rows: Iterable[tuple[str, Mapping[str, Any]]], what: str) -> tuple[Problem, ...]:
    """Check rows that carry our names, and make problems of them.

    Raises:
        BenchmarkError: no rows, or a row with a missing or empty id, problem or expected_answer, or an
            id that was there before; names the place and the id.
    """
    problems = []
    places: dict[str, str] = {}
    for place, row in rows:
        identity = str(row.get("id", ""))
        if not identity:
            raise BenchmarkError(f"{place}: a row without id")
        if identity in places:
            raise BenchmarkError(f"{place}: id {identity!r} is there twice, first at {places[identity]}")
        places[identity] = place
        for field in ("problem", "expected_answer"):
            value = row.get(field)
            # Text and plain numbers; a list or an object here is a column that nobody mapped.
            plain = isinstance(value, str | int | float) and not isinstance(value, bool) and value == value
            if not plain or not str(value).strip():
                raise BenchmarkError(f"{place}: id {identity!r} has no usable {field} (got {_short(value)})")
        fields = {key: value for key, value in row.items() if key != "id"}
        fields |= {"problem": str(row["problem"]), "expected_answer": str(row["expected_answer"])}
        problems.append(Problem(identity, fields))
    if not problems:
        raise BenchmarkError(f"{what}: no problems")
    return tuple(problems)


def row_of(problem: Problem) -> dict[str, Any]:
    """A problem as the row it is kept as."""
    return {"id": problem.id, **problem.fields}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
