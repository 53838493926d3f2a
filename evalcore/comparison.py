"""Did it get worse? Differences between two checkpoints on the same problems, and what may be said of them.

>>> pairs = [Pair(f"p{i}", n=8, c=2, base_n=8, base_c=4) for i in range(50)]
>>> found = compare(pairs, margin=0.01)
>>> found.verdict, found.difference, found.method
(<Verdict.REGRESSED: 'regressed'>, -0.25, 'sign-flip')

The unit is the problem, not the sample: d = c/n − base_c/base_n of each. Problems that share a cluster count as one
observation. A sample without a verdict is in no n, and a problem without any is left out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction

import numpy as np

from evalcore.counts import Pair
from evalcore.errors import ConfigError
from evalcore.metrics import mean

try:
    from scipy import stats
except ModuleNotFoundError as error:
    if error.name != "scipy":
        raise
    raise ConfigError(
        "a comparison needs scipy, which is not installed: pip install 'evalcore[compare]'"
    ) from error

ALPHA = 0.05
"""How often, at most, a lineage of checkpoints of which none is worse may have a false alarm, over all nights."""

FEW = 100
"""Below so many clusters a difference is tested by flipping signs: the mean of few is not normal."""

_LATTICE = 1 << 18
"""Most steps between the least and the largest sum that signs can give; beyond it sums are rounded to so many."""

_GRID = 1000
"""Bounds by sign-flips are found to a tenth of a point."""


class Verdict(StrEnum):
    """A difference is known to be below −margin, known to be above it, or neither."""

    REGRESSED = "regressed"
    OK = "ok"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is known of one benchmark. Shares: 0.05 is five points.

    difference: mean over problems of new − baseline.
    std_err: clustered; None for fewer than two clusters.
    lower, upper: one-sided bounds, each wrong with probability alpha.
    p_worse: probability of so low a difference or a lower one, were the true one −margin.
    p_fine: the same, of so high a one or a higher one.
    method: ``t``, ``sign-flip`` or ``mcnemar``; ``none`` of what is unknown, whose numbers are nan.
    needed: what would settle an inconclusive one, in words.
    """

    difference: float
    std_err: float | None
    lower: float
    upper: float
    p_worse: float
    p_fine: float
    problems: int
    clusters: int
    margin: float
    alpha: float
    method: str
    verdict: Verdict
    needed: str = ""


def compare(pairs: Sequence[Pair], *, margin: float = 0.0, alpha: float = ALPHA) -> Comparison:
    """Compare two checkpoints on one benchmark, tested alone.

    Regressed if the upper bound of the difference is below −margin, ok if its lower bound is above (two one-sided
    tests, Schuirmann 1987), else inconclusive. By Student's t on clustered errors; by all signs of the clusters'
    sums (Fisher 1935; exact, for symmetric differences) below FEW clusters; by the exact test of McNemar 1947 for
    one sample each and no margin.

    Raises:
        ValueError: no problem has verdicts under both, or the margin is negative.
    """
    if margin < 0:
        raise ValueError(f"a margin is how much worse is still fine, and cannot be {margin}")
    pairs = [pair for pair in pairs if pair.n and pair.base_n]
    if not pairs:
        raise ValueError("no problem has verdicts under both checkpoints")
    shift = Fraction(str(margin))
    sums: defaultdict[Hashable, Fraction] = defaultdict(Fraction)
    sizes: defaultdict[Hashable, int] = defaultdict(int)
    for pair in pairs:
        label = (pair.cluster, "") if pair.cluster else ("", pair.problem)
        sums[label] += pair.difference
        sizes[label] += 1
    totals = [(sums[label], sizes[label]) for label in sums]
    labels = [pair.cluster or f"\0{pair.problem}" for pair in pairs]
    estimate = mean([float(pair.difference) for pair in pairs], labels)
    assert estimate is not None, "there are pairs"
    method = _method(pairs, len(totals), margin)
    signs = None
    if method == "t":
        assert estimate.std_err is not None, "there are many clusters"
        p_worse, p_fine = _student(estimate.value + margin, estimate.std_err, len(totals))
        reach = float(stats.t.isf(alpha, len(totals) - 1)) * estimate.std_err
        lower, upper = estimate.value - reach, estimate.value + reach
    else:
        shifted = [total + shift * size for total, size in totals]
        signs = sum(map(bool, shifted))
        p_worse, p_fine = _sign_flip(shifted)
        lower, upper = _bounds(totals, alpha)
    verdict = Verdict.OK if p_fine <= alpha else Verdict.INCONCLUSIVE
    if p_worse <= alpha:
        verdict = Verdict.REGRESSED
    return Comparison(
        difference=estimate.value,
        std_err=estimate.std_err,
        lower=lower,
        upper=upper,
        p_worse=p_worse,
        p_fine=p_fine,
        problems=len(pairs),
        clusters=len(totals),
        margin=margin,
        alpha=alpha,
        method=method,
        verdict=verdict,
        needed=_needed(pairs, labels, estimate.value + margin, alpha, signs)
        if verdict is Verdict.INCONCLUSIVE
        else "",
    )


