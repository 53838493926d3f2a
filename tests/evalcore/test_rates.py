"""Rates beside the verdict: which way each alarms, by how much, and all of them as one family."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalcore.comparison import FEW, Verdict
from evalcore.counts import ANSWERED, FAILED, REPEATED, TOKENS, TRUNCATED, UNPARSABLE, Pair
from evalcore.rates import LONGER, MARGINS, SHORTER, Rate, RateKind, alarms, rates_of

SHARES = {
    TRUNCATED: RateKind.TRUNCATION,
    REPEATED: RateKind.REPETITION,
    UNPARSABLE: RateKind.JUDGE_UNPARSABLE,
    FAILED: RateKind.SERVER_ERRORS,
}
SAMPLES = 8


def pairs(new: Sequence[int], base: Sequence[int], n: int = SAMPLES) -> list[Pair]:
    return [Pair(f"p{i}", n, c, n, b) for i, (c, b) in enumerate(zip(new, base, strict=True))]


def only(columns: dict[str, list[Pair]], alpha: float = 0.05) -> Rate:
    [rate] = rates_of(columns, alpha=alpha)
    return rate


def test_their_names_are_those_of_the_historys_alarms() -> None:
    from evalcore.history.alarms import Kind

    assert {kind.value for kind in RateKind} == {kind.value for kind in Kind} - {"regression", "canary"}


@pytest.mark.parametrize("problems", [40, 2 * FEW])
@pytest.mark.parametrize("column", SHARES)
def test_a_share_alarms_where_it_rises(column: str, problems: int) -> None:
    rare, often = [0, 1] * (problems // 2), [2, 3] * (problems // 2)
    rose = only({column: pairs(often, rare)})
    assert (rose.kind, rose.is_alarm, rose.value, rose.base_value) == (SHARES[column], True, 2.5 / 8, 0.5 / 8)
    assert (rose.found.difference, rose.found.margin) == (pytest.approx(-0.25), MARGINS[rose.kind])
    fell = only({column: pairs(rare, often)})
    assert (fell.is_alarm, fell.found.verdict, fell.found.difference) == (False, Verdict.OK, 0.25)
    assert str(rose).startswith(f"{rose.kind} 6.25% → 31.25% (p = ")


def test_answers_are_counted_the_other_way_round() -> None:
    lost = only({ANSWERED: pairs([6] * 40, [8] * 40)})
    assert (lost.kind, lost.is_alarm, lost.value, lost.base_value) == (RateKind.NO_ANSWER, True, 0.25, 0.0)
    assert not only({ANSWERED: pairs([8] * 40, [6] * 40)}).is_alarm
    allowed = round(1000 * (1 - MARGINS[RateKind.NO_ANSWER]))
    assert not only({ANSWERED: pairs([allowed] * 300, [1000] * 300, n=1000)}).is_alarm
    assert only({ANSWERED: pairs([allowed - 1] * 300, [1000] * 300, n=1000)}).is_alarm


@pytest.mark.parametrize("column", [*SHARES, ANSWERED, TOKENS])
def test_each_is_tested_at_the_level_of_the_night(column: str) -> None:
    assert only({column: pairs([3] * 9, [2] * 9)}, alpha=0.01).found.alpha == 0.01


def test_a_server_that_fails_is_no_model_that_does_not_answer() -> None:
    answered, failed = pairs([6] * 40, [8] * 40), pairs([2] * 40, [0] * 40)
    no_answer, server = rates_of({ANSWERED: answered, FAILED: failed})
    assert (no_answer.kind, no_answer.value, no_answer.is_alarm) == (RateKind.NO_ANSWER, 0.0, False)
    assert (server.kind, server.value, server.is_alarm) == (RateKind.SERVER_ERRORS, 0.25, True)
    # Nothing is known of how a model answers that never was asked; and of the baseline likewise.
    dead = pairs([8] * 40, [0] * 40)
    assert [it.kind for it in rates_of({ANSWERED: pairs([0] * 40, [8] * 40), FAILED: dead})] == [server.kind]
    ungraded = [Pair(f"p{i}", 2, 2, 2, 2) for i in range(40)]
    for lost in (failed, pairs([0] * 40, [2] * 40)):
        no_answer = rates_of({ANSWERED: ungraded, FAILED: lost})[0]
        assert (no_answer.kind, no_answer.value, no_answer.base_value) == (RateKind.NO_ANSWER, 0.0, 0.0)
    [no_answer, _] = rates_of({ANSWERED: pairs([6] * 40, [4] * 40), FAILED: pairs([0] * 40, [4] * 40)})
    assert (no_answer.value, no_answer.base_value, no_answer.is_alarm) == (0.25, 0.0, True)


@pytest.mark.parametrize("column", SHARES)
def test_as_much_more_as_is_fine_is_no_alarm(column: str) -> None:
    base, margin = [100] * 300, round(1000 * MARGINS[SHARES[column]])
    assert not only({column: pairs([100 + margin] * 300, base, n=1000)}).is_alarm
    assert only({column: pairs([101 + margin] * 300, base, n=1000)}).is_alarm


def test_how_much_is_fine() -> None:
    """Who changes these changes who is told of what, and says so here and in the changelog."""
    assert {str(kind): margin for kind, margin in MARGINS.items()} == {
        "no_answer": 0.02,
        "truncation": 0.02,
        "repetition": 0.01,
        "judge_unparsable": 0.01,
        "server_errors": 0.01,
    }
    assert (LONGER, SHORTER) == (0.25, 0.5)


def test_a_length_is_not_said_to_want_more_samples() -> None:
    """What would settle it is said of the contrasts, in which samples are parts of a thousand."""
    rate = only({TOKENS: pairs([9, 10, 14, 13, 8, 12, 15, 11], [10] * 8)})
    assert (rate.found.verdict, rate.found.needed) == (Verdict.INCONCLUSIVE, "")


def lengths(problems: int, factor: float, seed: int = 1) -> list[Pair]:
    """Of answers to problems that need more and fewer tokens, as real ones are spread."""
    rng = np.random.default_rng(seed)
    mean = rng.lognormal(6, 0.8, problems)

    def tokens(factor: float) -> list[int]:
        drawn = rng.lognormal(np.log(mean * factor)[:, None], 0.5, (problems, SAMPLES))
        return [int(total) for total in drawn.sum(axis=1)]

    return pairs(tokens(factor), tokens(1.0))


@pytest.mark.parametrize("problems", [30, 2 * FEW])
@pytest.mark.parametrize(
    ("factor", "is_alarm"), [(0.1, True), (0.25, True), (0.6, False), (1.0, False), (1.2, False), (2.0, True)]
)
def test_a_length_alarms_where_it_is_another(problems: int, factor: float, is_alarm: bool) -> None:
    rate = only({TOKENS: lengths(problems, factor)})
    assert (rate.kind, rate.is_alarm) == (RateKind.LENGTH, is_alarm)
    ratio = rate.value / rate.base_value
    assert ratio == pytest.approx(factor, rel=0.2)
    # As far as parts of a thousand tell.
    assert rate.found.difference == pytest.approx(-abs(ratio - 1), abs=0.001)
    below, above = rate.found.difference - rate.found.lower, rate.found.upper - rate.found.difference
    assert min(below, above) > 0
    if problems >= FEW:
        assert below == pytest.approx(above)
    assert rate.found.margin == (LONGER if ratio > 1 else SHORTER)
    assert "tokens (p = " in str(rate)


def test_as_much_longer_or_shorter_as_is_fine_is_no_alarm() -> None:
    base = [1000] * 300
    for fine, alarming in ((1250, 1260), (500, 490)):
        assert not only({TOKENS: pairs([fine] * 300, base)}).is_alarm
        assert only({TOKENS: pairs([alarming] * 300, base)}).is_alarm


def test_the_direction_that_is_seen_is_one_of_two_tests() -> None:
    """Of five problems that are all longer one pattern of signs in 32 is so bad, and the alarm's p twice that."""
    assert only({TOKENS: pairs([2000] * 5, [1000] * 5)}).found.p_worse == pytest.approx(2 / 32)
    assert only({TOKENS: pairs([100] * 5, [1000] * 5)}).found.p_worse == pytest.approx(2 / 32)


