"""Scorecards as tables for people: text for a terminal or a log, markdown to paste.

>>> print(as_text([Scorecard.load(Path("results/tiny/step-001800/tiny-arithmetic"))]))
------------------------ tiny-arithmetic-all -------------------------
evaluation_mode | num_entries | symbolic_correct | no_answer | std_err
greedy          | 240         | 79.17%           | 0.00%     | ±2.63%
...

Names, columns and their order are those of NeMo-Skills' ``summarize_results``; what it lacks stands at the
end: the standard error of symbolic_correct, and of judge_correct where there is a judge; and how far the
samples' own shares of correct answers spread (``sample_std``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from evalcore.metrics import Estimate
from evalcore.summarize import Mode, Scorecard, Subset
from evalcore.tally import COLUMNS

UNKNOWN = "n/a"


def as_text(cards: Sequence[Scorecard]) -> str:
    """Every table of every scorecard, each checkpoint under its name, with notes on what is missing."""
    blocks = []
    for card, heading in _headed(cards):
        if heading:
            blocks.append(heading)
        blocks += ["\n".join(_text_table(subset, card)) for subset in card.subsets]
        if lines := notes(card):
            blocks.append("\n".join(f"note: {line}" for line in lines))
    return "\n\n\n".join(blocks) + "\n" if blocks else ""


def as_markdown(cards: Sequence[Scorecard]) -> str:
    """The same as markdown."""
    blocks = []
    for card, heading in _headed(cards):
        if heading:
            blocks.append(f"## {_escape(heading)}")
        for subset in card.subsets:
            header, *rows = table(subset, card)
            lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
            blocks.append(f"### {_escape(subset.name)}")
            blocks.append("\n".join("| " + " | ".join(map(_escape, line)) + " |" for line in lines))
        if remarks := notes(card):
            blocks.append("\n".join(f"- {_escape(line)}" for line in remarks))
    return "\n\n".join(blocks) + "\n" if blocks else ""


def table(subset: Subset, card: Scorecard) -> list[list[str]]:
    """The cells of a subset's table, the header first. pass@k for 1 < k < N is in ``scorecard.json`` only."""
    columns: dict[str, Callable[[Mode], str]] = {
        "evaluation_mode": lambda mode: mode.evaluation_mode,
        "num_entries": lambda mode: str(mode.num_entries),
        "symbolic_correct": lambda mode: _percent(mode.symbolic_correct),
    }
    if card.judged:
        columns |= {
            "judge_correct": lambda mode: _percent(mode.judge_correct),
            "both_correct": lambda mode: _percent(mode.both_correct),
            "any_correct": lambda mode: _percent(mode.any_correct),
        }
    columns["no_answer"] = lambda mode: _percent(mode.no_answer)
    columns["std_err"] = lambda mode: _error(mode.symbolic_correct)
    if card.judged:
        columns["judge_std_err"] = lambda mode: _error(mode.judge_correct)
    if (spread := subset.sample_spread) is not None:
        columns["sample_std"] = lambda mode: (
            f"±{spread:.2%}" if mode.evaluation_mode == f"pass@1[{card.samples}]" else ""
        )
    modes = [mode for mode in subset.modes if mode.k in (1, card.samples)]
    return [list(columns), *([cell(mode) for cell in columns.values()] for mode in modes)]


def notes(card: Scorecard) -> list[str]:
    """What a reader must know before trusting the numbers; empty when nothing is missing."""
    counts = card.subsets[0].counts
    lines = []
    if counts.expected not in (None, counts.generated):
        lines.append(f"incomplete: {counts.generated:,} of {counts.expected:,} samples generated")
    if counts.ungraded:
        lines.append(f"{_samples(counts.ungraded)} not graded yet")
    if counts.undecided:
        lines.append(f"{_samples(counts.undecided)} could not be graded; left out, not counted as wrong")
    if counts.unjudged:
        lines.append(f"{_samples(counts.unjudged)} not judged yet")
    if counts.unparsable:
        share = counts.unparsable / counts.generated
        lines.append(f"{_samples(counts.unparsable)} ({share:.2%}) got no verdict from the judge; left out")
    if counts.failed:
        lines.append(f"{_samples(counts.failed)} failed to be generated; counted as wrong, without an answer")
    if counts.truncated:
        share = counts.truncated / counts.generated
        lines.append(f"{_samples(counts.truncated)} ({share:.2%}) cut off at the token limit")
    if card.needs_judge and not card.judged:
        lines.append(
            "not judged, and many answers of this benchmark cannot be compared without a judge model"
        )
    lines += _left_out(card)
    return lines


def _samples(count: int) -> str:
    return f"{count:,} sample{'' if count == 1 else 's'}"


def _left_out(card: Scorecard) -> Iterator[str]:
    for mode in card.subsets[0].modes:
        if mode.k not in (1, card.samples):
            continue
        for column in COLUMNS[: 2 if card.judged else 1]:
            estimate: Estimate | None = getattr(mode, column)
            missing = mode.num_entries - (estimate.entries if estimate else 0)
            if missing:
                yield (
                    f"{mode.evaluation_mode} {column} leaves out {missing:,} of {mode.num_entries:,} problems "
                    "with too few known grades"
                )


def _headed(cards: Sequence[Scorecard]) -> Iterator[tuple[Scorecard, str | None]]:
    last = None
    for card in cards:
        heading = None
        if card.checkpoint and card.checkpoint != last:
            last = card.checkpoint
            step = f" (step {last.step})" if last.step is not None else ""
            heading = f"{last.run}/{last.name}{step}"
        yield card, heading


def _text_table(subset: Subset, card: Scorecard) -> list[str]:
    rows = table(subset, card)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return [f" {subset.name} ".center(sum(widths) + 3 * (len(widths) - 1), "-"), *lines]


def _percent(estimate: Estimate | None) -> str:
    return f"{estimate.value:.2%}" if estimate else UNKNOWN


def _error(estimate: Estimate | None) -> str:
    return f"±{estimate.std_err:.2%}" if estimate and estimate.std_err is not None else UNKNOWN


def _escape(text: str) -> str:
    # Names come from outside: they shall not end a cell or start markup.
    return "".join(f"\\{char}" if char in "\\|`*<>" else char for char in " ".join(text.split()))