def unknown(*, margin: float, alpha: float) -> Comparison:
    """What is known where no problem has verdicts under both."""
    return Comparison(
        difference=math.nan,
        std_err=None,
        lower=math.nan,
        upper=math.nan,
        p_worse=1.0,
        p_fine=1.0,
        problems=0,
        clusters=0,
        margin=margin,
        alpha=alpha,
        method="none",
        verdict=Verdict.INCONCLUSIVE,
        needed="problems with verdicts under both checkpoints",
    )


def _method(pairs: Sequence[Pair], clusters: int, margin: float) -> str:
    is_single = all(pair.n == pair.base_n == 1 for pair in pairs) and clusters == len(pairs)
    if is_single and not margin:
        return "mcnemar"
    return "t" if clusters >= FEW else "sign-flip"


def _student(above: float, std_err: float, clusters: int) -> tuple[float, float]:
    if not std_err:
        return float(above >= 0), float(above <= 0)
    t = above / std_err
    return float(stats.t.cdf(t, clusters - 1)), float(stats.t.sf(t, clusters - 1))


def _sign_flip(sums: Sequence[Fraction]) -> tuple[float, float]:
    """How probable a sum so low, and one so high, is, were each cluster's sign a coin's.

    The distribution of all 2^G sums is that of a walk on the lattice that their denominators span: exact, at the
    cost of G passes over it. Of one sample each it is the binomial of McNemar's exact test.
    """
    denominator = math.lcm(*(total.denominator for total in sums))
    if sum(map(abs, sums)) * denominator > _LATTICE:
        denominator = math.floor(_LATTICE / sum(map(abs, sums)))
    steps = [round(total * denominator) for total in sums]
    reach = sum(map(abs, steps))
    chance = np.zeros(reach + 1)  # of a subset of the steps that adds up to so much
    chance[0] = 1.0
    for step in filter(None, map(abs, steps)):
        chance *= 0.5
        chance[step:] += chance[: len(chance) - step].copy()
    here = (sum(steps) + reach) // 2
    return min(1.0, float(chance[: here + 1].sum())), min(1.0, float(chance[here:].sum()))


def _bounds(totals: Sequence[tuple[Fraction, int]], alpha: float) -> tuple[float, float]:
    """The differences that sign-flips do not exclude: the lowest and the highest, on a grid.

    Looked for as far as shares can differ, and where a problem differs by more, as far as that.
    """

    def excluded(delta: int, tail: int) -> bool:
        return _sign_flip([total - Fraction(delta, _GRID) * size for total, size in totals])[tail] <= alpha

    reach = _GRID * max(1, *(math.ceil(abs(total) / size) for total, size in totals))
    lower, upper = -reach, reach
    low, high = -reach, reach
    if excluded(low, 1):
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if excluded(middle, 1) else (low, middle)
        lower = high
    low, high = -reach, reach
    if excluded(high, 0):
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if excluded(middle, 0) else (middle, high)
        upper = low
    return lower / _GRID, upper / _GRID


