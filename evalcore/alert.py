"""What an alert says: the verdict in a sentence, both results in a table, the problems that changed most, links.

>>> said = message(history, alarms.get([3]), {"DAG run": "https://airflow.example.com/dags/…"})
>>> said.title
'llama-8b/step-1500: worse on gsm8k'

The same in Markdown, HTML and plain text (``templates/``), since channels differ in what they show. Names and
reasons are from outside: they stand as code, without what would steer whatever shows them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import Environment, PackageLoader

from evalcore.compare import HEADER, MARGIN, Compared, aligned, cells, compare_recorded, flip
from evalcore.comparison import Verdict
from evalcore.counts import Pair
from evalcore.history.alarms import Alarm, Kind, State
from evalcore.regression import confirmation
from evalcore.terminal import without_controls

if TYPE_CHECKING:
    from evalcore.history.store import History

FLIPS = 5
_NAME, _REASON = 80, 500  # characters that are shown
_WORSE = {
    Kind.REGRESSION: "worse",
    Kind.NO_ANSWER: "fewer answers",
    Kind.TRUNCATION: "more answers cut off",
    Kind.LENGTH: "answers of another length",
    Kind.REPETITION: "more repetition",
    Kind.JUDGE_UNPARSABLE: "more judgements that cannot be read",
    Kind.SERVER_ERRORS: "more server errors",
    Kind.CANARY: "the stack has moved: the frozen model's numbers are others",
}
_BECAME = {
    State.SUSPECTED: "being confirmed",
    State.HELD: "held back",
    State.REFUTED: "not seen again on fresh seeds",
    State.REPEATED: "told before",
    State.ACKNOWLEDGED: "acknowledged",
}


@dataclass(frozen=True, slots=True)
class Message:
    """An alert. title: one line of plain text. text, markdown, html: the same body."""

    title: str
    text: str
    markdown: str
    html: str


def message(history: History, alarms: Sequence[Alarm], links: Mapping[str, str]) -> Message:
    """One message over some alarms.

    links: what else there is to see, by its name: http(s) addresses.

    Raises:
        ResultsError: an evaluation of theirs is no longer there, or the history cannot be read.
    """
    results = sorted((_result(history, alarm) for alarm in alarms), key=_group)
    parts = [_part(list(group)) for _, group in groupby(results, _group)]
    shown = {
        "parts": parts,
        "links": {clean(name): clean(url, _REASON) for name, url in links.items()},
        "alarms": ", ".join(str(alarm.id) for alarm in alarms),
    }
    more = f" and {len(parts) - 1} more" if len(parts) > 1 else ""
    first = parts[0]
    return Message(
        title=f"{first.checkpoint}: {first.what} on {', '.join(name for name, _ in first.found)}{more}",
        text=_render("alert.md.j2", code=str, block=str, link="{}: {}", **shown),
        markdown=_render("alert.md.j2", code=_code, block=block, link="[{}]({})", **shown),
        html=_render("alert.html.j2", **shown),
    )


class _Result(NamedTuple):
    """An alarm with what its numbers say. first, fresh: or why they cannot be compared; None: there are none."""

    alarm: Alarm
    first: Compared | str
    fresh: Compared | str | None

    @property
    def became(self) -> str:
        if self.alarm.state is not State.CONFIRMED:
            return _BECAME[self.alarm.state]
        if self.alarm.kind is Kind.CANARY:
            return "what is found of other models is held back"
        return "confirmed on fresh seeds" if self._is_seen_again() else "not confirmed on fresh seeds"

    def _is_seen_again(self) -> bool:
        if not isinstance(self.fresh, Compared):
            return False
        if self.alarm.kind is Kind.REGRESSION:
            return self.fresh.found.verdict is Verdict.REGRESSED
        rate = self.fresh.rate(self.alarm.kind)
        return rate is not None and rate.is_alarm

    @property
    def compared(self) -> list[Compared]:
        return [it for it in (self.first, self.fresh) if isinstance(it, Compared) and it.pairs]


@dataclass(frozen=True, slots=True)
class _Part:
    """Alarms of one checkpoint that say the same of it. found: benchmarks, and by how much, where that is told."""

    checkpoint: str
    baseline: str
    what: str
    became: str
    found: tuple[tuple[str, str], ...]
    table: str
    flips: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def _group(result: _Result) -> tuple[str, ...]:
    alarm = result.alarm
    # What somebody has to do something about goes first.
    urgency = "0" if alarm.state is State.CONFIRMED else "1"
    new, base = alarm.checkpoint, alarm.baseline
    return (urgency, new.run, new.name, new.digest, base.run, base.name, alarm.kind, result.became)


def _part(results: Sequence[_Result]) -> _Part:
    rows, found, flips, notes = [], [], [], []
    for result in results:
        alarm, name = result.alarm, clean(result.alarm.benchmark)
        for label, side in (("first", result.first), ("fresh", result.fresh)):
            if isinstance(side, Compared):
                rows.append([label, *map(clean, cells(side))])
                if rate := side.rate(alarm.kind):
                    notes.append(f"{name}: {label} samples: {rate}")
            elif side is not None:
                notes.append(f"{name}: the {label} samples are not compared: {clean(side, _REASON)}")
        # What looked worst has a difference that is too large; that of fresh samples is not.
        is_told = result.compared and alarm.kind is Kind.REGRESSION
        found.append((name, _points(result.compared[-1]) if is_told else ""))
        if changed := _flipped(result.compared):
            flips.append((name, "\n".join(changed)))
        if alarm.reason:
            notes.append(f"{name}: {clean(alarm.reason, _REASON)}")
    alarm = results[0].alarm
    return _Part(
        checkpoint=clean(f"{alarm.run}/{alarm.checkpoint.name}"),
        baseline=clean(f"{alarm.baseline.run}/{alarm.baseline.name}"),
        what=_WORSE[alarm.kind],
        became=results[0].became,
        found=tuple(found),
        table="\n".join(aligned([["samples", *HEADER], *rows])) if rows else "",
        flips=tuple(flips),
        notes=tuple(notes),
    )


def _result(history: History, alarm: Alarm) -> _Result:
    """Each of an alarm's comparisons as it was made."""
    first = _compared(history, alarm, alarm.evaluation, alarm.base_evaluation, alarm.alpha)
    if alarm.confirmation is None or alarm.base_confirmation is None:
        return _Result(alarm, first, None)
    return _Result(
        alarm,
        first,
        _compared(history, alarm, alarm.confirmation, alarm.base_confirmation, confirmation.ALPHA),
    )


