"""Compare a checkpoint's results with a baseline's, benchmark by benchmark, problem by problem.

From their folders, or from the history (``compare_recorded``).

>>> compared = compare_folders(Path("results/run/step-1800"), Path("results/run/step-900"))
>>> [(it.benchmark, it.found.verdict) for it in compared.benchmarks]
[('tiny-arithmetic', <Verdict.OK: 'ok'>)]

Only what was asked, graded and judged alike is compared; of the rest it says in what the two differ. NeMo-Skills'
files do not say how they were asked: of theirs, problems and graders are the same. The formulas are those of
``comparison``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalcore import nemo_skills
from evalcore.checkpoints import Checkpoint
from evalcore.comparison import ALPHA, Comparison, Verdict, compare, together, unknown
from evalcore.counts import Column, Pair, ProblemCounts, Verdicts, paired
from evalcore.errors import ConfigError, ResultsError
from evalcore.manifest import Manifest, benchmark_folders, differences
from evalcore.rates import Rate, alarms, rates_of
from evalcore.summarize import Scorecard
from evalcore.tally import COLUMNS, deciding
from evalcore.terminal import without_controls

if TYPE_CHECKING:
    from evalcore.history.store import Evaluation, History

log = logging.getLogger(__name__)

MARGIN = 0.005
"""How much worse is still fine where nobody has said otherwise: half a point.

