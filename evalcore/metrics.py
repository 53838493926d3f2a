"""pass@k, majority@k and their error bars, from counts of one problem's samples.

>>> pass_at_k(n=4, c=1, k=2)  # one of four answers is right, two are drawn
0.5
>>> majority_at_k([(3, 1.0), (2, 0.0)], missing=0, k=5)  # three votes for the right answer, two for another
1.0

What is unknown is NaN here, never 0: pass@k with fewer than k graded samples, a vote that hangs on an
ungraded answer, a mean of nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems. value and std_err are shares (0 to 1), or tokens; entries: problems averaged.

    std_err is None when there are fewer than two independent problems (clusters).
    """

    value: float
    std_err: float | None
    entries: int


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that at least one of k samples, drawn from n of which c are correct, is correct.

    1 − C(n−c, k)/C(n, k), the unbiased estimator of Chen et al. 2021 (arXiv:2107.03374, section 2.1), as
    a product, so that no binomial overflows. NaN when k > n: fewer than k samples cannot tell.
    """
    if not 0 <= c <= n or k < 1:
        raise ValueError(f"pass@k needs 0 <= c <= n and k >= 1, got n={n} c={c} k={k}")
    if k > n:
        return math.nan
    if n - c < k:
        return 1.0
    none_correct = 1.0
    for drawn in range(min(k, c)):
        # C(n−c,k)/C(n,k) = C(n−k,c)/C(n,c): the shorter of the two products.
        none_correct *= (n - c - drawn) / (n - drawn) if k <= c else (n - k - drawn) / (n - drawn)
    return 1.0 - none_correct


def majority_at_k(groups: Sequence[tuple[int, float]], missing: int, k: int) -> float:
    """Expected score of a majority vote among k samples drawn from all of a problem's samples.

    groups: (votes, score) of each distinct answer; missing: samples without an answer, which do not vote.
    A tie scores the mean of the tied answers; a draw in which nobody answered scores 0. For k < n this is
    the exact expectation over all C(n, k) subsets. NaN when k > n, or when the result depends on the
    score of an answer that is unknown (NaN).
    """
    n = missing + sum(votes for votes, _ in groups)
    if k > n:
        return math.nan
    if any(math.isnan(score) for _, score in groups):
        worst = majority_at_k([(v, 0.0 if math.isnan(s) else s) for v, s in groups], missing, k)
        best = majority_at_k([(v, 1.0 if math.isnan(s) else s) for v, s in groups], missing, k)
        return worst if math.isclose(worst, best, abs_tol=1e-9) else math.nan
    if not groups:
        return 0.0
    if k == n:
        top = max(votes for votes, _ in groups)
        tied = [score for votes, score in groups if votes == top]
        return sum(tied) / len(tied)
    return _expected_majority(groups, missing, k)


def _expected_majority(groups: Sequence[tuple[int, float]], missing: int, k: int) -> float:
    """The expectation by dynamic programming, for each possible number of votes of the winner.

    The votes of the groups in a random subset are independent binomials given that they add up to k, so
    weights stay near 1 where binomial coefficients of hundreds of samples would overflow.
    """
    share = k / (missing + sum(votes for votes, _ in groups))
    pmfs = [_binomial(votes, share) for votes, _ in groups]
    silent = _binomial(missing, share)
    total = _binomial(missing + sum(votes for votes, _ in groups), share)[k]
    expected = 0.0
    for top in range(1, min(k, max(votes for votes, _ in groups)) + 1):
        # weight[a, r]: a votes cast so far, r groups with exactly `top` of them and none with more;
        # score[a, r]: the same, each times the sum of the r groups' scores.
        weight = np.zeros((k + 1, k // top + 1))
        score = np.zeros_like(weight)
        weight[: min(missing, k) + 1, 0] = silent[: k + 1]
        for (votes, right), pmf in zip(groups, pmfs, strict=True):
            next_weight, next_score = np.zeros_like(weight), np.zeros_like(score)
            for cast in range(min(votes, top - 1) + 1):
                next_weight[cast:] += pmf[cast] * weight[: k + 1 - cast]
                next_score[cast:] += pmf[cast] * score[: k + 1 - cast]
            if votes >= top:
                before = weight[: k + 1 - top, :-1]
                next_weight[top:, 1:] += pmf[top] * before
                next_score[top:, 1:] += pmf[top] * (score[: k + 1 - top, :-1] + right * before)
            weight, score = next_weight, next_score
        expected += float((score[k, 1:] / np.arange(1, score.shape[1])).sum())
    return expected / float(total)


def _binomial(n: int, p: float) -> NDArray[np.float64]:
    """Probabilities of 0..n successes of n, for 0 < p < 1."""
    logs = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1)
        + i * math.log(p) + (n - i) * math.log1p(-p)
        for i in range(n + 1)
    ]  # fmt: skip
    return np.exp(np.array(logs, dtype=np.float64))


def no_answer_at_k(n: int, answered: int, k: int) -> float:
    """Probability that none of k samples, drawn from n of which some are answered, has an answer."""
    return 1.0 - pass_at_k(n, answered, k)


def both(symbolic: bool | None, judge: bool | None) -> bool | None:
    """Correct by both graders; None where a missing grade could change it.

    One known "no" settles it, so that both <= min(symbolic, judge) also holds when grades are missing.
    """
    if symbolic is False or judge is False:
        return False
    return None if symbolic is None or judge is None else True


def either(symbolic: bool | None, judge: bool | None) -> bool | None:
    """Correct by either grader; None where a missing grade could change it."""
    if symbolic or judge:
        return True
    return None if symbolic is None or judge is None else False


def mean(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Estimate | None:
    """Mean over problems with its standard error; a NaN is left out, and a mean of nothing is None.

    With clusters (one label for each value; problems that share one are not independent) the error is
    clustered: sqrt(G/(G−1) · Σ_g (Σ_{i∈g} (x_i − mean))²) / n, Liang & Zeger 1986, as in Miller 2024
    (arXiv:2411.00640, section 2.2), with the usual small-sample factor. For clusters of one problem
    each it is the standard deviation over sqrt(n).
    """
    labels = range(len(values)) if clusters is None else clusters
    known = [(v, label) for v, label in zip(values, labels, strict=True) if not math.isnan(v)]
    if not known:
        return None
    centre = math.fsum(value for value, _ in known) / len(known)
    residuals: defaultdict[Hashable, float] = defaultdict(float)
    for value, label in known:
        residuals[label] += value - centre
    groups = len(residuals)
    if groups < 2:
        return Estimate(centre, None, len(known))
    squares = math.fsum(residual * residual for residual in residuals.values())
    return Estimate(centre, math.sqrt(groups / (groups - 1) * squares) / len(known), len(known))
