"""run: all the stages of one evaluation in this process, without Airflow.

The same functions that the DAG's jobs call, in the same order, over the same files; so a run can be
begun here and finished by the DAG, or the other way round.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from evalcore.checkpoints import checkpoint_of
from evalcore.config import EvalConfig
from evalcore.convert import convert
from evalcore.errors import EvalError
from evalcore.fetch import fetched
from evalcore.generate import generate
from evalcore.grade import grade
from evalcore.history import open_history
from evalcore.judge import judge
from evalcore.manifest import MANIFEST
from evalcore.plan import BenchmarkPlan, plan
from evalcore.summarize import Scorecard, summarize
from evalcore.track import TrackedRun, track

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluated:
    """What became of an evaluation. failures: one line for each benchmark, or stage, that failed."""

    folder: Path
    scorecards: list[Scorecard]
    tracked: TrackedRun | None
    failures: list[str]


def run(config: EvalConfig) -> Evaluated:
    """Evaluate one checkpoint, and record it in the history. A benchmark that fails does not lose the others.

    What cannot be recorded is a line of the log and no failure: the results are there, for ``evalcore record``.

    Raises:
        EvalError: before anything was asked, when the request itself is wrong.
    """
    config = fetched(config)
    planned = plan(config)
    checkpoint = checkpoint_of(config)
    folder = Path(planned.folder)
    convert(checkpoint, config.convert_to, folder)
    failures: list[str] = []
    try:
        generate(config)
    except EvalError as error:
        failures.append(str(error))
    scorecards, scored = [], []
    for benchmark in planned.benchmarks:
        if failures and not (Path(benchmark.folder) / MANIFEST).exists():
            continue  # why it was never generated is said already
        try:
            scorecards.append(_score(benchmark, config))
            scored.append(Path(benchmark.folder))
        except EvalError as error:
            failures.append(f"{benchmark.name}: {error}")
    if scored:
        _record(scored)
    tracked = None
    if planned.track and scorecards:
        try:
            tracked = track(folder, config.wandb, {b.name: b.settings for b in planned.benchmarks})
        except EvalError as error:
            failures.append(str(error))
    return Evaluated(folder, scorecards, tracked, failures)


def _score(benchmark: BenchmarkPlan, config: EvalConfig) -> Scorecard:
    folder = Path(benchmark.folder)
    grade(folder, settings=benchmark.settings)
    if benchmark.judge:
        judge(folder, config.judge, settings=benchmark.settings)
    return summarize(folder, settings=benchmark.settings)


def _record(folders: Iterable[Path]) -> None:
    reasons = []
    try:
        with open_history() as history:
            for folder in folders:
                try:
                    history.record(folder)
                except EvalError as error:
                    reasons.append(str(error))
    except EvalError as error:
        reasons.append(str(error))
    if reasons:
        # Of a database that went away each benchmark says the same.
        log.warning("not recorded in the history: %s", "; ".join(dict.fromkeys(reasons)))