def test_what_one_side_lacks_is_not_compared() -> None:
    assert rates_of({}) == ()
    assert rates_of({"symbolic_correct": pairs([1] * 40, [8] * 40)}) == ()
    # Not one problem that has counts on both sides, and a length that nothing can be a share of.
    assert rates_of({REPEATED: [Pair("a", 0, 0, 8, 4), Pair("b", 8, 8, 0, 0)]}) == ()
    assert rates_of({TOKENS: pairs([50] * 40, [0] * 40)}) == ()
    assert only({REPEATED: [*pairs([8] * 40, [0] * 40), Pair("x", 0, 0, 8, 4)]}).found.problems == 40


def test_problems_of_one_cluster_are_one_observation() -> None:
    for column, base in ((TRUNCATED, 0), (TOKENS, 2), (ANSWERED, 8)):
        clustered = [Pair(f"p{i}", 8, 7, 8, base, f"c{i % 5}") for i in range(200)]
        assert only({column: clustered}).found.clusters == 5


COUNTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12)


@given(COUNTS, st.sampled_from(sorted(SHARES)))
@settings(deadline=None, max_examples=60)
def test_more_of_it_is_never_less_of_an_alarm(counts: list[tuple[int, int]], column: str) -> None:
    new, base = [c for c, _ in counts], [b for _, b in counts]
    before = only({column: pairs(new, base, n=4)})
    after = only({column: pairs([min(4, c + 1) for c in new], base, n=4)})
    assert before.found.difference == pytest.approx(before.base_value - before.value)
    assert after.found.p_worse <= before.found.p_worse + 1e-9
    assert not only({column: pairs(base, base, n=4)}).is_alarm


