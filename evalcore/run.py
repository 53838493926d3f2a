"""run: all the stages of one evaluation in this process, without Airflow.

The same functions that the DAG's jobs call, in the same order, over the same files; so a run can be
begun here and finished by the DAG, or the other way round.
"""

from __future__ import annotations

import logging
from pathlib import Path

from evalcore.config import EvalConfig
from evalcore.convert import convert
from evalcore.errors import EvalError
from evalcore.generate import generate
from evalcore.grade import grade
from evalcore.judge import judge
from evalcore.manifest import checkpoint_info
from evalcore.plan import BenchmarkPlan, plan
from evalcore.summarize import Scorecard, summarize
from evalcore.track import TrackedRun, track

log = logging.getLogger(__name__)


def run(config: EvalConfig) -> tuple[list[Scorecard], TrackedRun | None]:
    """Evaluate one checkpoint; the scorecards in the order of the benchmarks, and where W&B has them.

    A benchmark that fails does not lose the others.

    Raises:
        EvalError: after everything that could be done was done; names each failure.
    """
    planned = plan(config)
    checkpoint = checkpoint_info(config)
    folder = Path(planned.folder)
    convert(checkpoint, config.convert_to, folder)
    failures: list[str] = []
    try:
        generate(config)
    except EvalError as error:
        failures.append(str(error))
    scorecards = []
    for benchmark in planned.benchmarks:
        try:
            scorecards.append(_score(benchmark, config))
        except EvalError as error:
            failures.append(f"{benchmark.name}: {error}")
    tracked = None
    if planned.track and scorecards:
        tracked = track(folder, config.wandb)
    if failures:
        raise EvalError("; ".join(failures))
    return scorecards, tracked


def _score(benchmark: BenchmarkPlan, config: EvalConfig) -> Scorecard:
    folder = Path(benchmark.folder)
    grade(folder)
    if benchmark.judge:
        judge(folder, config.judge)
    return summarize(folder)
