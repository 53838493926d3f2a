"""Misbehaviour on demand, so that tests of clients meet what real servers do on a bad day.

A spec is a list of rules, ``kind[:when][:option=value]``, the first that matches a request decides:

    429:0.1                          a tenth of the requests: rate limited, Retry-After 1 s
    500:first=3,hang:every=50        the first three fail, then every 50th is never answered
    429:every=2:retry_after=0.05     Retry-After of 50 ms
    delay:seconds=0.5                every answer comes half a second late
    hold:after=10:file=/tmp/hold     from the 11th request on, no answer for as long as that file is there
    die:after=100                    kills the server on the 101st request

Only requests for completions count, in order of arrival. The same spec gives the same faults.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal, cast, get_args

from evalcore.errors import ConfigError

Kind = Literal["429", "500", "503", "hang", "drop", "truncate", "ignore_n", "delay", "hold", "die"]
When = Literal["probability", "every", "first", "after"]

_OPTIONS = {"429": ("retry_after", 1.0), "503": ("retry_after", 1.0), "delay": ("seconds", 1.0)}


@dataclass(frozen=True)
class Rule:
    """One line of misbehaviour; ``amount`` is retry_after or seconds, ``file`` hold's: of kinds that have one."""

    kind: Kind
    when: When
    value: float
    amount: float
    file: str = ""

    def applies(self, request: int, chance: float) -> bool:
        """Whether it hits the ``request``-th request (from 1); ``chance`` is drawn from [0, 1)."""
        if self.when == "probability":
            return chance < self.value
        if self.when == "every":
            return request % int(self.value) == 0
        return request <= self.value if self.when == "first" else request > self.value


class Faults:
    """The rules of a spec and the count of requests seen."""

    def __init__(self, spec: str = "") -> None:
        """Raises ConfigError if the spec has an unknown kind, condition or option."""
        self.rules = [_parse(text.strip()) for text in spec.split(",") if text.strip()]
        self.requests = 0

    def next(self) -> Rule | None:
        """Count one more request; return the rule that it falls under."""
        self.requests += 1
        for index, rule in enumerate(self.rules):
            chance = random.Random(f"{index}/{self.requests}").random()
            if rule.applies(self.requests, chance):
                return rule
        return None


def _parse(text: str) -> Rule:
    kind, *fields = text.split(":")
    if kind not in get_args(Kind):
        raise ConfigError(f"fault {text!r}: unknown kind {kind!r}; valid: {', '.join(get_args(Kind))}")
    when, value = "every", 1.0
    option, amount = _OPTIONS.get(kind, ("", 0.0))
    file = ""
    for field in fields:
        name, _, number = field.rpartition("=")
        if kind == "hold" and field.startswith("file="):
            file = field.removeprefix("file=")  # which may have a = in it
            continue
        try:
            parsed = float(number)
        except ValueError:
            raise ConfigError(f"fault {text!r}: {field!r} is not a number or name=number") from None
        if name and name == option:
            amount = parsed
        elif name in ("", *get_args(When)):
            when, value = name or "probability", parsed
        else:
            valid = [*get_args(When), *([option] if option else []), *(["file"] if kind == "hold" else [])]
            raise ConfigError(f"fault {text!r}: unknown option {name!r}; valid: {', '.join(valid)}")
    in_range = 0 <= value <= 1 if when == "probability" else value >= 1 and value % 1 == 0
    if not in_range or not 0 <= amount < math.inf:
        raise ConfigError(
            f"fault {text!r}: out of range; a probability is 0 to 1, a count a whole number from 1, "
            "and a time not negative"
        )
    if kind == "hold" and not file:
        raise ConfigError(f"fault {text!r}: file=PATH is missing")
    return Rule(cast(Kind, kind), cast(When, when), value, amount, file)
