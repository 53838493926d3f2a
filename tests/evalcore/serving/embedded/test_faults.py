from __future__ import annotations

import pytest

from evalcore.errors import ConfigError
from evalcore.serving.embedded.faults import Faults


def hits(spec: str, requests: int = 10) -> list[str | None]:
    faults = Faults(spec)
    return [rule.kind if (rule := faults.next()) else None for _ in range(requests)]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", [None] * 10),
        ("hang", ["hang"] * 10),
        ("429:first=2", ["429"] * 2 + [None] * 8),
        ("500:every=4", [None, None, None, "500", None, None, None, "500", None, None]),
        ("die:after=8", [None] * 8 + ["die"] * 2),
        ("429:first=1, 500:first=2,drop:every=5", ["429", "500", None, None, "drop"] + [None] * 4 + ["drop"]),
    ],
)
def test_which_requests_are_hit(spec: str, expected: list[str | None]) -> None:
    assert hits(spec) == expected


def test_probability_is_kept_and_repeats() -> None:
    found = hits("429:0.1", 2000)
    assert 150 < found.count("429") < 250
    assert found == hits("429:0.1", 2000)


def test_rules_of_the_same_probability_hit_different_requests() -> None:
    found = hits("429:0.5,500:0.5", 2000)
    assert 400 < found.count("500") < 600


def test_options() -> None:
    (rule,) = Faults("429:every=2:retry_after=0.05").rules
    assert (rule.when, rule.value, rule.amount) == ("every", 2, 0.05)
    (rule,) = Faults("delay:seconds=0.5").rules
    assert (rule.when, rule.value, rule.amount) == ("every", 1, 0.5)
    (rule,) = Faults("hold:after=10:file=/tmp/seed=1/hold").rules
    assert (rule.when, rule.value, rule.file) == ("after", 10, "/tmp/seed=1/hold")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("explode", "'explode'; valid: 429, 500, 503, hang"),
        ("429:sometimes", "'sometimes' is not a number"),
        ("hang:retry_after=3", "'retry_after'; valid: probability, every, first, after$"),
        ("429:seconds=3", "'seconds'; valid: .*retry_after"),
        ("429:1.5", "out of range"),
        ("429:every=0", "out of range"),
        ("429:every=2.5", "out of range"),
        ("delay:seconds=-1", "out of range"),
        ("delay:seconds=nan", "out of range"),
        ("hold:after=3", "file=PATH is missing"),
        ("hold:seconds=3", "'seconds'; valid: .*after, file$"),
        ("hang:file=x", "'file=x' is not a number"),
    ],
)
def test_bad_specs(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Faults(spec)
