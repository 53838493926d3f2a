"""The history as a table for people, and as one of numbers for other programs: CSV, Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evalcore.errors import ConfigError
from evalcore.history.alarms import Alarm
from evalcore.history.recording import mode_columns
from evalcore.history.schema import COUNTS, METRICS
from evalcore.history.store import Evaluation, History, TrainingRun
from evalcore.metrics import Estimate
from evalcore.records import written_whole
from evalcore.summarize import Subset
from evalcore.terminal import without_controls

_UNKNOWN = "n/a"


def show(table: Table) -> None:
    """Print a table; where no terminal cuts it off, as wide as it is."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=Console(width=1 << 16).measure(table).maximum)
    console.print(table)


def runs_table(runs: Sequence[TrainingRun]) -> Table:
    """A line for each training run."""
    table = Table("training run")
    for name in ("checkpoints", "last step", "evaluations"):
        table.add_column(name, justify="right")
    table.add_column("last evaluated")
    for run in runs:
        step = "" if run.last_step is None else f"{run.last_step:,}"
        when = f"{run.evaluated_at:%Y-%m-%d %H:%M}"
        table.add_row(_text(run.name), f"{run.checkpoints:,}", step, f"{run.evaluations:,}", when)
    return table


def evaluations_table(evaluations: Sequence[Evaluation]) -> Table:
    """A line for each evaluation. Times are UTC; lines of different fingerprints cannot be compared."""
    several = len({evaluation.checkpoint.run for evaluation in evaluations}) > 1
    judged = any(evaluation.judged for evaluation in evaluations)
    table = Table(*(["training run"] if several else []), "checkpoint")
    table.add_column("step", justify="right")
    table.add_column("benchmark")
    table.add_column("mode")
    for name in ("symbolic_correct", *(["judge_correct"] if judged else []), "no_answer", "avg_tokens"):
        table.add_column(name, justify="right")
    for name in ("complete", "evaluated", "fingerprint", "id"):
        table.add_column(name, justify="right" if name == "id" else "left")
    for evaluation in evaluations:
        checkpoint, mode = evaluation.checkpoint, evaluation.mode
        table.add_row(
            *([_text(checkpoint.run)] if several else []),
            _text(checkpoint.name),
            "" if checkpoint.step is None else f"{checkpoint.step:,}",
            _text(evaluation.benchmark),
            mode.evaluation_mode if mode else _UNKNOWN,
            _share(mode.symbolic_correct if mode else None),
            *([_share(mode.judge_correct if mode else None)] if judged else []),
            f"{mode.no_answer.value:.2%}" if mode and mode.no_answer else _UNKNOWN,
            f"{mode.avg_tokens.value:,.0f}" if mode and mode.avg_tokens else _UNKNOWN,
            "yes" if evaluation.complete else "no",
            f"{evaluation.evaluated_at:%Y-%m-%d %H:%M}",
            evaluation.fingerprint,
            str(evaluation.id),
        )
    return table


def alarms_table(alarms: Sequence[Alarm]) -> Table:
    """A line for each alarm. Times are UTC."""
    table = Table(
        "id", "state", "training run", "checkpoint", "baseline", "benchmark", "kind", "raised", "reason"
    )
    for alarm in alarms:
        known = alarm.acknowledged_by and f"by {alarm.acknowledged_by} {alarm.note}".strip()
        row = (
            alarm.state,
            alarm.run,
            alarm.checkpoint.name,
            alarm.baseline.name,
            alarm.benchmark,
            alarm.kind,
        )
        table.add_row(
            str(alarm.id),
            *map(_text, row),
            f"{alarm.raised_at:%Y-%m-%d %H:%M}",
            _text("; ".join(filter(None, (alarm.reason, known)))),
        )
    return table


def export(history: History, evaluations: Sequence[Evaluation], file: Path) -> int:
    """Write every line of every table, subsets too, to a ``.csv`` or ``.parquet`` file; returns how many.

    Raises:
        ConfigError: another kind of file, or pyarrow is not installed.
        ResultsError: the file cannot be written.
    """
    kind = file.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise ConfigError(f"--export {file}: expected a name that ends in .csv or .parquet")
    tables = history.tables([evaluation.id for evaluation in evaluations])
    rows = [row for evaluation in evaluations for row in _rows(evaluation, tables[evaluation.id])]
    if kind == ".csv":
        with written_whole(file) as stream:
            text = io.TextIOWrapper(stream, "utf-8", newline="", write_through=True)
            writer = csv.DictWriter(text, list(_COLUMNS))
            writer.writeheader()
            writer.writerows(rows)
            text.detach()
        return len(rows)
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(
            f"--export {file}: Parquet needs pyarrow, which is not installed: pip install 'evalcore[hub]', "
            "or give a name that ends in .csv"
        ) from error
    # Types by name, since a column may be unknown throughout.
    fields = [pyarrow.field(name, getattr(pyarrow, kind)()) for name, kind in _COLUMNS.items()]
    with written_whole(file) as stream:
        parquet.write_table(pyarrow.Table.from_pylist(rows, pyarrow.schema(fields)), stream)
    return len(rows)


_COLUMNS = {
    "run": "string",
    "checkpoint": "string",
    "step": "int64",
    "checkpoint_digest": "string",
    "benchmark": "string",
    "subset": "string",
    "evaluation_mode": "string",
    "k": "int64",
    "num_entries": "int64",
    **{
        f"{metric}{part}": "int64" if part == "_entries" else "float64"
        for metric in METRICS
        for part in ("", "_std_err", "_entries")
    },
    "sample_spread": "float64",
    **dict.fromkeys(COUNTS, "int64"),
    "samples": "int64",
    "greedy": "bool_",
    "judged": "bool_",
    "complete": "bool_",
    "fingerprint": "string",
    "evaluated_at": "string",
    "folder": "string",
    "evaluation_id": "int64",
}
"""Of an exported table, each with its type in Parquet."""


def _rows(evaluation: Evaluation, tables: Sequence[Subset]) -> Iterator[dict[str, Any]]:
    checkpoint = evaluation.checkpoint
    of = {
        "run": checkpoint.run,
        "checkpoint": checkpoint.name,
        "step": checkpoint.step,
        "checkpoint_digest": checkpoint.digest,
        "benchmark": evaluation.benchmark,
        "samples": evaluation.samples,
        "greedy": evaluation.greedy,
        "judged": evaluation.judged,
        "complete": evaluation.complete,
        "fingerprint": evaluation.fingerprint,
        "evaluated_at": evaluation.evaluated_at.isoformat(),
        "folder": str(evaluation.folder),
        "evaluation_id": evaluation.id,
    }
    for table in tables:
        counts = {"subset": table.name, "sample_spread": table.sample_spread, **table.counts.model_dump()}
        for mode in table.modes:
            yield {**of, **counts, **mode_columns(mode)}


def _share(estimate: Estimate | None) -> str:
    if estimate is None:
        return _UNKNOWN
    error = "" if estimate.std_err is None else f" ±{estimate.std_err:.2%}"
    return f"{estimate.value:.2%}{error}"


def _text(name: str) -> Text:
    # A name comes from outside: it is neither markup nor a way to steer the terminal.
    return Text(without_controls(name))
