"""Differences, bounds and verdicts, against brute force and scipy's own tests."""

from __future__ import annotations

import itertools
import math
import re
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evalcore.comparison import FEW, Comparison, Verdict, adjusted, compare, spent, together
from evalcore.counts import Pair


def pairs_of(*differences: float, n: int = 8, base: int = 8) -> list[Pair]:
    """A problem for each difference, in multiples of 1/n, from a baseline that has all right."""
    return [
        Pair(f"p{i}", n=n, c=base + round(d * n), base_n=n, base_c=base) for i, d in enumerate(differences)
    ]


def by_hand(differences: list[float], margin: float = 0.0) -> tuple[float, float]:
    """The share of all sign patterns with so low a sum, and with so high a one."""
    values = [Fraction(d).limit_denominator(1000) + Fraction(str(margin)) for d in differences]
    observed = sum(values)
    patterns = itertools.product((1, -1), repeat=len(values))
    sums = [sum(s * abs(v) for s, v in zip(signs, values, strict=True)) for signs in patterns]
    low, high = sum(s <= observed for s in sums), sum(s >= observed for s in sums)
    return low / len(sums), high / len(sums)


DIFFERENCES = st.lists(st.integers(-8, 8).map(lambda eighths: eighths / 8), min_size=1, max_size=9)


@given(DIFFERENCES, st.sampled_from([0.0, 0.01, 0.125, 0.03]))
@settings(deadline=None, max_examples=60)
def test_signs_are_flipped_in_every_way(differences: list[float], margin: float) -> None:
    pairs = [
        Pair(f"p{i}", n=8, c=max(0, round(8 * d)), base_n=8, base_c=max(0, -round(8 * d)))
        for i, d in enumerate(differences)
    ]
    found = compare(pairs, margin=margin)
    assert found.method == "sign-flip"
    assert (found.p_worse, found.p_fine) == pytest.approx(by_hand(differences, margin))
    assert found.difference == pytest.approx(sum(differences) / len(differences))


@given(DIFFERENCES)
@settings(deadline=None, max_examples=30)
def test_a_bound_is_where_the_test_begins_to_exclude(differences: list[float]) -> None:
    pairs = [
        Pair(f"p{i}", n=8, c=max(0, round(8 * d)), base_n=8, base_c=max(0, -round(8 * d)))
        for i, d in enumerate(differences)
    ]
    found = compare(pairs, alpha=0.2)
    if found.upper < 1:
        assert by_hand([d - found.upper for d in differences])[0] > 0.2
        assert by_hand([d - found.upper - 0.001 for d in differences])[0] <= 0.2
    if found.lower > -1:
        assert by_hand([d - found.lower for d in differences])[1] > 0.2
        assert by_hand([d - found.lower + 0.001 for d in differences])[1] <= 0.2


def test_many_problems_are_tested_by_students_t() -> None:
    rng = np.random.default_rng(1)
    base, new = rng.binomial(8, 0.6, size=(2, 150))
    pairs = [Pair(str(i), 8, int(c), 8, int(b)) for i, (c, b) in enumerate(zip(new, base, strict=True))]
    found = compare(pairs, margin=0.01)
    assert found.method == "t"
    differences = (new - base) / 8
    expected = stats.ttest_1samp(differences, -0.01, alternative="less")
    assert found.p_worse == pytest.approx(expected.pvalue)
    assert found.p_fine == pytest.approx(1 - expected.pvalue)
    interval = stats.ttest_1samp(differences, 0).confidence_interval(0.9)
    assert (found.lower, found.upper) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("size", [30, 300])
def test_one_sample_each_is_mcnemars(size: int) -> None:
    rng = np.random.default_rng(2)
    new, base = rng.random(size) < 0.5, rng.random(size) < 0.6
    pairs = [Pair(str(i), 1, int(c), 1, int(b)) for i, (c, b) in enumerate(zip(new, base, strict=True))]
    found = compare(pairs)
    assert found.method == "mcnemar"
    lost, changed = int((base & ~new).sum()), int((base != new).sum())
    assert found.p_worse == pytest.approx(stats.binomtest(lost, changed, alternative="greater").pvalue)
    # A margin is no matter of which problems changed alone.
    assert compare(pairs, margin=0.02).method == ("t" if size >= FEW else "sign-flip")


