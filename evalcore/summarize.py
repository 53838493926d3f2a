"""Turn the rows of a benchmark folder into its numbers: ``scorecard.json``, and ``counts.json`` by problem.

>>> card = summarize(Path("results/tiny/step-001800/tiny-arithmetic"))
>>> card.subsets[0].name, card.subsets[0].modes[0].evaluation_mode
('tiny-arithmetic-all', 'greedy')

A row is missing until it is there: an answer that was not graded, or that a grader could not decide, is
left out of its problem's n and c and counted in ``Counts``. So problems may differ in n; each enters
with its own, and a problem with n < k has no pass@k and is left out of that mean (``Estimate.entries``
says how many problems were averaged).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from evalcore.checkpoints import Checkpoint
from evalcore.counts import counts_of
from evalcore.errors import ResultsError
from evalcore.manifest import GENERATIONS, GRADES, JUDGEMENTS, MANIFEST, SCORECARD, Manifest
from evalcore.metrics import Estimate, mean, no_answer_at_k, pass_at_k
from evalcore.records import GREEDY, Row, read_rows, write_file
from evalcore.tally import COLUMNS, Tally, sample_spread, vote_of

_EXACT_MAJORITY = 16
"""Most samples for which majority@k is given for k < n: the exact expectation takes 0.1 s a problem at 256."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Mode(_Record):
    """One line of the table. None: unknown, since nothing was graded (or judged, for the judge's columns).

    k: samples a number is about (1 for greedy and pass@1[N]); num_entries: problems with any answer to
    this mode's questions; avg_tokens: of one sample.
    """

    evaluation_mode: str
    k: int
    num_entries: int
    symbolic_correct: Estimate | None
    judge_correct: Estimate | None
    both_correct: Estimate | None
    any_correct: Estimate | None
    no_answer: Estimate | None
    avg_tokens: Estimate | None


class Counts(_Record):
    """What the numbers do not show, in samples.

    expected: None where it is unknown. failed: requests that never got an answer (they count as wrong).
    truncated: cut off at the token limit. ungraded, unjudged: no row yet. undecided, unparsable: the
    grader, or the judge's answer, gave no verdict.
    """

    expected: int | None
    generated: int
    failed: int
    truncated: int
    ungraded: int
    undecided: int
    unjudged: int
    unparsable: int


class Subset(_Record):
    """A table: the whole benchmark, or the problems of one ``subset_for_metrics``.

    sample_spread: standard deviation, between the samples, of one sample's share of correct answers over all
    problems: how much a single run of the benchmark would differ from another. None: fewer than two samples.
    """

    name: str
    counts: Counts
    modes: tuple[Mode, ...]
    sample_spread: float | None


class Scorecard(_Record):
    """The contents of ``scorecard.json``. subsets: the whole benchmark first.

    checkpoint, settings and fingerprint None: results that were not made here (``nemo_skills``).
    needs_judge: without a judge its numbers are too low. complete: every sample that was asked for is there,
    graded, and judged if the benchmark is.
    """

    benchmark: str
    checkpoint: Checkpoint | None
    settings: str | None
    fingerprint: str | None
    samples: int
    greedy: bool
    judged: bool
    needs_judge: bool
    complete: bool
    subsets: tuple[Subset, ...]

    @classmethod
    def load(cls, folder: Path, settings: str | None = None) -> Scorecard:
        """Read a folder's scorecard.

        Raises:
            ResultsError: it is missing, unreadable, or not of ``settings``; where these are not given, not of
                the manifest's.
        """
        file = folder / SCORECARD
        try:
            card = cls.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            raise ResultsError(f"{folder}: no {SCORECARD}; run `evalcore summarize {folder}` first") from None
        except (OSError, ValidationError) as error:
            raise ResultsError(f"{file}: unreadable ({str(error).splitlines()[0]})") from error
        if settings is not None:
            if card.settings != settings:
                raise ResultsError(
                    f"{file}: written by another evaluation, with settings {card.settings} (wanted: {settings}); "
                    "when that one is done, run this one again from generate on"
                )
            return card
        manifest = Manifest.load(folder)
        weights = card.checkpoint.digest if card.checkpoint else None
        if (weights, card.fingerprint) != (manifest.checkpoint.digest, manifest.fingerprint):
            # Left by an evaluation before the one that the manifest describes, whose own is not there yet.
            raise ResultsError(
                f"{file}: made under other settings than {MANIFEST}; run `evalcore summarize {folder}`"
            )
        return card


