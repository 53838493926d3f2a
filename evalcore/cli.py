"""The ``evalcore`` command: a verb for each stage, and ``run`` for all of them.

Imports of a stage happen inside its verb, so that ``--help`` and a grading job on a cluster node do not
wait for what they do not use.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, get_args

import typer

from evalcore import __version__
from evalcore.config import EvalConfig, ServerType, load_config, parse_benchmarks
from evalcore.errors import ConfigError, EvalError

app = typer.Typer(
    help="Evaluate LLM checkpoints: prepare, convert, generate, grade, judge, summarize, track.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)

Folders = Annotated[
    list[Path], typer.Argument(help="Benchmark folders, <results>/<run>/<checkpoint>/<benchmark>.")
]
_SETTINGS = "Dotted settings, such as inference.temperature=0.6 client.concurrency=64."


def _evaluation(stage: Callable[[EvalConfig], None]) -> Callable[..., None]:
    """A command whose arguments describe an evaluation, for the verbs that start from one."""

    def command(
        arguments: Annotated[
            list[str] | None,
            typer.Argument(metavar="[CHECKPOINT] [KEY=VALUE]...", help=f"A checkpoint folder. {_SETTINGS}"),
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
        step: Annotated[int | None, typer.Option(help="Training step, if the folder's name lacks it.")] = None,
        server_type: Annotated[
            str | None, typer.Option(help=f"One of {', '.join(get_args(ServerType))}.")
        ] = None,
        server_address: Annotated[
            str | None, typer.Option(help="A server that runs already: http://host:port/v1.")
        ] = None,
        model: Annotated[str | None, typer.Option(help="Name of the model at that address.")] = None,
        judge_model: Annotated[str | None, typer.Option(help="Judge with this model.")] = None,
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
                benchmarks=",".join(map(str, parse_benchmarks(benchmarks))) if benchmarks else None,
                results=results,
                training_run=training_run,
                step=step,
                server={"type": server_type, "address": server_address, "model": model},
                judge={"model": judge_model, "address": judge_address},
                skip_greedy=skip_greedy or None,
                max_problems=max_problems,
            )
        )

    command.__doc__ = stage.__doc__
    return command


def _split(arguments: list[str]) -> tuple[str | None, list[str]]:
    paths = [a for a in arguments if "=" not in a]
    if len(paths) > 1:
        raise ConfigError(f"one checkpoint, please, not {len(paths)}: {', '.join(paths)}")
    return (paths[0] if paths else None), [a for a in arguments if "=" in a]


def _section(kind: type[_S], name: str, overrides: list[str], **options: object) -> _S:
    """The settings of one section from its overrides (``judge.client.concurrency=8``) and options."""
    if wrong := [o for o in overrides if not o.lstrip("+").startswith(f"{name}.")]:
        raise ConfigError(f"{wrong[0]!r}: this verb takes {name}.KEY=VALUE")
    return section(kind, name, overrides, **options)


def _folders(arguments: list[str]) -> tuple[list[Path], list[str]]:
    folders = [Path(a) for a in arguments if "=" not in a]
    if not folders:
        raise ConfigError("give at least one folder")
    return folders, [a for a in arguments if "=" in a]


def _each(folders: list[Path], stage: Callable[[Path], object]) -> None:
    """Run a stage over folders; one that fails does not lose the others."""
    failures = []
    for folder in folders:
        try:
            typer.echo(f"{folder}: {stage(folder)}")
        except EvalError as error:
            failures.append(str(error))
    if failures:
        raise EvalError("; ".join(failures))


@app.command(help=_help("prepare", "gsm8k aime24", "gsm8k --source gsm8k_test.jsonl", "--list"))
def prepare(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks; see --list.")] = None,
    source: Annotated[Path | None, typer.Option(help="A local JSONL file instead of the hub.")] = None,
    split: Annotated[str | None, typer.Option(help="Another split than the benchmark's own.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is there.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the benchmarks.")] = False,
) -> None:
    from evalcore import benchmarks
    from evalcore.prepare import prepare

    if list_:
        for name in benchmarks.benchmark_names():
            typer.echo(f"{name:20} {benchmarks.load_benchmark(name).description}")
        return
    if not names:
        raise ConfigError("name a benchmark to prepare, or --list")
    if source and len(names) > 1:
        raise ConfigError("--source is one benchmark's file; name one benchmark")
    for name in names:
        problems = prepare(name, split=split, source=source, force=force)
        typer.echo(f"{name}: {len(problems.problems)} problems, digest {problems.digest[:12]}")


@app.command()
def serve(
    checkpoint: Annotated[Path, typer.Argument(help="A Llama-architecture Hugging Face folder.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one, which is printed.", min=0, max=65535)] = 8000,
    model_name: Annotated[str | None, typer.Option(help="Default: the folder's name.")] = None,
    max_batch: Annotated[int, typer.Option(help="Sequences decoded together.", min=1)] = 64,
    faults: Annotated[str, typer.Option(help="Misbehave, for tests: see the README.")] = "",
) -> None:
    from evalcore.serving.embedded import serve

    serve(checkpoint, host=host, port=port, model_name=model_name, max_batch=max_batch, faults=faults)


@app.command()
def grade(folders: Folders) -> None:
    from evalcore.grade import grade

    _each(folders, grade)


@app.command()
def judge(
    arguments: Annotated[list[str], typer.Argument(metavar="FOLDER... [judge.KEY=VALUE]...")],
    model: Annotated[str | None, typer.Option(help="The judge model.")] = None,
    address: Annotated[str | None, typer.Option(help="Where it is served: http://host:port/v1.")] = None,
) -> None:
    from evalcore.config import Judge
    from evalcore.judge import judge

    folders, overrides = _folders(arguments)
    settings = _section(Judge, "judge", overrides, model=model, address=address)
    if not settings.model:
        raise ConfigError("no judge model; give --model")
    _each(folders, lambda folder: judge(folder, settings))