def test_problems_of_one_cluster_are_one_observation() -> None:
    few = [pair._replace(cluster=f"c{i % 5}") for i, pair in enumerate(pairs_of(*[-0.25] * 200))]
    found = compare(few)
    assert (found.problems, found.clusters, found.method) == (200, 5, "sign-flip")
    assert found.p_worse == pytest.approx(1 / 32)
    # A cluster and a problem of one name are two.
    two = compare([*pairs_of(-0.5), pairs_of(-0.5)[0]._replace(problem="x", cluster="p0")])
    assert (two.clusters, two.std_err) == (2, 0.0)


def test_errors_are_clustered_as_those_of_a_regression_on_nothing_are() -> None:
    """Cluster-robust (CR1) errors of an intercept, by matrices: Cameron & Miller 2015, equations 10 and 12."""
    rng = np.random.default_rng(4)
    size, groups = 600, 130
    cluster = rng.integers(0, groups, size)
    base = rng.binomial(8, 0.6, size)
    new = rng.binomial(8, np.clip(0.6 + rng.normal(0, 0.15, groups)[cluster], 0, 1))
    pairs = [Pair(str(i), 8, int(new[i]), 8, int(base[i]), f"c{cluster[i]}") for i in range(size)]
    found = compare(pairs, margin=0.01, alpha=0.03)
    d, x = (new - base) / 8, np.ones((size, 1))
    member = np.equal.outer(np.unique(cluster), cluster).astype(float)
    scores = (member * (d - d.mean())) @ x
    bread = np.linalg.inv(x.T @ x)
    groups = len(member)
    factor = groups / (groups - 1) * (size - 1) / (size - 1)
    error = math.sqrt((factor * bread @ scores.T @ scores @ bread).item())
    assert (found.method, found.clusters) == ("t", groups)
    assert found.std_err == pytest.approx(error)
    t = stats.t(df=groups - 1, loc=d.mean(), scale=error)
    assert (found.lower, found.upper) == pytest.approx((t.ppf(0.03), t.ppf(0.97)))
    assert (found.p_worse, found.p_fine) == pytest.approx((t.sf(-0.01), t.cdf(-0.01)))


@pytest.mark.parametrize(("problems", "method"), [(FEW - 1, "sign-flip"), (FEW, "t")])
def test_few_problems_are_tested_by_flipping_signs(problems: int, method: str) -> None:
    assert compare(pairs_of(*[-0.25, 0.125] * problems)[:problems]).method == method


def test_mcnemar_wants_one_sample_of_each_problem_on_both_sides() -> None:
    single = [Pair(f"p{i}", 1, i % 2, 1, 1) for i in range(20)]
    assert compare(single).method == "mcnemar"
    assert compare([*single[1:], single[0]._replace(n=2)]).method == "sign-flip"
    assert compare([*single[1:], single[0]._replace(base_n=2)]).method == "sign-flip"
    assert (
        compare([pair._replace(cluster=f"c{i // 2}") for i, pair in enumerate(single)]).method == "sign-flip"
    )


@pytest.mark.parametrize(
    ("eighths", "verdict", "p_values"),
    [
        (-1, Verdict.REGRESSED, (0.0, 1.0)),
        (0, Verdict.INCONCLUSIVE, (1.0, 1.0)),
        (1, Verdict.OK, (1.0, 0.0)),
    ],
)
def test_many_problems_that_all_differ_alike(
    eighths: int, verdict: Verdict, p_values: tuple[float, float]
) -> None:
    found = compare(pairs_of(*[eighths / 8] * 150, base=4))
    assert (found.method, found.verdict, (found.p_worse, found.p_fine)) == ("t", verdict, p_values)
    assert found.lower == found.upper == eighths / 8