With it a loss of 5 points on 198 problems × 8 samples is found in more than 90% of nights (``make bench-stats``).
"""


@dataclass(frozen=True, slots=True)
class Compared:
    """One benchmark under both checkpoints.

    baseline: the checkpoint it is compared with. mode: of what, as in the table: ``pass@1[8]`` or ``greedy``.
    column: by whose verdicts. value, base_value: means over the problems that both have; nan, and no pairs, where
    none has a verdict and it is a rate that alarms. rates: of the same answers, those that both sides have counts of.
    pairs: the problems.
    """

    benchmark: str
    baseline: Checkpoint
    mode: str
    column: str
    value: float
    base_value: float
    found: Comparison
    rates: tuple[Rate, ...]
    pairs: tuple[Pair, ...]

    @property
    def alarms(self) -> list[Rate]:
        """The rates that rose by more than is fine."""
        return [rate for rate in self.rates if rate.is_alarm]

    def rate(self, kind: str) -> Rate | None:
        """The rate of a kind; None where one side has no counts of it."""
        return next((rate for rate in self.rates if rate.kind == kind), None)

    def flipped(self, most: int) -> list[Pair]:
        """The problems that changed most, the worst losses first, then the best gains."""
        changed = sorted((p for p in self.pairs if p.difference), key=lambda p: (p.difference, p.problem))
        losses = [pair for pair in changed if pair.difference < 0][:most]
        gains = [pair for pair in reversed(changed) if pair.difference > 0][: most - len(losses)]
        return losses + gains


@dataclass(frozen=True, slots=True)
class Comparisons:
    """All benchmarks of a checkpoint. refused: why some cannot be compared, by name.

    cards: the scorecards of both sides, by benchmark; of the history's evaluations there are none.
    """

    checkpoint: Checkpoint
    benchmarks: tuple[Compared, ...]
    refused: Mapping[str, str]
    cards: Mapping[str, tuple[Scorecard, Scorecard]] = field(default_factory=dict, compare=False)

    @property
    def verdict(self) -> Verdict:
        """Regressed if any benchmark is; ok if all are."""
        verdicts = {it.found.verdict for it in self.benchmarks}
        if Verdict.REGRESSED in verdicts:
            return Verdict.REGRESSED
        return Verdict.OK if verdicts == {Verdict.OK} and not self.refused else Verdict.INCONCLUSIVE


def compare_folders(
    folder: Path,
    baseline: Path,
    *,
    margins: Mapping[str, float] | None = None,
    margin: float = MARGIN,
    advisory: Collection[str] = (),
    alpha: float = ALPHA,
) -> Comparisons:
    """Compare what lies in two checkpoints' folders, or in two of one benchmark: ours, or NeMo-Skills'.

    Args:
        margins: by benchmark; margin: of the others.
        advisory: benchmarks whose false alarms are bounded as a share of the alarms; the others are critical.
        alpha: for all critical ones together.

    Raises:
        ResultsError: nothing in them can be compared; it says why.
        ConfigError: a margin, or an advisory benchmark, that is not there.
    """
    here, there = read(folder), read(baseline)
    if unknown := sorted({*(margins or {}), *advisory} - here.keys()):
        raise ConfigError(f"{folder} has no benchmark {unknown[0]!r}; it has {', '.join(sorted(here))}")
    refused = dict(_not_in_both(here, there, baseline))
    alone: dict[str, Compared] = {}
    for name in here.keys() & there.keys():
        new, base = here[name], there[name]
        if new.is_foreign != base.is_foreign:
            refused[name] = "of one NeMo-Skills' files are there, which do not say how it was asked"
            continue
        if differing := differences(new.alike, base.alike):
            refused[name] = _said(differing)
            continue
        allowed = (margins or {}).get(name, margin)
        try:
            alone[name] = _compare(name, new, base, allowed, alpha)
        except ValueError as error:
            refused[name] = str(error)
    if not alone:
        reasons = "; ".join(f"{name}: {why}" for name, why in sorted(refused.items())) or "no benchmarks"
        raise ResultsError(f"{folder} and {baseline}: nothing to compare: {reasons}")
    if any(here[name].is_foreign for name in alone):
        log.warning(
            "NeMo-Skills' files do not say how they were asked: that both were asked alike is up to you"
        )
    checkpoint = here[next(iter(alone))].checkpoint
    compared = _all(checkpoint, [alone[name] for name in here if name in alone], refused, advisory, alpha)
    return replace(compared, cards={name: (here[name].card, there[name].card) for name in alone})


def compare_recorded(
    history: History,
    evaluations: Sequence[tuple[Evaluation, Evaluation | None]],
    *,
    margins: Mapping[str, float] | None = None,
    margin: float = MARGIN,
    advisory: Collection[str] = (),
    alpha: float = ALPHA,
) -> Comparisons:
    """Compare evaluations of one checkpoint, each with its baseline; None: there is none yet.

    As ``compare_folders``. Raises ResultsError where the history cannot be read.
    """
    found, refused = [], {}
    for new, base in evaluations:
        if base is None:
            refused[new.benchmark] = "there is no baseline yet"
            continue
        if new.fingerprint != base.fingerprint:
            refused[new.benchmark] = _said(history.differences(new.fingerprint, base.fingerprint))
            continue
        is_sampled = bool(new.samples and base.samples)
        column = deciding(new.needs_judge and new.judged)
        pairs = history.pairs(new.id, base.id, greedy=not is_sampled)
        mode = f"pass@1[{new.samples}]" if is_sampled else "greedy"
        allowed = (margins or {}).get(new.benchmark, margin)
        try:
            found.append(_compared(new.benchmark, base.checkpoint, mode, column, pairs, allowed, alpha))
        except ValueError as error:
            refused[new.benchmark] = str(error)
    return _all(evaluations[0][0].checkpoint, found, refused, advisory, alpha)


def _all(
    checkpoint: Checkpoint,
    alone: Sequence[Compared],
    refused: Mapping[str, str],
    advisory: Collection[str],
    alpha: float,
) -> Comparisons:
    """With the verdicts that hold for all of them together, and the rates' alarms that hold for all of these."""
    critical = [it.benchmark for it in alone if it.benchmark not in advisory]
    found = together({it.benchmark: it.found for it in alone}, critical=critical, alpha=alpha)
    rates = alarms({it.benchmark: it.rates for it in alone}, alpha=alpha)
    benchmarks = tuple(replace(it, found=found[it.benchmark], rates=rates[it.benchmark]) for it in alone)
    return Comparisons(checkpoint, benchmarks, dict(refused))


