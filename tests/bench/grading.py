"""How fast, and how like each other, our math grader and math-verify are on the same pairs in one run.

    make bench-grading
    make bench-grading PAIRS=pairs.jsonl RESPONSES=responses.jsonl

Three tables. *Pairs*: one after the other on one core, nothing remembered. *Responses*: the answer is looked
for first; both use all cores, math-verify with one process for each, and nothing is cached. *Hostile*: input
that was made to hang a grader; what counts is the slowest.

A line of the files is ``{"gold": …, "pred": …, "expected": true}``; a pred of RESPONSES is a whole response.
Without files both are made up here, in the proportions that real outputs have: mostly plain numbers. Ours
starts with an empty cache and its workers' start is part of the time; math-verify's import is not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import peer
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
MATH_VERIFY = "math-verify[antlr4_9_3]==0.9.0"
LIMIT = 5  # seconds that math-verify gives itself by default
HOSTILE = [
    "{" * 200 + "1" + "}" * 200,
    "10^{10^{10}}",
    "10**10**10**10",
    "((((10!)!)!)!)",
    "\\binom{10^6}{500000}",
    "\\begin{pmatrix}" + "\\\\".join(["1" + "&1" * 119] * 120) + "\\end{pmatrix}",
    " " * 100_000 + "1",
    "1" * 1_000_000,
    "\\sqrt" * 300 + "2",
    "\\frac{1}{" * 200 + "2" + "}" * 200,
    "(x+1)^{1000}-(x-1)^{1000}",
    "\\int_0^1 x^{x^{x}} dx",
    "\\sum_{n=1}^{\\infty} \\frac{1}{n^{n^n} + \\sin n}",
    "__import__('os').system('sleep 9')",
    "\\boxed{" * 5000,
]


class Run(NamedTuple):
    verdicts: list[bool | None]
    ms: list[float]
    seconds: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--responses", type=Path)
    given = parser.parse_args()
    console = Console(width=110)
    with_peer = peer.installed(MATH_VERIFY, "math_verify", console)
    pairs, responses = _rows(given.pairs, "answer"), _rows(given.responses, "text")
    hostile = [{"gold": "5", "pred": text, "kind": "answer"} for text in HOSTILE]
    cores = len(os.sched_getaffinity(0))
    for title, rows, workers in (
        ("Pairs, one core, each compared", pairs, 1),
        (f"Responses, {cores} cores, cold cache", responses, cores),
        ("Hostile, one core", hostile, 1),
    ):
        console.print(f"[dim]{title}: {len(rows):,} …[/]")
        ours = _ours(rows, workers)
        theirs = _peer(rows, workers) if with_peer else None
        console.print(_table(title, rows, ours, theirs))


def _table(title: str, rows: Sequence[dict[str, Any]], ours: Run, theirs: Run | None) -> Table:
    table = Table(title=title)
    for column in ("grader", "as expected", "pairs/s", "p50 ms", "p99 ms", "slowest", "peak MB"):
        table.add_column(column, justify="left" if column == "grader" else "right")
    for name, run in (("ours", ours), ("math-verify", theirs)):
        if run:
            labelled = [
                (row["expected"], v) for row, v in zip(rows, run.verdicts, strict=True) if "expected" in row
            ]
            share = f"{sum(e is v for e, v in labelled) / len(labelled):.2%}" if labelled else "-"
            times = sorted(run.ms)
            spread = (times[len(times) // 2], times[int(len(times) * 0.99)], times[-1])
            table.add_row(
                name,
                share,
                f"{len(rows) / run.seconds:,.0f}",
                *(f"{value:,.2f}" for value in spread),
                f"{run.peak_mb:,.0f}",
            )
    if theirs:
        same = sum(bool(a) == bool(b) for a, b in zip(ours.verdicts, theirs.verdicts, strict=True))
        table.caption = (
            f"{theirs.seconds / ours.seconds:.1f} times as fast; same verdict on {same / len(rows):.2%}"
        )
    return table


def _ours(rows: Sequence[dict[str, Any]], workers: int) -> Run:
    core = [] if workers > 1 else ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
    return _run([*core, sys.executable, str(HERE / "grading_ours.py"), "{file}", str(workers)], rows)


def _peer(rows: Sequence[dict[str, Any]], processes: int) -> Run:
    """One process for each core, each with every n-th row; their time is that of the slowest."""
    command = [str(peer.BENCH_PYTHON), str(HERE / "grading_peer.py"), "{file}", str(LIMIT)]
    parts = [rows[i::processes] for i in range(processes)]
    runs = _together([(command, part) for part in parts])
    verdicts: list[bool | None] = [None] * len(rows)
    for i, run in enumerate(runs):
        verdicts[i::processes] = run.verdicts
    times = [ms for run in runs for ms in run.ms]
    return Run(verdicts, times, max(run.seconds for run in runs), sum(run.peak_mb for run in runs))


def _run(command: list[str], rows: Sequence[dict[str, Any]]) -> Run:
    return _together([(command, rows)])[0]


def _together(work: list[tuple[list[str], Sequence[dict[str, Any]]]]) -> list[Run]:
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        for i, (command, rows) in enumerate(work):
            file = Path(folder) / f"{i}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            argv = [part.format(file=file) for part in command]
            environment = {**os.environ, "EVALCORE_CACHE": folder}
            processes.append(subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=folder, env=environment))
        outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit(f"failed: {' '.join(work[0][0])}")
    return [Run(**json.loads(output)) for output in outputs]


def _rows(file: Path | None, kind: str) -> list[dict[str, Any]]:
    if file:
        return [{**json.loads(line), "kind": kind} for line in file.read_text(encoding="utf-8").splitlines()]
    return [_made_up(random.Random(seed), kind) for seed in range(2000)]


def _made_up(rng: random.Random, kind: str) -> dict[str, Any]:
    """A pair like those of real outputs: four of five numbers, the others formulas."""
    n, m, same = rng.randint(2, 99), rng.randint(2, 99), rng.random() < 0.5
    other = n if same else n + rng.randint(1, 9)
    spellings = [
        (f"{n}\\sqrt{{{m}}}", f"\\sqrt{{{m}}} \\cdot {other}"),
        (f"\\frac{{{n}}}{{{m}}}", f"{other}/{m}"),
        (f"x^2+{n}x+{m}", f"{m} + x({other} + x)"),
        (f"({n}, {m})", f"\\left({other},{m}\\right)"),
        (f"[{m}, {m + n})", f"{m} \\le x < {m + other}"),
        (f"\\{{{n}, {m}\\}}", f"\\{{{m}, {other}\\}}"),
        (f"{n}\\pi", f"{2 * other}\\pi/2"),
        (
            f"\\begin{{pmatrix}}{n}\\\\{m}\\end{{pmatrix}}",
            f"\\begin{{bmatrix}}{other}\\\\ {m}\\end{{bmatrix}}",
        ),
    ]
    gold, pred = rng.choice(spellings) if rng.random() < 0.2 else (str(n), str(other))
    expected = same or gold == pred
    if kind == "text":
        pred = f"First we add {n} and {m}. " * 20 + f"So the result is $\\boxed{{{pred}}}$."
    return {"gold": gold, "pred": pred, "kind": kind, "expected": expected}


if __name__ == "__main__":
    main()
