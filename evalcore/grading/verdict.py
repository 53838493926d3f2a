"""What a grader says of one answer."""

from __future__ import annotations

from typing import Any, NamedTuple

Options = dict[str, Any]
"""A benchmark's grader options, as in its YAML: ``{"extract": "relaxed"}``."""


class Extraction(NamedTuple):
    """The answer found in a response, or None and the reason why there is none."""

    answer: str | None
    reason: str


class Equality(NamedTuple):
    """Whether an answer equals the reference; None: undecided. reason: the stage that decided, or why not."""

    equal: bool | None
    reason: str


NEEDS_ALGEBRA = "needs algebra"
"""The reason of what only the last stage can decide."""
