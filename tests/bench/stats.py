"""How often the verdict on a checkpoint is wrong, by simulation.

    make bench-stats
    make bench-stats LINEAGES=200

False alarms: lineages of checkpoints of which none is worse, evaluated every night beside the same baseline. Power:
checkpoints that are worse by so much, compared once. Paired: the same with the problems of both sides shuffled, as a
comparison of two averages sees them; and with the margin that a comparison has where nobody has said otherwise, which
is taken off what is left to be found. Rates of correct answers differ between problems as a Beta distribution does.
Of the rates beside the verdict: nights on which all are as much worse as is fine, and no more.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import stats

from evalcore.compare import MARGIN
from evalcore.comparison import ALPHA, Verdict, compare, spent, together
from evalcore.counts import ANSWERED, FAILED, REPEATED, TOKENS, TRUNCATED, UNPARSABLE, Pair
from evalcore.rates import LONGER, MARGINS, RateKind, alarms, rates_of

NIGHTS = 60
DROP, PROBLEMS, SAMPLES = 0.05, 198, 8
# A quick t-test that is so many times above what would alarm need not be done in full.
_SCREEN = 5.0


@dataclass(frozen=True)
class Suite:
    """Benchmarks by how many problems each has; samples of each."""

    problems: Sequence[int]
    samples: int


# As a nightly suite has them: competitions of 30 problems, and benchmarks of hundreds.
SUITE = Suite((30, 30, 40, 60, 80, 100, 120, 198, 250, 272, 400, 500), 8)


def rates(rng: np.random.Generator, problems: int) -> NDArray[np.float64]:
    """How often each problem is solved: many nearly always or never, few in between."""
    return rng.beta(0.8, 0.6, problems)


def pairs(n: int, new: NDArray[np.int64], base: NDArray[np.int64]) -> list[Pair]:
    counts = zip(new.tolist(), base.tolist(), strict=True)
    return [Pair(str(i), n, c, n, base_c) for i, (c, base_c) in enumerate(counts)]


def false_alarms(
    rng: np.random.Generator, lineages: int, alpha: float, spends: bool, corrects: bool
) -> tuple[int, int]:
    """Lineages with a false alarm, and nights with one.

    A comparison is only made in full where a quick t-test does not exclude by far that it alarms.
    """
    bad, nights = 0, 0
    for _ in track(
        range(lineages), description="null lineages", transient=True, console=Console(stderr=True)
    ):
        baselines, quick = [], []
        news = []
        for size in SUITE.problems:
            true = rates(rng, size)
            base = rng.binomial(SUITE.samples, true)
            new = rng.binomial(SUITE.samples, true, size=(NIGHTS, size))
            d = (new - base) / SUITE.samples
            error = np.maximum(d.std(axis=1, ddof=1), 1e-9) / np.sqrt(size)
            quick.append(stats.t.cdf(d.mean(axis=1) / error, size - 1))
            baselines.append(base)
            news.append(new)
        p_quick = np.array(quick)
        alarmed = 0
        for night in range(NIGHTS):
            level = spent(alpha, night + 1) if spends else alpha
            alarms_at = level / len(SUITE.problems) if corrects else level
            if p_quick[:, night].min() > _SCREEN * alarms_at:
                continue
            found = {
                str(i): compare(pairs(SUITE.samples, news[i][night], baselines[i]), alpha=level)
                for i in range(len(SUITE.problems))
            }
            if corrects:
                found = together(found, critical=list(found), alpha=level)
            alarmed += any(one.verdict is Verdict.REGRESSED for one in found.values())
        bad += alarmed > 0
        nights += alarmed
    return bad, nights


def rate_alarms(rng: np.random.Generator, nights: int) -> int:
    """Nights with an alarm of a rate, where every rate rose by its margin and answers got longer by theirs."""
    shares = {
        TRUNCATED: RateKind.TRUNCATION,
        REPEATED: RateKind.REPETITION,
        UNPARSABLE: RateKind.JUDGE_UNPARSABLE,
        FAILED: RateKind.SERVER_ERRORS,
    }
    alarmed = 0
    for _ in range(nights):
        found = {}
        for number, size in enumerate(SUITE.problems):
            columns = {}
            for column, kind in shares.items():
                true = rng.beta(0.2, 4.0, size) * (1 - MARGINS[kind])
                base, new = (
                    rng.binomial(SUITE.samples, true),
                    rng.binomial(SUITE.samples, true + MARGINS[kind]),
                )
                columns[column] = pairs(SUITE.samples, new, base)
            true = 1 - rng.beta(0.2, 4.0, size) * (1 - MARGINS[RateKind.NO_ANSWER])
            base = rng.binomial(SUITE.samples, true)
            new = rng.binomial(SUITE.samples, true - MARGINS[RateKind.NO_ANSWER])
            columns[ANSWERED] = pairs(SUITE.samples, new, base)
            mean = rng.lognormal(6, 0.8, (size, 1))
            drawn = (rng.lognormal(0, 0.8, (size, SUITE.samples)) * mean * by for by in (1 + LONGER, 1))
            new, base = (lengths.sum(axis=1).astype(int) for lengths in drawn)
            columns[TOKENS] = pairs(SUITE.samples, new, base)
            found[str(number)] = rates_of(columns, alpha=ALPHA)
        alarmed += any(rate.is_alarm for several in alarms(found).values() for rate in several)
    return alarmed


def power(
    rng: np.random.Generator,
    trials: int,
    drop: float,
    level: float,
    *,
    is_paired: bool = True,
    margin: float = 0.0,
) -> float:
    """The share of checkpoints that are worse by ``drop`` and found so."""
    hits = 0
    for _ in range(trials):
        true = rates(rng, PROBLEMS)
        base, new = rng.binomial(SAMPLES, true), rng.binomial(SAMPLES, worse(true, drop))
        if not is_paired:
            rng.shuffle(base)
        hits += compare(pairs(SAMPLES, new, base), margin=margin, alpha=level).verdict is Verdict.REGRESSED
    return hits / trials


def worse(true: NDArray[np.float64], drop: float) -> NDArray[np.float64]:
    """The same problems, solved less often by ``drop`` on average: each in proportion to how often it was."""
    return true * (1 - drop / true.mean())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lineages", type=int, default=2000)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=20261121)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    console = Console()
    began = time.monotonic()
    lineages, trials = options.lineages, options.trials

    table = Table(
        "null: nothing is worse", "asked", "found", title=f"{len(SUITE.problems)} benchmarks, {NIGHTS} nights"
    )
    bad, _ = false_alarms(rng, lineages, ALPHA, spends=True, corrects=True)
    table.add_row(f"lineages with a false alarm, of {lineages:,}", "< 5%", f"{bad / lineages:.2%}")
    few = max(1, lineages // 20)
    naive, nights = false_alarms(rng, few, ALPHA, spends=False, corrects=False)
    table.add_row(f"the same, each test at 5% (naive), of {few:,}", "", f"{naive / few:.1%}")
    table.add_row("nights with an alarm, naive", "", f"{nights / few:.1f} of {NIGHTS}")
    few = max(1, lineages // 40)
    alarmed = rate_alarms(rng, few)
    table.add_row(f"nights with an alarm of a rate, of {few:,}", "< 5%", f"{alarmed / few:.1%}")
    console.print(table)

    table = Table(
        "worse by",
        "in one night",
        "paired",
        "unpaired",
        f"paired, {100 * MARGIN:g} points are fine",
        title=f"power, {PROBLEMS} problems, {SAMPLES} samples",
    )
    for drop in (0.02, 0.03, DROP):
        level = spent(ALPHA, 1)
        found = [
            power(rng, trials, drop, level),
            power(rng, trials, drop, level, is_paired=False),
            power(rng, trials, drop, level, margin=MARGIN),
        ]
        asked = "≥ 90%" if drop == DROP else ""
        table.add_row(f"{100 * drop:g} points", asked, *(f"{share:.1%}" for share in found))
    console.print(table)
    console.print(f"{trials:,} checkpoints each, seed {options.seed}, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