def test_all_of_them_are_one_family() -> None:
    alone = only({TRUNCATED: pairs([1] * 6, [0] * 6)})
    assert alone.is_alarm
    several = alarms(
        {f"b{i}": [alone] if not i else rates_of({TRUNCATED: pairs([0], [0])}) for i in range(9)}
    )
    assert (several["b0"][0].is_alarm, several["b0"][0].found.p_worse) == (
        False,
        pytest.approx(9 * alone.found.p_worse),
    )
    # Benjamini–Hochberg: what is seen everywhere is more credible, not less.
    everywhere = alarms({f"b{i}": [alone] for i in range(9)})
    assert all(rate.is_alarm for rates in everywhere.values() for rate in rates)
    assert alarms({"toy": ()}) == {"toy": ()}
    strictly = alarms({"toy": [alone]}, alpha=0.01)["toy"][0]
    assert (strictly.is_alarm, alarms({"toy": [alone]})["toy"][0].is_alarm) == (False, True)


@pytest.mark.slow
def test_nothing_alarms_where_nothing_has_changed() -> None:
    """Suites of six benchmarks under a model that is the same: hardly ever one alarms."""
    rng = np.random.default_rng(5)
    alarmed = 0
    for trial in range(20):
        suite = {}
        for number, size in enumerate((20, 30, 40, 120, 150, 200)):
            rates = rng.beta(0.2, 2.0, size)
            drawn = {column: rng.binomial(SAMPLES, rates, (2, size)).tolist() for column in SHARES}
            columns = {column: pairs(*both) for column, both in drawn.items()}
            columns[TOKENS] = lengths(size, 1.0, seed=100 * trial + number)
            suite[str(number)] = rates_of(columns)
        alarmed += any(rate.is_alarm for rates in alarms(suite).values() for rate in rates)
    assert alarmed <= 1