def _compared(history: History, alarm: Alarm, new: int, base: int, alpha: float) -> Compared | str:
    pair = (history.evaluation(new), history.evaluation(base))
    # The margin of a rate is not that of the answers that stand beside it in the table.
    margin = alarm.margin if alarm.kind in (Kind.REGRESSION, Kind.CANARY) else MARGIN
    compared = compare_recorded(history, [pair], margin=margin, alpha=alpha)
    return compared.benchmarks[0] if compared.benchmarks else "; ".join(compared.refused.values())


def _points(compared: Compared) -> str:
    return f"{-100 * compared.found.difference:.1f} points"


def _flipped(results: Sequence[Compared]) -> list[str]:
    """The problems that changed most over all samples of each, the first and the fresh ones."""
    if not results:
        return []
    together: dict[str, Pair] = {}
    for pair in (pair for result in results for pair in result.pairs):
        had = together.get(pair.problem, Pair(pair.problem, 0, 0, 0, 0))
        together[pair.problem] = Pair(
            pair.problem, had.n + pair.n, had.c + pair.c, had.base_n + pair.base_n, had.base_c + pair.base_c
        )
    changed = replace(results[0], pairs=tuple(together.values())).flipped(FLIPS)
    return [flip(pair._replace(problem=clean(pair.problem))) for pair in changed]


def clean(text: str, most: int = _NAME) -> str:
    """A text from outside on one line, no longer than so many characters, without what steers its display."""
    visible = (c for c in without_controls(text) if unicodedata.category(c) not in ("Cf", "Cs"))
    line = " ".join("".join(visible).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _code(text: str) -> str:
    return f"`{_without_ticks(text)}`"


def block(text: str) -> str:
    """Lines as a block of code in Markdown."""
    return f"```\n{_without_ticks(text)}\n```"


def _without_ticks(text: str) -> str:
    # One alone ends the code that it stands in, and all that follows would be markup.
    return text.replace("`", "'")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("evalcore"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )


def _render(template: str, **shown: object) -> str:
    return _environment().get_template(template).render(shown).strip() + "\n"