def test_as_improbable_as_alpha_is_improbable_enough() -> None:
    """Of five problems that all got worse one pattern of signs in 32 is so bad."""
    worse, better = pairs_of(*[-0.25] * 5), pairs_of(*[0.25] * 5, base=4)
    assert compare(worse, alpha=1 / 32).verdict is Verdict.REGRESSED
    assert compare(better, alpha=1 / 32).verdict is Verdict.OK
    for pairs in (worse, better):
        assert compare(pairs, alpha=0.99 / 32).verdict is Verdict.INCONCLUSIVE
    several = together({"a": compare(worse), "b": compare(better)}, critical=["a", "b"], alpha=2 / 32)
    assert several["a"].verdict is Verdict.REGRESSED
    assert {found.alpha for found in several.values()} == {2 / 32}


@pytest.mark.parametrize(
    ("difference", "margin", "verdict"),
    [
        (-0.125, 0.02, Verdict.REGRESSED),
        (-0.125, 0.2, Verdict.OK),
        (0.0, 0.02, Verdict.OK),
        (0.125, 0.0, Verdict.OK),
    ],
)
def test_verdicts_of_what_is_certain(difference: float, margin: float, verdict: Verdict) -> None:
    found = compare(pairs_of(*[difference] * 40, base=4), margin=margin)
    assert (found.verdict, found.needed) == (verdict, "")


@pytest.mark.parametrize("sign", [1, -1])
def test_bounds_of_what_differs_by_more_than_one(sign: int) -> None:
    """As means of counts can, where they are no shares."""
    changes = [30, 35, 40, 45, 50, 55] * 2
    pairs = [Pair(f"p{i}", 10, 60 + sign * c, 10, 60) for i, c in enumerate(changes)]
    found = compare(pairs, alpha=0.05)
    assert found.method == "sign-flip"
    assert (found.lower, found.upper) == pytest.approx((sign * 4.25 - 0.45, sign * 4.25 + 0.45), abs=0.15)
    assert found.lower < found.difference < found.upper


def test_nothing_is_said_of_two_problems() -> None:
    assert compare(pairs_of(-1, -1)).verdict is Verdict.INCONCLUSIVE


def test_what_was_not_graded_is_left_out() -> None:
    pairs = [*pairs_of(-0.5, -0.5), Pair("x", n=0, c=0, base_n=8, base_c=8), Pair("y", 8, 8, 0, 0)]
    assert compare(pairs).problems == 2
    with pytest.raises(ValueError, match="no problem has verdicts under both"):
        compare(pairs[2:])
    with pytest.raises(ValueError, match="margin"):
        compare(pairs, margin=-0.01)


def test_more_samples_settle_what_they_were_said_to() -> None:
    """A drop of two points, first with 4 samples; then with as many as it asks for."""
    rng = np.random.default_rng(3)
    rates = rng.beta(2, 2, 400)

    def measured(n: int) -> Comparison:
        new, base = rng.binomial(n, np.clip(rates - 0.02, 0, 1)), rng.binomial(n, rates)
        return compare(
            [Pair(str(i), n, int(c), n, int(b)) for i, (c, b) in enumerate(zip(new, base, strict=True))]
        )

    first = next(found for found in iter(lambda: measured(4), None) if -0.025 < found.difference < -0.015)
    assert first.verdict is Verdict.INCONCLUSIVE
    more = int(first.needed.split()[0].replace(",", ""))
    assert "more samples per problem, or" in first.needed
    settled = sum(measured(4 + more).verdict is Verdict.REGRESSED for _ in range(40))
    assert 10 < settled < 40, "half of the time, as an estimate that is just at the bound"


def test_one_sample_says_nothing_of_more() -> None:
    outcomes = [(0, 1), (1, 0), (1, 1), (0, 0)] * 30
    pairs = [Pair(str(i), n=1, c=c, base_n=1, base_c=base) for i, (c, base) in enumerate(outcomes)]
    found = compare(pairs, margin=0.01)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.needed.endswith("more problems")
    assert "samples" not in found.needed


