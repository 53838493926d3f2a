"""Each formula against brute-force enumeration of what it claims to be."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalcore.metrics import Estimate, both, either, majority_at_k, mean, no_answer_at_k, pass_at_k

VERDICTS = [True, False, None]


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.integers(1, 9))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(correct: list[bool], k: int) -> None:
    value = pass_at_k(len(correct), sum(correct), k)
    if k > len(correct):
        assert math.isnan(value)
    else:
        assert value == pytest.approx(statistics.mean(map(any, itertools.combinations(correct, k))))


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (1, 0, 1, 0.0),
        (64, 64, 64, 1.0),
        (64, 1, 64, 1.0),
        (64, 0, 64, 0.0),
        (4, 1, 2, 0.5),
        (200, 7, 1, 7 / 200),
        (0, 0, 1, math.nan),
        # Where a binomial coefficient overflows a float: 1 − (1 − 1/2)·…
        (5000, 1, 2500, 0.5),
        (5000, 2500, 1, 0.5),
    ],
)
def test_pass_at_k_values(n: int, c: int, k: int, expected: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(st.integers(1, 400), st.data())
def test_pass_at_k_equals_the_exact_fraction(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert pass_at_k(n, c, k) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k), abs=1e-9)


@pytest.mark.parametrize(("n", "c", "k"), [(2, 3, 1), (2, -1, 1), (2, 1, 0)])
def test_pass_at_k_refuses_nonsense(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@k needs"):
        pass_at_k(n, c, k)


def vote(answers: tuple[str | None, ...], score: dict[str, float]) -> float:
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    tied = [answer for answer, count in votes.items() if count == max(votes.values())]
    return statistics.mean(score[answer] for answer in tied)


@given(
    st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=9),
    st.fixed_dictionaries({name: st.sampled_from([0.0, 0.5, 1.0]) for name in "abcd"}),
    st.integers(1, 10),
)
def test_majority_is_the_mean_vote_over_all_subsets(
    answers: list[str | None], score: dict[str, float], k: int
) -> None:
    votes = Counter(answer for answer in answers if answer is not None)
    value = majority_at_k([(v, score[a]) for a, v in votes.items()], answers.count(None), k)
    if k > len(answers):
        assert math.isnan(value)
    else:
        subsets = itertools.combinations(answers, k)
        assert value == pytest.approx(statistics.mean(vote(subset, score) for subset in subsets))


def test_a_tie_scores_the_mean_of_the_tied() -> None:
    assert majority_at_k([(2, 1.0), (2, 0.0), (1, 1.0)], missing=3, k=8) == 0.5


def test_nobody_answered_scores_nothing() -> None:
    assert majority_at_k([], missing=4, k=4) == 0.0


def test_majority_at_1_is_the_mean_over_samples() -> None:
    assert majority_at_k([(300, 1.0), (500, 0.0)], missing=200, k=1) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("groups", "k", "expected"),
    [
        ([(3, 1.0), (1, math.nan)], 4, 1.0),  # the unknown answer cannot win
        ([(2, 1.0), (2, math.nan)], 4, math.nan),
        ([(1, 0.0), (3, math.nan)], 4, math.nan),
        ([(3, 1.0), (1, math.nan)], 2, math.nan),  # it can in a subset of two
        ([(5, 1.0), (1, math.nan)], 4, 1.0),
    ],
)
def test_an_unknown_grade_counts_only_where_it_decides(
    groups: list[tuple[int, float]], k: int, expected: float
) -> None:
    assert majority_at_k(groups, missing=0, k=k) == pytest.approx(expected, nan_ok=True)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(1, 8))
def test_no_answer_is_the_share_of_subsets_without_an_answer(answered: list[bool], k: int) -> None:
    value = no_answer_at_k(len(answered), sum(answered), k)
    if k <= len(answered):
        subsets = [not any(subset) for subset in itertools.combinations(answered, k)]
        assert value == pytest.approx(statistics.mean(subsets), abs=1e-12)
    else:
        assert math.isnan(value)


@pytest.mark.parametrize(("symbolic", "judge"), list(itertools.product(VERDICTS, VERDICTS)))
def test_both_and_either_are_known_only_when_every_outcome_agrees(
    symbolic: bool | None, judge: bool | None
) -> None:
    outcomes = [
        (s, j)
        for s in ([symbolic] if symbolic is not None else [True, False])
        for j in ([judge] if judge is not None else [True, False])
    ]
    for combine, logic in ((both, all), (either, any)):
        possible = {logic(outcome) for outcome in outcomes}
        assert combine(symbolic, judge) == (possible.pop() if len(possible) == 1 else None)


@given(st.lists(st.tuples(st.sampled_from(VERDICTS), st.sampled_from(VERDICTS)), min_size=1, max_size=12))
def test_both_is_at_most_each_and_either_at_least_each_whatever_is_missing(
    grades: list[tuple[bool | None, bool | None]],
) -> None:
    def share(verdicts: list[bool | None]) -> float | None:
        known = [verdict for verdict in verdicts if verdict is not None]
        return statistics.mean(known) if known else None

    lower, upper = share([both(s, j) for s, j in grades]), share([either(s, j) for s, j in grades])
    for single in (share([s for s, _ in grades]), share([j for _, j in grades])):
        if single is not None:
            assert lower is None or lower <= single + 1e-12
            assert upper is None or upper >= single - 1e-12


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_std_err_of_independent_problems(values: list[float]) -> None:
    estimate = mean(values)
    assert estimate is not None
    assert estimate.value == pytest.approx(statistics.mean(values), abs=1e-9)
    assert estimate.std_err == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)), abs=1e-9)


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=4), min_size=2, max_size=8))
def test_clustered_std_err_is_the_double_sum_over_pairs_that_share_a_source(
    groups: list[list[float]],
) -> None:
    pairs = [(x, source) for source, xs in enumerate(groups) for x in xs]
    n, centre = len(pairs), statistics.mean(x for x, _ in pairs)
    total = sum((x - centre) * (y - centre) for x, a in pairs for y, b in pairs if a == b)
    expected = math.sqrt(max(0.0, total) * len(groups) / (len(groups) - 1)) / n
    estimate = mean([x for x, _ in pairs], [source for _, source in pairs])
    assert estimate is not None
    assert estimate.std_err == pytest.approx(expected, abs=1e-7)


def test_copies_of_a_problem_add_no_certainty_when_clustered() -> None:
    once, twice = mean([0.0, 1.0, 1.0, 0.0]), mean([0.0, 1.0, 1.0, 0.0] * 2, [*"abcd", *"abcd"])
    naive = mean([0.0, 1.0, 1.0, 0.0] * 2)
    assert once == Estimate(0.5, once.std_err if once else None, 4)
    assert twice is not None
    assert naive is not None
    assert twice.std_err == pytest.approx(once.std_err)
    assert naive.std_err is not None
    assert naive.std_err < (twice.std_err or 0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        ([math.nan], None),
        ([0.25], Estimate(0.25, None, 1)),
        ([0.0, math.nan, 1.0], Estimate(0.5, 0.5, 2)),
    ],
)
def test_unknown_values_are_left_out_of_a_mean(values: list[float], expected: Estimate | None) -> None:
    assert mean(values) == expected


def test_one_cluster_has_no_error_bar() -> None:
    assert mean([0.0, 1.0], ["same", "same"]) == Estimate(0.5, None, 2)
