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
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader

from evalcore.compare import HEADER, Compared, aligned, cells, compare_recorded, flip
from evalcore.comparison import Pair
from evalcore.history.alarms import Alarm, Kind, State
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
    State.REFUTED: "not seen again on fresh samples",
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
    parts = [_part(history, list(group)) for _, group in groupby(sorted(alarms, key=_group), _group)]
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
        markdown=_render("alert.md.j2", code=_code, block=_block, link="[{}]({})", **shown),
        html=_render("alert.html.j2", **shown),
    )


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


def _group(alarm: Alarm) -> tuple[str, ...]:
    # What somebody has to do something about goes first.
    urgency = "0" if alarm.state is State.CONFIRMED else "1"
    is_fresh = str(alarm.confirmation is not None)
    new, base = alarm.checkpoint, alarm.baseline
    return (urgency, alarm.run, new.name, new.digest, base.run, base.name, alarm.kind, alarm.state, is_fresh)


def _part(history: History, alarms: Sequence[Alarm]) -> _Part:
    rows, found, flips, notes = [], [], [], []
    for alarm in alarms:
        name = clean(alarm.benchmark)
        first = _compared(history, alarm, alarm.evaluation, alarm.base_evaluation)
        fresh = None
        if alarm.confirmation is not None and alarm.base_confirmation is not None:
            fresh = _compared(history, alarm, alarm.confirmation, alarm.base_confirmation)
        for label, result in (("first", first), ("fresh", fresh)):
            if isinstance(result, Compared):
                rows.append([label, *map(clean, cells(result))])
            elif result is not None:
                notes.append(f"{name}: the {label} samples are not compared: {clean(result, _REASON)}")
        results = [result for result in (first, fresh) if isinstance(result, Compared)]
        # Of what looks worst, the first difference is too large; that of fresh samples is not.
        found.append((name, _points(results[-1]) if results and alarm.kind is Kind.REGRESSION else ""))
        if changed := _flipped(results):
            flips.append((name, "\n".join(changed)))
        if alarm.reason:
            notes.append(f"{name}: {clean(alarm.reason, _REASON)}")
    alarm = alarms[0]
    became = _BECAME.get(alarm.state)
    if became is None:
        became = "confirmed on fresh samples" if alarm.confirmation else "not confirmed on fresh samples"
    return _Part(
        checkpoint=clean(f"{alarm.run}/{alarm.checkpoint.name}"),
        baseline=clean(f"{alarm.baseline.run}/{alarm.baseline.name}"),
        what=_WORSE[alarm.kind],
        became=became,
        found=tuple(found),
        table="\n".join(aligned([["samples", *HEADER], *rows])) if rows else "",
        flips=tuple(flips),
        notes=tuple(notes),
    )


def _compared(history: History, alarm: Alarm, evaluation: int, baseline: int) -> Compared | str:
    """The two evaluations compared as when the alarm was raised; or why they cannot be."""
    pair = (history.evaluation(evaluation), history.evaluation(baseline))
    compared = compare_recorded(history, [pair], margin=alarm.margin, alpha=alarm.alpha)
    return compared.benchmarks[0] if compared.benchmarks else compared.refused[alarm.benchmark]


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
    return [flip(replace(pair, problem=clean(pair.problem))) for pair in changed]


def clean(text: str, most: int = _NAME) -> str:
    """A text from outside on one line, no longer than so many characters, without what steers its display."""
    visible = (c for c in without_controls(text) if unicodedata.category(c) not in ("Cf", "Cs"))
    line = " ".join("".join(visible).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _code(text: str) -> str:
    return f"`{_without_ticks(text)}`"


def _block(text: str) -> str:
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