@dataclass(frozen=True, slots=True)
class Side:
    """A benchmark's folder. alike: what another must have in common with it to be compared. column: whose verdicts.

    is_foreign: the files are NeMo-Skills'.
    """

    checkpoint: Checkpoint
    alike: dict[str, Any]
    column: str
    card: Scorecard
    counts: ProblemCounts
    is_foreign: bool


def read(folder: Path) -> dict[str, Side]:
    """The benchmarks in a checkpoint's folder, by name.

    Raises:
        ResultsError: they are of several checkpoints, or cannot be read.
    """
    foreign = nemo_skills.benchmark_folders(folder)
    sides: dict[str, Side] = {}
    for side in map(_foreign, foreign) if foreign else map(_ours, benchmark_folders(folder)):
        if (other := sides.get(side.card.benchmark)) is not None:
            names = " and ".join(f"{it.checkpoint.run}/{it.checkpoint.name}" for it in (other, side))
            raise ResultsError(
                f"{folder}: {side.card.benchmark} is there of {names}; give the folder of one checkpoint"
            )
        sides[side.card.benchmark] = side
    return sides


def _ours(folder: Path) -> Side:
    manifest, card = Manifest.load(folder), Scorecard.load(folder)
    column = deciding(manifest.benchmark.needs_judge and card.judged)
    counts = ProblemCounts.load(folder)
    return Side(manifest.checkpoint, manifest.fingerprint_parts, column, card, counts, is_foreign=False)


def _foreign(folder: Path) -> Side:
    card, counts, alike = nemo_skills.evaluated(folder)
    assert card.checkpoint is not None
    verdicts = [it[COLUMNS[0]].n for it in (counts.sampled, counts.greedy) if it]
    # Where the symbolic grader has said nothing, as of proofs, the judge is all there is.
    column = deciding(card.judged and not any(map(any, verdicts)))
    return Side(card.checkpoint, {**alike, "verdicts": column}, column, card, counts, is_foreign=True)


def _not_in_both(
    here: Mapping[str, Side], there: Mapping[str, Side], baseline: Path
) -> Iterator[tuple[str, str]]:
    yield from ((name, f"not in {baseline}") for name in here if name not in there)
    yield from ((name, f"in {baseline} alone") for name in there if name not in here)


def _compare(name: str, new: Side, base: Side, margin: float, alpha: float) -> Compared:
    is_sampled = bool(new.counts.sampled and base.counts.sampled)
    mine, theirs = (side.counts.sampled if is_sampled else side.counts.greedy for side in (new, base))
    pairs = {
        name: paired(_column(new.counts, mine[name]), _column(base.counts, theirs[name]))
        for name in mine
        if name in theirs
    }
    return _compared(
        name,
        base.checkpoint,
        f"pass@1[{new.card.samples}]" if is_sampled else "greedy",
        new.column,
        pairs,
        margin,
        alpha,
    )


def _column(counts: ProblemCounts, verdicts: Verdicts) -> Column:
    return Column(counts.problems, counts.clusters, verdicts.n, verdicts.c)


def _compared(
    benchmark: str,
    baseline: Checkpoint,
    mode: str,
    column: str,
    columns: Mapping[str, Sequence[Pair]],
    margin: float,
    alpha: float,
) -> Compared:
    """columns: of all counts that both sides have. ValueError if these cannot be compared."""
    if column not in columns:
        raise ValueError("one has greedy answers alone, the other samples alone")
    known = [pair for pair in columns[column] if pair.n and pair.base_n]
    rates = rates_of(columns, alpha=alpha)
    if known or not any(rate.is_alarm for rate in rates):
        found = compare(known, margin=margin, alpha=alpha)
    else:
        # A judge that cannot be read at all leaves no verdict to compare: that is when its rate has most to say.
        found = unknown(margin=margin, alpha=alpha)
    return Compared(
        benchmark=benchmark,
        baseline=baseline,
        mode=mode,
        column=column,
        value=sum(pair.c / pair.n for pair in known) / len(known) if known else math.nan,
        base_value=sum(pair.base_c / pair.base_n for pair in known) / len(known) if known else math.nan,
        found=found,
        rates=rates,
        pairs=tuple(known),
    )