def test_what_is_needed_follows_from_both_variances() -> None:
    rng = np.random.default_rng(6)
    rates = rng.beta(2, 2, 150)
    new, base = rng.binomial(4, np.clip(rates - 0.01, 0, 1)), rng.binomial(8, rates)
    pairs = [Pair(str(i), 4, int(c), 8, int(b)) for i, (c, b) in enumerate(zip(new, base, strict=True))]
    # Of these the variance of sampling is not known, and they change nothing about that of the others.
    pairs += [Pair("x", 4, 1, 1, 1), Pair("y", 1, 1, 8, 3), Pair("z", 1, 0, 1, 0)]
    found = compare(pairs)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.std_err is not None
    wanted = (found.difference / stats.t.ppf(0.95, 152)) ** 2
    p, q = new / 4, base / 8
    sampling = (p * (1 - p) / 3 + q * (1 - q) / 7).mean() / 153
    problems = math.ceil(153 * (found.std_err**2 / wanted - 1))
    # The side with fewer samples says how many there are.
    samples = math.ceil(4 * (sampling / (wanted - (found.std_err**2 - sampling)) - 1))
    assert found.needed == f"{samples} more samples per problem, or {problems} more problems"


def outcomes(**counts: int) -> list[Pair]:
    """Problems with one sample each."""
    sides = {"lost": (0, 1), "won": (1, 0), "same": (1, 1)}
    each = [sides[name] for name, number in counts.items() for _ in range(number)]
    return [Pair(f"p{i}", 1, c, 1, base) for i, (c, base) in enumerate(each)]


@pytest.mark.parametrize(
    ("pairs", "needed"),
    [
        pytest.param(pairs_of(-1, -1), "more problems", id="two"),
        pytest.param(pairs_of(*[-0.25, 0.25] * 20, base=4), "more problems", id="no difference"),
        # All alike, and still too few: five signs are one of 32 patterns.
        pytest.param(pairs_of(*[-0.25] * 3), "2 more problems", id="three of five"),
        pytest.param(pairs_of(*[-0.25] * 4), "1 more problems", id="four of five"),
        pytest.param(outcomes(lost=4, same=26), "8 more problems", id="four of five that changed"),
        # The tests by signs are not quite as sharp as the error is small.
        pytest.param(outcomes(lost=6, won=1, same=43), "1 more problems", id="six of seven that changed"),
        pytest.param(outcomes(lost=30, won=29, same=241), "far more problems", id="hardly any"),
    ],
)
def test_how_many_more_problems(pairs: list[Pair], needed: str) -> None:
    found = compare(pairs)
    assert (found.verdict, found.needed) == (Verdict.INCONCLUSIVE, needed)


def test_more_samples_are_said_where_they_help() -> None:
    # Each problem did always the same: sampling adds nothing.
    found = compare([Pair(f"p{i}", 8, 8 * (7 <= i < 100), 8, 8 * (i < 95)) for i in range(180)])
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.needed.endswith(" more problems (more samples alone would not do)")
    # Less spread than sampling alone would make: nothing but sampling is in it.
    found = compare([Pair(f"p{i}", 8, 4 + (-1) ** i, 8, 4 + (i % 40 == 0)) for i in range(200)])
    assert found.std_err is not None
    assert found.std_err**2 < 2 * 0.25 / 7 / 200
    wanted = (found.difference / stats.t.ppf(0.95, 199)) ** 2
    assert found.needed.startswith(f"{_of_sampling(wanted)} more samples per problem, or ")
    # So far from settled that nobody would ask as often.
    found = compare([Pair(f"p{i}", 8, 4 + (-1) ** i, 8, 4 + (i == 0)) for i in range(1000)])
    assert (found.verdict, found.needed) == (Verdict.INCONCLUSIVE, "far more problems")


def _of_sampling(wanted: float) -> int:
    """More than eight samples of each of 200 problems, as in the test above, for an error of so much."""
    news, bases = [3 / 8, 5 / 8], [5 / 8] + [4 / 8] * 39
    each = np.mean([p * (1 - p) / 7 for p in news]) + np.mean([p * (1 - p) / 7 for p in bases])
    return math.ceil(8 * (each / 200 / wanted - 1))


