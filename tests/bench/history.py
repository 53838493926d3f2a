"""How long the history takes to answer, when 1,000 checkpoints with 20 benchmarks of 500 problems are in it.

    make bench-history
    make bench-history CHECKPOINTS=100

On SQLite and on a real PostgreSQL (without fsync) in a folder of /tmp. *Last 50 checkpoints* is every line of the
tables of all benchmarks of each; *a comparison* all counts of every problem of all benchmarks of two checkpoints, as
the DAG asks for them, without the statistics.
Each is the median of five, asked through a new connection.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "include"), str(ROOT / "tests")]

import postgres  # noqa: E402 (after the path)
from evalcore.checkpoints import Checkpoint  # noqa: E402
from evalcore.counts import ProblemCounts, Verdicts  # noqa: E402
from evalcore.history import open_history  # noqa: E402
from evalcore.history.recording import Evaluated, read  # noqa: E402
from evalcore.history.store import History  # noqa: E402
from evalcore.metrics import Estimate  # noqa: E402
from evalcore.summarize import Mode, summarize  # noqa: E402
from synthetic_results import Sample, manifest, write  # noqa: E402

BENCHMARKS = 20
PROBLEMS = 500
SAMPLES = 8
RUNS = 10
"""Training runs that the checkpoints are of."""
BATCH = 100
REPEATS = 5


def templates(folder: Path) -> list[Evaluated]:
    """One real evaluation of each benchmark."""
    found = []
    for number in range(BENCHMARKS):
        name = f"bench-{number}"
        made_by = manifest(PROBLEMS, SAMPLES, name=name, greedy=True, judged=number < 5)
        made_by.benchmark = made_by.benchmark.model_copy(update={"digest": f"{number:064x}"})
        rows = (
            Sample(f"{name}-{problem}", sample, str(sample % 3), sample % 3 == 0, judge=sample % 2 == 0)
            for problem in range(PROBLEMS)
            for sample in range(-1, SAMPLES)
        )
        summarize(write(folder / name, made_by, rows))
        found.append(read(folder / name))
    return found


def evaluations(folder: Path, checkpoints: int) -> Iterator[Evaluated]:
    """As many, with other numbers in each: from a fixed seed, so that both databases get the same."""
    made = templates(folder)
    rng = np.random.default_rng(0)
    difficulty = rng.beta(1, 1, (BENCHMARKS, PROBLEMS))
    began = datetime(2026, 1, 1, tzinfo=UTC)

    def varied(mode: Mode) -> Mode:
        numbers = {
            name: Estimate(rng.random(), rng.random() / 10, value.entries)
            for name, value in mode
            if isinstance(value, Estimate)
        }
        return mode.model_copy(update=numbers)

    def verdicts(columns: dict[str, Verdicts], samples: int, chances: np.ndarray) -> dict[str, Verdicts]:
        return {
            name: Verdicts.model_construct(n=it.n, c=tuple(rng.binomial(samples, chances).tolist()))
            for name, it in columns.items()
        }

    for number in range(checkpoints):
        step = number // RUNS * 1000
        checkpoint = Checkpoint(
            path=None, run=f"run-{number % RUNS}", name=f"step-{step}", step=step, digest=f"{number:064x}"
        )
        for benchmark, it in enumerate(made):
            [table] = it.card.subsets
            table = table.model_copy(update={"modes": tuple(map(varied, table.modes))})
            chances = difficulty[benchmark]
            yield replace(
                it,
                folder=Path("/results", checkpoint.run, checkpoint.name, it.card.benchmark),
                manifest=it.manifest.model_copy(update={"checkpoint": checkpoint}),
                card=it.card.model_copy(update={"checkpoint": checkpoint, "subsets": (table,)}),
                counts=ProblemCounts.model_construct(
                    scorecard=f"{number:032x}{benchmark:032x}",
                    problems=it.counts.problems,
                    clusters=it.counts.clusters,
                    subsets=it.counts.subsets,
                    greedy=verdicts(it.counts.greedy, 1, chances),
                    sampled=verdicts(it.counts.sampled, SAMPLES, chances),
                ),
                evaluated_at=began + timedelta(minutes=number),
            )


def last_checkpoints(history: History) -> int:
    return len(history.evaluations(run="run-3", last=50))


def comparison(history: History) -> int:
    """Of the two newest checkpoints of a run, on every benchmark."""
    found = history.evaluations(run="run-3", last=2)
    assert len(found) == 2 * BENCHMARKS
    pairs = 0
    for new, base in zip(found[:BENCHMARKS], found[BENCHMARKS:], strict=True):
        assert not history.differences(new.fingerprint, base.fingerprint)
        pairs += sum(map(len, history.pairs(new.id, base.id).values()))
    return pairs


def measured(url: str, ask: Callable[[History], int]) -> tuple[float, int]:
    """Milliseconds of an answer, and how much it is."""
    times = []
    for _ in range(REPEATS):
        with open_history(url) as history:
            began = time.perf_counter()
            size = ask(history)
            times.append(time.perf_counter() - began)
    return median(times) * 1000, size


def fill(url: str, folder: Path, checkpoints: int) -> float:
    """Seconds to write it all."""
    rows = evaluations(folder, checkpoints)
    seconds = 0.0
    with open_history(url) as history:
        while batch := list(islice(rows, BATCH)):
            began = time.perf_counter()
            history.add(batch)
            seconds += time.perf_counter() - began
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoints", type=int, default=1000)
    checkpoints = parser.parse_args().checkpoints
    console = Console(width=110)
    table = Table(
        title=f"{checkpoints:,} checkpoints of {RUNS} training runs × {BENCHMARKS} benchmarks × {PROBLEMS} problems"
    )
    table.add_column("")
    columns: dict[str, list[str]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="bench-history-", dir="/tmp") as name,
        postgres.running() as server,
    ):
        folder = Path(name)
        urls = {
            "SQLite": f"sqlite:///{folder}/database/history.sqlite",
            "PostgreSQL": postgres.create_database(server, "history"),
        }
        for kind, url in urls.items():
            console.print(f"[dim]filling {kind} …[/]")
            seconds = fill(url, folder / kind, checkpoints)
            file = folder / "database" / "history.sqlite"
            size = file.stat().st_size if kind == "SQLite" else postgres.size_of(url)
            listed, lines = measured(url, last_checkpoints)
            compared, pairs = measured(url, comparison)
            columns[kind] = [
                f"{listed:,.0f} ms ({lines:,} evaluations)",
                f"{compared:,.0f} ms ({pairs:,} pairs)",
                f"{seconds / checkpoints / BENCHMARKS * 1000:.1f} ms",
                f"{size / 1e6:,.0f} MB",
            ]
    for kind in columns:
        table.add_column(kind, justify="right")
    names = (
        "last 50 checkpoints (under 200 ms)",
        "a comparison (under 1 s)",
        "to record an evaluation",
        "size",
    )
    for line in zip(names, *columns.values(), strict=True):
        table.add_row(*line)
    console.print(table)


if __name__ == "__main__":
    main()
