"""plan: the commands that make up one evaluation, each of which can be run by hand or by any backend.

>>> print(plan(load_config("tiny", checkpoint="ckpt/step-1500")).render())
evalcore convert checkpoint=/data/ckpt/step-1500 benchmarks=tiny-arithmetic:8 results=/data/results
evalcore generate checkpoint=/data/ckpt/step-1500 benchmarks=tiny-arithmetic:8 results=/data/results
evalcore grade /data/results/ckpt/step-1500/tiny-arithmetic --settings 5d0e6a3f91b2
…

The stages after generate carry the id of this evaluation's settings, and refuse a folder in which another
evaluation has generated since.

This is the dry run too: what is wrong with a request is found here, before a job starts, unless only the
server or the hub can tell.
"""

from __future__ import annotations

import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from evalcore.benchmarks import load_benchmark, wanted_samples
from evalcore.checkpoints import Checkpoint, checkpoint_of, is_remote, path_component
from evalcore.config import EvalConfig
from evalcore.convert import TARGETS
from evalcore.converters import load_converter
from evalcore.errors import BenchmarkError, ConfigError, EvalError
from evalcore.grading import check_options
from evalcore.manifest import settings_id
from evalcore.prepare import prepare
from evalcore.prompts import load_prompt

Command = list[str]


@dataclass(frozen=True)
class BenchmarkPlan:
    """The commands that follow a benchmark's generations. judge None: no judge model is configured.

    settings: the ``settings_id`` by which they, and who reads the scorecard, know what is this evaluation's.
    """

    name: str
    folder: str
    settings: str
    grade: Command
    judge: Command | None
    summarize: Command


@dataclass(frozen=True)
class Plan:
    """The commands of one evaluation; those of ``generate`` may run side by side, each with its own server.

    folder: ``<results>/<run>/<checkpoint>``, which holds a folder for each benchmark.
    track None: W&B is disabled.
    """

    folder: str
    convert: Command
    generate: list[Command]
    benchmarks: list[BenchmarkPlan]
    track: Command | None

    def commands(self) -> list[Command]:
        """Every command, in an order in which they can be run one after the other."""
        scoring = [
            command
            for benchmark in self.benchmarks
            for command in (benchmark.grade, benchmark.judge, benchmark.summarize)
            if command
        ]
        return [self.convert, *self.generate, *scoring, *([self.track] if self.track else [])]

    @classmethod
    def from_json(cls, text: bytes) -> Plan:
        """The plan that ``python -m evalcore.plan`` printed; before it a login shell may have said something."""
        content = orjson.loads(text.splitlines()[-1])
        return cls(**{**content, "benchmarks": [BenchmarkPlan(**b) for b in content["benchmarks"]]})

    def render(self) -> str:
        """The commands as shell lines."""
        return "\n".join(map(shlex.join, self.commands()))


def plan(config: EvalConfig, *, is_there: bool = True) -> Plan:
    """Check a config against what is there, and lay out its commands.

    Args:
        is_there: whether the checkpoint is; one that will be has no digest yet, and so the commands no ids.

    Raises:
        ConfigError, BenchmarkError, CheckpointError: what is unknown, missing or out of range.
    """
    # Jobs may run elsewhere, so that paths must not depend on where the plan was made.
    config = _with_absolute_paths(config)
    checkpoint = checkpoint_of(config) if is_there else _checkpoint_to_be(config)
    if config.convert_to not in TARGETS:
        raise ConfigError(f"convert_to: unknown target {config.convert_to!r}; valid: {', '.join(TARGETS)}")
    if config.converter:
        load_converter(config.converter)
    folder = checkpoint.folder(config.results)
    benchmarks: list[BenchmarkPlan] = []
    for run in config.benchmarks:
        benchmark = load_benchmark(run.name)
        if any(benchmark.name == other.name for other in benchmarks):
            raise ConfigError(f"benchmark named twice: {benchmark.name}")
        prompt = load_prompt(config.prompt or benchmark.prompt)
        wanted_samples(config, run, benchmark)
        check_options(benchmark.grader, benchmark.grader_options)
        if all(source.path for source in benchmark.source):
            # What has to be fetched first is checked when it is there, by generate; and problems that cannot
            # be read fail there too, where they do not lose the other benchmarks.
            with suppress(BenchmarkError):
                prompt.messages(prepare(benchmark, split=config.split).problems[0].fields)
        results = str(folder / benchmark.name)
        settings = settings_id(config, checkpoint, benchmark)
        its_own = [results, "--settings", settings] if is_there else [results]
        judge = [f"judge.{o}" for o in config.judge.to_overrides()] if config.judge.model else []
        benchmarks.append(
            BenchmarkPlan(
                name=benchmark.name,
                folder=results,
                settings=settings,
                grade=["evalcore", "grade", *its_own],
                judge=["evalcore", "judge", *its_own, *judge] if judge else None,
                summarize=["evalcore", "summarize", *its_own],
            )
        )
    wandb = [f"wandb.{o}" for o in config.wandb.to_overrides()]
    known = benchmarks if is_there else []
    ours = [argument for b in known for argument in ("--settings", f"{b.name}={b.settings}")]
    return Plan(
        folder=str(folder),
        convert=["evalcore", "convert", *config.to_overrides()],
        generate=[["evalcore", "generate", *part.to_overrides()] for part in _jobs(config)],
        benchmarks=benchmarks,
        track=None if config.wandb.mode == "disabled" else ["evalcore", "track", str(folder), *wandb, *ours],
    )


def _checkpoint_to_be(config: EvalConfig) -> Checkpoint:
    folder = Path(str(config.checkpoint))
    run = path_component(config.training_run or folder.parent.name, "training run")
    name = path_component(config.name or folder.name, "checkpoint")
    return Checkpoint(path=str(folder), run=run, name=name, step=config.step, digest="")


def _jobs(config: EvalConfig) -> list[EvalConfig]:
    """The config split over ``num_jobs`` inference servers, benchmarks dealt round."""
    runs = config.benchmarks
    count = len(runs) if config.num_jobs < 1 else min(config.num_jobs, len(runs))
    return [config.model_copy(update={"benchmarks": runs[i::count]}) for i in range(count)]


def _with_absolute_paths(config: EvalConfig) -> EvalConfig:
    def absolute(path: str) -> str:
        try:
            return str(Path(path).expanduser().absolute())
        except RuntimeError:
            raise ConfigError(f"path {path}: there is no such user's home; write the whole path") from None

    def absolute_yaml(name: str) -> str:
        return absolute(name) if name.endswith((".yaml", ".yml")) else name

    runs, checkpoint = config.benchmarks, config.checkpoint
    if checkpoint and not is_remote(checkpoint):
        checkpoint = absolute(checkpoint)
    return config.model_copy(
        update={
            "checkpoint": checkpoint,
            "results": absolute(config.results),
            "prompt": config.prompt and absolute_yaml(config.prompt),
            "benchmarks": tuple(r.model_copy(update={"name": absolute_yaml(r.name)}) for r in runs),
            "judge": config.judge.model_copy(update={"prompt": absolute_yaml(config.judge.prompt)}),
        }
    )


def main() -> int:
    """``python -m evalcore.plan``: the plan of the config on standard input, both as JSON; how clusters are asked."""
    try:
        planned = plan(EvalConfig.model_validate_json(sys.stdin.buffer.read()))
    except EvalError as error:
        print(f"evalcore: error: {error}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(orjson.dumps(planned))
    return 0


if __name__ == "__main__":
    sys.exit(main())