def summarize(folder: Path, *, settings: str | None = None) -> Scorecard:
    """Read a benchmark folder, write its scorecard and its problems' counts, each whole or not at all.

    Returns the scorecard.

    settings: id of the evaluation that the folder must be of (``manifest.settings_id``); None: any.

    Raises:
        ResultsError: no manifest, other settings, no generations or no grades; names the stage to run.
    """
    manifest = Manifest.load(folder, settings)
    tallies = _read(folder, manifest)
    if not tallies:
        raise ResultsError(f"{folder}: no generations under its manifest's settings; run `evalcore generate`")
    if not any(tally.graded for tally in tallies):
        raise ResultsError(f"{folder}: no grades yet; run `evalcore grade {folder}`")
    expected = manifest.benchmark.num_problems * (manifest.samples + manifest.greedy)
    card = score(
        tallies,
        benchmark=manifest.benchmark.name,
        samples=manifest.samples,
        greedy=manifest.greedy,
        judged=manifest.judging is not None,
        needs_judge=manifest.benchmark.needs_judge,
        metrics=manifest.benchmark.metrics,
        expected=expected,
        checkpoint=manifest.checkpoint,
        settings=manifest.settings,
        fingerprint=manifest.fingerprint,
    )
    content = orjson.dumps(card.model_dump(), option=orjson.OPT_INDENT_2)
    # Before the scorecard, which they name: where both are read, they are of one summary or known not to be.
    counts_of(tallies, card.samples, card.greedy, card.judged, scorecard=content).save(folder)
    write_file(folder / SCORECARD, content)
    return card


def _read(folder: Path, manifest: Manifest) -> list[Tally]:
    """One pass over each stage's rows, joined by key; only counts and distinct answers stay in memory."""
    tallies: dict[str, Tally] = {}
    wanted = range(GREEDY if manifest.greedy else 0, manifest.samples)
    for row in read_rows(folder / GENERATIONS, manifest.generation_id):
        # Rows of an earlier run that asked for more samples may lie there too.
        if row["sample"] in wanted:
            problem = row["problem_id"]
            if problem not in tallies:
                tallies[problem] = Tally(manifest.samples, row)
            tallies[problem].add_generation(row)
    texts: dict[str, str] = {}
    for row in read_rows(folder / GRADES, manifest.grading_id):
        if tally := _tally_of(row, tallies, wanted):
            vote = vote_of(row, manifest.grading.grader)
            tally.add_grade(
                row["sample"],
                vote and texts.setdefault(vote, vote),
                row["symbolic_correct"],
                repeats=row.get("repeats"),
            )
    if manifest.judging_id:
        for row in read_rows(folder / JUDGEMENTS, manifest.judging_id):
            if tally := _tally_of(row, tallies, wanted):
                tally.add_judgement(row["sample"], row["judge_correct"])
    return list(tallies.values())


def _tally_of(row: Row, tallies: dict[str, Tally], wanted: range) -> Tally | None:
    return tallies.get(row["problem_id"]) if row["sample"] in wanted else None