def margins_of(given: Collection[str]) -> dict[str, float]:
    """Margins as they are written, by benchmark: ``0.02`` (under the empty name: of all) or ``aime24=0.05``.

    Raises:
        ConfigError: no share between 0 and 1.
    """
    found = {}
    for text in given:
        name, _, share = text.rpartition("=")
        try:
            found[name] = float(share)
        except ValueError:
            found[name] = -1.0
        if not 0 <= found[name] < 1:
            raise ConfigError(f"--margin {text}: expected a share, as 0.01 for a point, or aime24=0.05")
    return found


def _said(differing: Mapping[str, tuple[Any, Any]]) -> str:
    return "; ".join(f"{name}: {new}, not {base}" for name, (new, base) in differing.items())


def as_text(compared: Comparisons, *, flips: int = 10) -> str:
    """The comparison as a table, the verdict in a sentence before it, the problems that changed most after it."""
    lines = [sentence(compared), "", *aligned([HEADER, *map(cells, compared.benchmarks)])]
    for it in compared.benchmarks:
        if it.found.needed:
            lines.append(f"note: {it.benchmark}: {it.found.needed} would settle it")
        lines += [f"note: {it.benchmark}: {rate}" for rate in it.alarms]
    lines += [f"note: {name}: not compared: {why}" for name, why in sorted(compared.refused.items())]
    for it in compared.benchmarks:
        if changed := it.flipped(flips):
            lines += ["", f"{it.benchmark}: the problems that changed most (baseline → new)"]
            lines += [f"  {flip(pair)}" for pair in changed]
    return without_controls("\n".join(lines)) + "\n"


def sentence(compared: Comparisons) -> str:
    """The verdict in one sentence, and which rates alarm."""
    new = compared.checkpoint
    baselines = dict.fromkeys(f"{it.baseline.run}/{it.baseline.name}" for it in compared.benchmarks)
    pair = f"{new.run}/{new.name} against {', '.join(baselines) or 'nothing'}"
    rates = [f"{rate.kind} on {it.benchmark}" for it in compared.benchmarks for rate in it.alarms]
    alarming = f"; alarms: {', '.join(rates)}" if rates else ""
    worse = [it for it in compared.benchmarks if it.found.verdict is Verdict.REGRESSED]
    if worse:
        drops = ", ".join(f"{it.benchmark} by {-100 * it.found.difference:.1f} points" for it in worse)
        return f"{pair}: regressed on {drops}{alarming}"
    open_ = [it.benchmark for it in compared.benchmarks if it.found.verdict is Verdict.INCONCLUSIVE]
    if open_:
        return f"{pair}: inconclusive on {', '.join(open_)}{alarming}"
    return f"{pair}: ok{alarming}"


HEADER = ("benchmark", "mode", "baseline", "new", "difference", "bounds", "p", "verdict")


def cells(it: Compared) -> list[str]:
    """A benchmark's line of the table, under ``HEADER``."""
    found = it.found
    if not it.pairs:
        return [it.benchmark, it.mode, *["n/a"] * 5, str(found.verdict)]
    return [
        it.benchmark,
        it.mode,
        f"{it.base_value:.2%}",
        f"{it.value:.2%}",
        f"{100 * found.difference:+.2f}",
        f"[{100 * found.lower:+.2f}, {100 * found.upper:+.2f}]",
        f"{found.p_worse:.2g}",
        str(found.verdict),
    ]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table of such rows, in columns of one width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [" | ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def flip(pair: Pair) -> str:
    """How a problem changed: ``p7: 8/8 → 0/8``."""
    return f"{pair.problem}: {pair.base_c}/{pair.base_n} → {pair.c}/{pair.n}"
