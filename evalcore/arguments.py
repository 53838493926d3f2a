"""How the verbs of the command line are described: their common arguments and options, and what they mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, get_args

import typer

from evalcore.config import EvalConfig, ServerType, is_override, load_config, parse_benchmarks
from evalcore.errors import ConfigError, EvalError

Settings = Annotated[
    str | None,
    typer.Option(help="Refuse a folder that is not of these settings; the id is in `evalcore plan`."),
]
Folders = Annotated[
    list[Path], typer.Argument(help="Folders <results>/<run>/<checkpoint>/<benchmark>, or one above them.")
]
Plot = Annotated[
    list[Path] | None,
    typer.Option(
        help="Draw the metric over the training run's steps: a .png or .html file; may be repeated.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(help="Processes for answers that need algebra; default: one for each core.", min=1),
]
Timeout = Annotated[
    float,
    typer.Option(
        help="Seconds for one such answer; over it it is undecided, in a folder until its `grades/` are deleted.",
        min=0.1,
    ),
]
PAIR_SECONDS = 2.0
"""As ``grading.pool.DEFAULT_TIMEOUT``, which takes long to import."""
Stage = Callable[[EvalConfig], None]
_SETTINGS = "Dotted settings, such as inference.temperature=0.6 client.concurrency=64."


def evaluation(stage: Stage) -> Callable[..., None]:
    """A verb's function with the options of an evaluation; the stage gets the config that they make."""

    def command(
        arguments: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="[CHECKPOINT] [KEY=VALUE]...",
                help=f"A checkpoint folder, or the address of one, as hf://org/repo@step1000. {_SETTINGS}",
            ),
        ] = None,
        suite: Annotated[
            str | None, typer.Option("--suite", "-c", help="A suite of include/suites, or a YAML file.")
        ] = None,
        benchmarks: Annotated[
            str | None,
            typer.Option(
                "--benchmarks", "-b", help="As gsm8k:4,aime24:64; :0 is greedy alone. Default: the suite's."
            ),
        ] = None,
        results: Annotated[str | None, typer.Option("--results", "-o", help="Results folder.")] = None,
        training_run: Annotated[str | None, typer.Option(help="Name of the training run.")] = None,
        name: Annotated[
            str | None, typer.Option(help="Name of the checkpoint; default: its folder's.")
        ] = None,
        step: Annotated[
            int | None, typer.Option(help="Training step, if the folder's name lacks it.")
        ] = None,
        server_type: Annotated[
            str | None, typer.Option(help=f"One of {', '.join(get_args(ServerType))}.")
        ] = None,
        server_address: Annotated[
            str | None, typer.Option(help="A server that runs already: http://host:port/v1.")
        ] = None,
        model: Annotated[str | None, typer.Option(help="Name of the model at that address.")] = None,
        judge_model: Annotated[
            str | None, typer.Option(help="Have all answers judged by this model too.")
        ] = None,
        judge_address: Annotated[str | None, typer.Option(help="Where the judge model is served.")] = None,
        skip_greedy: Annotated[bool, typer.Option("--skip-greedy", help="No greedy answers.")] = False,
        max_problems: Annotated[int | None, typer.Option(help="Only the first so many problems.")] = None,
    ) -> None:
        checkpoint, overrides = _split(arguments or [])
        stage(
            load_config(
                suite,
                overrides=overrides,
                checkpoint=checkpoint,
                benchmarks=None if benchmarks is None else _benchmarks(benchmarks),
                results=results,
                training_run=training_run,
                name=name,
                step=step,
                server={"type": server_type, "address": server_address, "model": model},
                judge={"model": judge_model, "address": judge_address},
                skip_greedy=skip_greedy or None,
                max_problems=max_problems,
            )
        )

    return command


def _benchmarks(given: str) -> str:
    runs = parse_benchmarks(given)
    if not runs:
        raise ConfigError(f"--benchmarks {given!r} names none; expected something like gsm8k:4,aime24:64")
    return ",".join(map(str, runs))


def _split(arguments: list[str]) -> tuple[str | None, list[str]]:
    paths = [a for a in arguments if not is_override(a)]
    if len(paths) > 1:
        raise ConfigError(f"one checkpoint, please, not {len(paths)}: {', '.join(paths)}")
    return (paths[0] if paths else None), [a for a in arguments if is_override(a)]


def folders_and_overrides(arguments: list[str]) -> tuple[list[Path], list[str]]:
    """Arguments that are folders, and those that are dotted settings. ConfigError if there is no folder."""
    folders = [Path(a) for a in arguments if not is_override(a)]
    if not folders:
        raise ConfigError("give at least one folder")
    return folders, [a for a in arguments if is_override(a)]


def benchmark_folders(folders: list[Path]) -> list[Path]:
    """The benchmark folders at or below some folders, ours and NeMo-Skills'."""
    from evalcore import manifest, nemo_skills

    return [
        benchmark
        for folder in folders
        for benchmark in nemo_skills.benchmark_folders(folder) or manifest.benchmark_folders(folder)
    ]


def each(folders: list[Path], stage: Callable[[Path], object]) -> None:
    """Run a stage over benchmark folders; one that fails does not lose the others."""
    failures = []
    for folder in folders:
        try:
            typer.echo(f"{folder}: {stage(folder)}")
        except (EvalError, OSError) as error:
            failures.append(str(error))
    if failures:
        raise EvalError("; ".join(failures))


def options_of(given: list[str] | None) -> dict[str, str]:
    """``percent=value`` as a grader's options, in which no value is anything but text."""
    options = {}
    for option in given or []:
        name, found, value = option.partition("=")
        if not found:
            raise ConfigError(f"--option {option}: give it as name=value")
        options[name] = value
    return options


def examples(about: str, *lines: str) -> str:
    """A verb's help: what it does, then commands to copy."""
    return about + "\n\n**Examples**\n\n" + "\n\n".join(f"`evalcore {line}`" for line in lines)
