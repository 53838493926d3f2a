"""Signs that something broke, beside the verdict: answers missing, cut off, repeating themselves, longer …

>>> [(it.kind, it.base_value, it.value) for it in rates_of(pairs) if it.is_alarm]
[(<RateKind.TRUNCATION: 'truncation'>, 0.021, 0.14)]

Each is compared by ``comparison`` as correct answers are, on the share of samples without the trouble. All that are
compared at one time are a family of their own (``alarms``): they cost the verdicts no power. Where one side lacks
the counts, as what earlier versions summarized does, that rate is not compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from evalcore.comparison import ALPHA, Comparison, Verdict, compare, together
from evalcore.counts import ANSWERED, FAILED, REPEATED, TOKENS, TRUNCATED, UNPARSABLE, Pair


class RateKind(StrEnum):
    """no_answer: samples in which no answer was found, of those that are no server_errors.

    truncation: answers cut off at the token limit. length: tokens of an answer. repetition: answers that end in a
    loop. judge_unparsable: judgements without a verdict. server_errors: samples that never got an answer.
    """

    NO_ANSWER = "no_answer"
    TRUNCATION = "truncation"
    LENGTH = "length"
    REPETITION = "repetition"
    JUDGE_UNPARSABLE = "judge_unparsable"
    SERVER_ERRORS = "server_errors"


_COLUMNS = {
    RateKind.NO_ANSWER: ANSWERED,
    RateKind.TRUNCATION: TRUNCATED,
    RateKind.LENGTH: TOKENS,
    RateKind.REPETITION: REPEATED,
    RateKind.JUDGE_UNPARSABLE: UNPARSABLE,
    RateKind.SERVER_ERRORS: FAILED,
}

MARGINS = {
    RateKind.NO_ANSWER: 0.02,
    RateKind.TRUNCATION: 0.02,
    RateKind.REPETITION: 0.01,
    RateKind.JUDGE_UNPARSABLE: 0.01,
    RateKind.SERVER_ERRORS: 0.01,
}
"""How much more of it is still fine, as a share of samples.

Two points where training itself moves it from step to step: longer answers are cut off more often and then have no
answer. One point of what a sound checkpoint, judge or server hardly ever does.
"""

LONGER = 0.25
"""How much longer the answers may be on average. Training makes them longer slowly; a quarter more from one
comparison to the next is a quarter more of the evaluation's cost, and how overlong reasoning begins."""

SHORTER = 0.5
"""How much shorter. Half of it gone is no better style: a template is broken, or reasoning has been lost."""

_PARTS = 1000
"""Lengths are compared in so many parts of the baseline's mean."""


@dataclass(frozen=True, slots=True)
class Rate:
    """One rate of one benchmark under both checkpoints.

    value, base_value: means over the problems that both have, as shares of samples; of length, tokens.
    found: of the share of samples that are fine, so that **regressed** says the rate rose by more than its margin,
    and ``difference`` is how much it fell. Of length ``difference`` is a share of the baseline's mean, negative
    where the answers have become longer, or shorter, than fits, whichever they did.
    """

    kind: RateKind
    value: float
    base_value: float
    found: Comparison

    @property
    def is_alarm(self) -> bool:
        return self.found.verdict is Verdict.REGRESSED

    def __str__(self) -> str:
        if self.kind is RateKind.LENGTH:
            change = f"{self.base_value:,.0f} → {self.value:,.0f} tokens"
        else:
            change = f"{self.base_value:.2%} → {self.value:.2%}"
        return f"{self.kind} {change} (p = {self.found.p_worse:.2g})"


def rates_of(pairs: Mapping[str, Sequence[Pair]], *, alpha: float = ALPHA) -> tuple[Rate, ...]:
    """The rates of one benchmark, each tested alone. pairs: by column of the counts, those that both sides have."""
    found = []
    for kind, column in _COLUMNS.items():
        counted = pairs.get(column, ())
        if kind is RateKind.NO_ANSWER:
            counted = _without_failed(counted, pairs.get(FAILED, ()))
        known = [pair for pair in counted if pair.n and pair.base_n]
        if not known:
            continue
        value = sum(pair.c / pair.n for pair in known) / len(known)
        base_value = sum(pair.base_c / pair.base_n for pair in known) / len(known)
        if kind is RateKind.NO_ANSWER:
            value, base_value = 1 - value, 1 - base_value
            comparison = compare(known, margin=MARGINS[kind], alpha=alpha)
        elif kind is RateKind.LENGTH:
            if not base_value:
                continue  # nothing is longer than nothing by a share of it
            comparison = _length(known, base_value, value >= base_value, alpha)
        else:
            fine = [it._replace(c=it.n - it.c, base_c=it.base_n - it.base_c) for it in known]
            comparison = compare(fine, margin=MARGINS[kind], alpha=alpha)
        found.append(Rate(kind, value, base_value, comparison))
    return tuple(found)


def _without_failed(answered: Sequence[Pair], failed: Sequence[Pair]) -> list[Pair]:
    """Of samples that a server answered: one trouble shall not alarm as two."""
    lost = {pair.problem: (pair.c, pair.base_c) for pair in failed}
    found = []
    for pair in answered:
        new, base = lost.get(pair.problem, (0, 0))
        # Not all that failed need be graded.
        found.append(pair._replace(n=max(pair.c, pair.n - new), base_n=max(pair.base_c, pair.base_n - base)))
    return found


def _length(pairs: Sequence[Pair], unit: float, is_longer: bool, alpha: float) -> Comparison:
    """Whether answers are longer, or else shorter, than fits: the ratio of two means against 1 ± margin.

    By the contrast of each problem, new − (1 ± margin)·base, whose mean is 0 where the ratio is that (Fieller 1954):
    so the margin is each problem's own, and the baseline's mean is not taken for known.
    """
    margin, bound = (LONGER, 1 + LONGER) if is_longer else (SHORTER, 1 - SHORTER)
    contrasts = []
    for pair in pairs:
        new = round(pair.c / pair.n / unit * _PARTS)
        allowed = round(pair.base_c / pair.base_n / unit * bound * _PARTS)
        less, more = (allowed, new) if is_longer else (new, allowed)
        contrasts.append(pair._replace(n=_PARTS, c=less, base_n=_PARTS, base_c=more))
    found = compare(contrasts, alpha=alpha)
    return replace(
        found,
        difference=found.difference - margin,
        lower=found.lower - margin,
        upper=found.upper - margin,
        margin=margin,
        # The direction was chosen by what is seen: of two tests, the likelier to alarm (Bonferroni).
        p_worse=min(1.0, 2 * found.p_worse),
        needed="",
    )


def alarms(rates: Mapping[str, Sequence[Rate]], *, alpha: float = ALPHA) -> dict[str, tuple[Rate, ...]]:
    """The same rates, by benchmark, with verdicts that hold for all of them together.

    By Benjamini–Hochberg: of the alarms of one comparison a share of at most alpha is false, and where nothing has
    changed there is one at all with probability alpha at most.
    """
    single = {f"{it.kind}/{name}": it.found for name, several in rates.items() for it in several}
    found = together(single, critical=(), alpha=alpha)
    return {
        name: tuple(replace(it, found=found[f"{it.kind}/{name}"]) for it in several)
        for name, several in rates.items()
    }