def _needed(
    pairs: Sequence[Pair], labels: Sequence[str], above: float, alpha: float, signs: int | None
) -> str:
    """How many more samples or problems would bring the standard error down to what the difference needs.

    The variance of d is that of the problems and that of sampling, w/n; w is estimated without bias from problems
    with two samples or more, and only w shrinks with more samples.

    signs: of how many clusters there are signs to flip, if that is the test: however small the error, of fewer than
    log2(1/alpha) even all alike say nothing.
    """
    estimate = mean([float(pair.difference) for pair in pairs], labels)
    assert estimate is not None, "there are pairs"
    clusters = len(set(labels))
    if estimate.std_err is None or clusters < 3 or not above:
        return "more problems"
    wanted = (abs(above) / float(stats.t.isf(alpha, clusters - 1))) ** 2
    variance = estimate.std_err**2
    factor = variance / wanted
    if signs is not None:
        factor = max(factor, math.ceil(-math.log2(alpha)) / signs)
    more = max(1, math.ceil(len(pairs) * (factor - 1)))
    problems = f"{more:,} more problems" if more <= 100 * len(pairs) else "far more problems"
    sampled = [pair for pair in pairs if pair.n > 1 and pair.base_n > 1]
    if not sampled or variance <= wanted:
        return problems
    sampling = math.fsum(_sampling(p.n, p.c) + _sampling(p.base_n, p.base_c) for p in sampled) / len(sampled)
    sampling /= len(pairs)  # of the mean
    samples = min(max(pair.n for pair in pairs), max(pair.base_n for pair in pairs))
    rest = wanted - max(0.0, variance - sampling)
    if rest <= 0:
        return f"{problems} (more samples alone would not do)"
    further = math.ceil(samples * (sampling / rest - 1))
    if not 0 < further <= 100 * samples:
        return problems
    return f"{further:,} more samples per problem, or {problems}"


def _sampling(n: int, c: int) -> float:
    """The variance of c/n, p(1 − p)/n, without bias: c(n − c) / (n²(n − 1))."""
    return c * (n - c) / (n * n * (n - 1))


def spent(alpha: float, night: int) -> float:
    """What of alpha the t-th comparison of a lineage may spend: α·6/(π²t²), which adds up to α over all nights.

    An alpha-spending sequence as in Foster & Stine 2008 (alpha-investing) without gains: no number of nights is
    fixed beforehand.
    """
    return alpha * 6 / (math.pi * night) ** 2


def adjusted(p_values: Mapping[str, float], critical: Sequence[str]) -> dict[str, float]:
    """p-values that hold for all benchmarks together.

    Of the critical ones by Holm 1979: no false alarm among them but with probability alpha, however they depend on
    each other. Of the others by Benjamini & Hochberg 1995: among their alarms a share of at most alpha is false.
    """
    first = {name: p for name, p in p_values.items() if name in set(critical)}
    rest = {name: p for name, p in p_values.items() if name not in first}
    found: dict[str, float] = {}
    running = 0.0
    for rank, name in enumerate(sorted(first, key=first.__getitem__)):
        running = max(running, min(1.0, first[name] * (len(first) - rank)))
        found[name] = running
    if rest:
        controlled = stats.false_discovery_control(list(rest.values()), method="bh")
        found |= dict(zip(rest, map(float, controlled), strict=True))
    return {name: found[name] for name in p_values}


def together(
    comparisons: Mapping[str, Comparison], *, critical: Sequence[str], alpha: float = ALPHA
) -> dict[str, Comparison]:
    """The same comparisons with verdicts that hold for all of them together; p_worse is the adjusted one."""
    p_values = adjusted({name: found.p_worse for name, found in comparisons.items()}, critical)
    return {name: _at(found, p_values[name], alpha) for name, found in comparisons.items()}


def _at(found: Comparison, p_worse: float, alpha: float) -> Comparison:
    if p_worse <= alpha:
        verdict = Verdict.REGRESSED
    elif found.verdict is Verdict.REGRESSED:
        # Of all that may be wrong together this one has less than alpha to itself.
        needed = _needed_at(found, alpha * found.p_worse / p_worse)
        return replace(found, p_worse=p_worse, alpha=alpha, verdict=Verdict.INCONCLUSIVE, needed=needed)
    else:
        verdict = found.verdict
    return replace(found, p_worse=p_worse, alpha=alpha, verdict=verdict)


def _needed_at(found: Comparison, level: float) -> str:
    """How many more problems, as different as these, would be enough at a level."""
    above = abs(found.difference + found.margin)
    if not found.std_err or not above or not level:
        return "more problems"
    wanted = above / float(stats.t.isf(level, found.clusters - 1))
    more = max(1, math.ceil(found.problems * ((found.std_err / wanted) ** 2 - 1)))
    return f"{more:,} more problems"