def score(
    tallies: Sequence[Tally],
    *,
    benchmark: str,
    samples: int,
    greedy: bool,
    judged: bool,
    needs_judge: bool = False,
    metrics: Sequence[str] = ("majority", "pass"),
    expected: int | None = None,
    checkpoint: Checkpoint | None = None,
    settings: str | None = None,
    fingerprint: str | None = None,
) -> Scorecard:
    """The scorecard of all problems, and of each subset if there is one, in the order they first appear."""
    names = dict.fromkeys(tally.subset for tally in tallies if tally.subset is not None)

    def table(name: str, members: Sequence[Tally], expected: int | None = None) -> Subset:
        counts = _counts(members, judged, expected)
        modes = tuple(_modes(members, samples, greedy, judged, metrics))
        return Subset(name=name, counts=counts, modes=modes, sample_spread=sample_spread(members))

    whole = table(f"{benchmark}-all" if names else benchmark, tallies, expected)
    subsets = [table(f"{benchmark}-{name}", [t for t in tallies if t.subset == name]) for name in names]
    missing = whole.counts.ungraded + whole.counts.unjudged
    return Scorecard(
        benchmark=benchmark,
        checkpoint=checkpoint,
        settings=settings,
        fingerprint=fingerprint,
        samples=samples,
        greedy=greedy,
        judged=judged,
        needs_judge=needs_judge,
        complete=expected in (None, whole.counts.generated) and not missing,
        subsets=(whole, *subsets),
    )


def _counts(tallies: Sequence[Tally], judged: bool, expected: int | None) -> Counts:
    generated = sum(tally.generated for tally in tallies)
    return Counts(
        expected=expected,
        generated=generated,
        failed=sum(tally.failed for tally in tallies),
        truncated=sum(tally.truncated for tally in tallies),
        ungraded=generated - sum(tally.graded for tally in tallies),
        undecided=sum(tally.undecided for tally in tallies),
        unjudged=generated - sum(tally.judged for tally in tallies) if judged else 0,
        unparsable=sum(tally.unparsable for tally in tallies) if judged else 0,
    )


def _modes(
    tallies: Sequence[Tally], samples: int, greedy: bool, judged: bool, metrics: Sequence[str]
) -> Iterator[Mode]:
    """The modes of the table, then those for smaller k, which ``scorecard.json`` alone has."""
    if greedy:
        yield _Part(tallies, slice(0, 1), judged).mode("greedy", 1)
    if not samples:
        return
    part = _Part(tallies, slice(1, None), judged)
    smaller = [1 << bit for bit in reversed(range(1, (samples - 1).bit_length()))]
    if "majority" in metrics:
        yield part.mode(f"majority@{samples}", samples, majority=True)
    if "pass" in metrics:
        yield part.mode(f"pass@{samples}", samples)
        yield part.mode(f"pass@1[{samples}]", 1)
        yield from (part.mode(f"pass@{k}", k) for k in smaller)
    if "majority" in metrics and samples <= _EXACT_MAJORITY:
        yield from (part.mode(f"majority@{k}", k, majority=True) for k in smaller)


class _Part:
    """The greedy answers, or the samples, of some problems: what all their modes are computed from."""

    def __init__(self, tallies: Sequence[Tally], part: slice, judged: bool) -> None:
        self.part = part
        self.tallies = [tally for tally in tallies if tally.generated_in(part)]
        self.clusters = [tally.cluster for tally in self.tallies]
        columns = COLUMNS if judged else COLUMNS[:1]
        self.correct = {
            column: [tally.graded_and_correct(column, part) for tally in self.tallies] for column in columns
        }
        self.answered = [tally.graded_and_answered(part) for tally in self.tallies]
        self.avg_tokens = self._mean(tally.mean_tokens(part) for tally in self.tallies)

    def mode(self, name: str, k: int, majority: bool = False) -> Mode:
        columns: dict[str, Estimate | None] = dict.fromkeys(COLUMNS)
        for column, counts in self.correct.items():
            if majority:
                columns[column] = self._mean(tally.majority(column, self.part, k) for tally in self.tallies)
            else:
                columns[column] = self._mean(pass_at_k(n, c, k) for n, c in counts)
        return Mode(
            evaluation_mode=name,
            k=k,
            num_entries=len(self.tallies),
            **columns,
            no_answer=self._mean(no_answer_at_k(n, answered, k) for n, answered in self.answered),
            avg_tokens=self.avg_tokens,
        )

    def _mean(self, values: Iterable[float]) -> Estimate | None:
        return mean(list(values), self.clusters)