def test_sums_without_a_common_measure_are_rounded() -> None:
    """Of problems with other numbers of samples each: close to exact, and in little memory."""
    sizes = [3, 5, 7, 8, 11, 13, 9, 10, 12, 6]
    pairs = [Pair(f"p{n}", n, n // 3, n, (n + 1) // 2) for n in sizes]
    tracemalloc.start()
    found = compare(pairs, margin=0.03)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    values = [pair.difference + Fraction("0.03") for pair in pairs]
    patterns = [
        sum(s * v for s, v in zip(signs, values, strict=True))
        for signs in itertools.product((1, -1), repeat=10)
    ]
    assert found.p_worse == pytest.approx(np.mean([it <= sum(values) for it in patterns]), abs=2 / 1024)
    assert found.p_fine == pytest.approx(np.mean([it >= sum(values) for it in patterns]), abs=2 / 1024)
    assert peak < 10e6


def test_bounds_of_large_clusters_are_shares() -> None:
    pairs = [Pair(f"p{i}", 8, 0, 8, 8, f"c{i % 2}") for i in range(10)]
    assert (compare(pairs).lower, compare(pairs).upper) == (-1, 1)


def test_all_nights_together_spend_alpha() -> None:
    assert spent(0.05, 1) == pytest.approx(0.0304, abs=1e-4)
    assert math.fsum(spent(0.05, night) for night in range(1, 100_000)) == pytest.approx(0.05, abs=1e-6)


def test_holm_over_the_critical_and_benjamini_hochberg_over_the_others() -> None:
    p_values = {"a": 0.01, "b": 0.04, "c": 0.03, "x": 0.01, "y": 0.04, "z": 0.03}
    found = adjusted(p_values, ["a", "b", "c"])
    assert list(found) == list(p_values)
    # Holm: 3 · 0.01, 2 · 0.03, then never less than the one before.
    assert [found[name] for name in "acb"] == pytest.approx([0.03, 0.06, 0.06])
    # Benjamini–Hochberg: p · m/rank, from the largest down.
    assert [found[name] for name in "xzy"] == pytest.approx([0.03, 0.04, 0.04])
    assert adjusted({"a": 0.9, "b": 0.8}, ["a", "b"]) == {"a": 1.0, "b": 1.0}


def test_a_verdict_holds_for_all_together() -> None:
    alone = compare(pairs_of(*[-0.25] * 5, *[0.125]), alpha=0.05)
    assert alone.verdict is Verdict.REGRESSED
    several = together({str(i): alone for i in range(12)}, critical=[str(i) for i in range(12)])
    assert {found.verdict for found in several.values()} == {Verdict.INCONCLUSIVE}
    assert several["0"].p_worse == pytest.approx(12 * alone.p_worse)
    assert all(re.fullmatch(r"[1-9]\d* more problems", found.needed) for found in several.values())
    # What was fine alone stays so.
    fine = compare(pairs_of(*[0.125] * 40), margin=0.01)
    assert together({"a": fine}, critical=["a"])["a"].verdict is Verdict.OK


@pytest.mark.parametrize(("c", "base_c"), [(0, 0), (4, 4), (0, 4), (4, 0)])
@pytest.mark.parametrize("problems", [1, 2, 3, 4])
def test_what_is_needed_is_never_less_than_nothing(problems: int, c: int, base_c: int) -> None:
    found = compare([Pair(f"p{i}", 4, c, 4, base_c) for i in range(problems)], margin=0.01)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert re.fullmatch(r"([1-9]\d* )?more problems", found.needed)


def test_what_would_be_enough_for_all_together_is() -> None:
    """As many problems more as it says, of the same kind, are found together with eleven that are fine."""
    rng = np.random.default_rng(11)

    def drawn(problems: int) -> Comparison:
        base, new = rng.binomial(8, 0.6, problems), rng.binomial(8, 0.55, problems)
        return compare([Pair(str(i), 8, int(new[i]), 8, int(base[i])) for i in range(problems)])

    fine = {str(i): compare(pairs_of(*[0.125, 0.0] * 60)) for i in range(11)}
    names = [*fine, "a"]
    settled = []
    while len(settled) < 40:
        alone = drawn(150)
        first = together({**fine, "a": alone}, critical=names)["a"]
        if alone.verdict is Verdict.REGRESSED and first.verdict is Verdict.INCONCLUSIVE:
            more = int(first.needed.split()[0])
            again = together({**fine, "a": drawn(150 + more)}, critical=names)["a"]
            settled.append(again.verdict is Verdict.REGRESSED)
    assert sum(settled) >= 16
