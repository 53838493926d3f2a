"""The ``evalcore`` command: a verb for each stage, and ``run`` for all of them.

Imports of a stage happen inside its verb, so that ``--help`` and a grading job on a cluster node do not
wait for what they do not use.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.logging import RichHandler

from evalcore import __version__, verbs
from evalcore.arguments import (
    PAIR_SECONDS,
    Folders,
    Settings,
    Stage,
    Timeout,
    Workers,
    benchmark_folders,
    each,
    evaluation,
    examples,
    folders_and_overrides,
    options_of,
)
from evalcore.checkpoints import is_remote
from evalcore.config import EvalConfig, section
from evalcore.errors import ConfigError, EvalError
from evalcore.progress import console

app = typer.Typer(
    help="Evaluate LLM checkpoints: prepare, fetch, convert, generate, grade, judge, summarize, track.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)


def _verb(about: str, *lines: str) -> Callable[[Stage], Stage]:
    """Register a verb whose arguments describe an evaluation; the stage gets the config they make."""

    def register(stage: Stage) -> Stage:
        app.command(stage.__name__, help=examples(about, *lines))(evaluation(stage))
        return stage

    return register


@app.command(
    help=examples(
        "Fetch benchmarks from the Hugging Face hub, or read a local file, check them and record their digest.",
        "prepare --list",
        "prepare gsm8k aime24",
        "prepare gsm8k --source gsm8k_test.jsonl",
    )
)
def prepare(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks; see --list.")] = None,
    source: Annotated[Path | None, typer.Option(help="A local JSONL file instead of the hub.")] = None,
    split: Annotated[str | None, typer.Option(help="Another split than the benchmark's own.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is there.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the benchmarks there are.")] = False,
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
        typer.echo(f"{name}: {len(problems)} problems, digest {problems.digest[:12]}")


@app.command(
    help=examples(
        "Serve a small Llama checkpoint on this CPU, OpenAI-compatible; stops on SIGTERM or Ctrl-C.",
        "serve include/tiny/checkpoints/step-001800 --port 8000",
        "serve include/tiny/checkpoints/step-001800 --port 0 --faults 429:first=3",
    )
)
def serve(
    checkpoint: Annotated[Path, typer.Argument(help="A Llama-architecture Hugging Face folder.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one, which is printed.", min=0, max=65535)] = 8000,
    model_name: Annotated[str | None, typer.Option(help="Default: the folder's name.")] = None,
    max_batch: Annotated[int, typer.Option(help="Sequences decoded together.", min=1)] = 64,
    max_model_len: Annotated[
        int | None, typer.Option(help="Longest prompt and answer; default: what it was trained for.", min=2)
    ] = None,
    faults: Annotated[str, typer.Option(help="Misbehave, to test clients; see CONTRIBUTING.")] = "",
) -> None:
    from evalcore.serving.embedded import serve

    serve(
        checkpoint,
        host=host,
        port=port,
        model_name=model_name,
        max_batch=max_batch,
        max_model_len=max_model_len,
        faults=faults,
    )


@_verb(
    "Print the commands of an evaluation and what is wrong with it, if anything; runs nothing.",
    "plan CKPT --suite tiny",
)
def plan(config: EvalConfig) -> None:
    from evalcore import fetch
    from evalcore.plan import plan

    typer.echo(fetch.planned(config) if is_remote(config.checkpoint) else plan(config).render())


@app.command(
    help=examples(
        "Bring a checkpoint that lies elsewhere here, once; prints its folder. Resumes after any end.",
        "fetch hf://allenai/OLMo-2-0425-1B@step1000-tokens3B",
        "fetch wandb://team/llama/checkpoints:v12",
        "fetch s3://bucket/llama-8b/step-1000 --results /data/results",
    )
)
def fetch(
    checkpoint: Annotated[str, typer.Argument(help="Where it lies.")],
    results: Annotated[
        str, typer.Option("--results", "-o", help="Results folder; fetched is into `.checkpoints` of it.")
    ] = "results",
    revision: Annotated[
        str | None, typer.Option(help="Refuse what is not of this revision; see `plan`.")
    ] = None,
) -> None:
    from evalcore import fetch
    from evalcore.errors import CheckpointError

    if not is_remote(checkpoint):
        typer.echo(f"{checkpoint} is a path: nothing to fetch")
        return
    remote = fetch.resolve(checkpoint)
    if revision and remote.revision != revision:
        raise CheckpointError(
            f"checkpoint {checkpoint}: it has changed since it was planned: {remote.revision} is not {revision}"
        )
    typer.echo(f"fetched: {fetch.fetch(remote, results)}")


@_verb(
    "Make the checkpoint that the server gets, in the format and precision of convert_to.",
    "convert CKPT --suite tiny convert_to=hf:bfloat16",
    "convert CKPT --suite tiny converter=dcp",
)
def convert(config: EvalConfig) -> None:
    from evalcore.checkpoints import checkpoint_of
    from evalcore.convert import convert

    checkpoint = checkpoint_of(config)
    served = convert(checkpoint, config.convert_to, checkpoint.folder(config.results))
    typer.echo(f"to serve: {served or config.server.address}")


@_verb(
    "Serve the checkpoint, ask every problem its missing answers, stop the server. Resumes after any end.",
    "generate CKPT --benchmarks gsm8k:4 --server-type vllm inference.temperature=0.6",
    "generate --server-address http://localhost:8000/v1 --model llama-8b -b aime24:64 --skip-greedy",
)
def generate(config: EvalConfig) -> None:
    from evalcore.generate import generate

    for summary in generate(config):
        typer.echo(summary)


@app.command(
    help=examples(
        "Extract and check the answers of benchmark folders; only what is not graded yet.",
        "grade results/run/step-1500/gsm8k",
        "grade nemo-run/eval-results",
        "grade nemo-run/eval-results/gpqa --grader multiple_choice",
    )
)
def grade(
    folders: Folders,
    settings: Settings = None,
    grader: Annotated[
        str | None,
        typer.Option(help="For NeMo-Skills' folders; default: as our benchmark of that name, or math."),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="A grader option for NeMo-Skills' folders, as extract=relaxed.")
    ] = None,
    workers: Workers = None,
    timeout: Timeout = PAIR_SECONDS,
) -> None:
    from evalcore import nemo_skills
    from evalcore.grade import grade

    def graded(folder: Path) -> object:
        if nemo_skills.is_results(folder):
            if settings:
                raise ConfigError(
                    f"{folder}: --settings is for folders with a manifest; NeMo-Skills' have none"
                )
            options = options_of(option)
            return nemo_skills.grade(folder, grader=grader, options=options, workers=workers, timeout=timeout)
        if grader or option:
            raise ConfigError(
                f"{folder}: its manifest names the grader; --grader and --option are for others'"
            )
        return grade(folder, settings=settings, workers=workers, timeout=timeout)

    each(benchmark_folders(folders), graded)


@app.command(
    help=examples(
        "Have a judge model decide whether answers match; asks only what is not judged yet.",
        "judge results/run/step-1500/hle --model gpt-4o --address https://api.openai.com/v1",
        "judge results/run/step-1500/hle judge.model=qwen judge.client.concurrency=8",
        "judge results/run/step-1500/math-500 --model gpt-4o --majority",
    )
)
def judge(
    arguments: Annotated[list[str], typer.Argument(metavar="FOLDER... [judge.KEY=VALUE]...")],
    model: Annotated[str | None, typer.Option(help="The judge model.")] = None,
    address: Annotated[str | None, typer.Option(help="Where it is served: http://host:port/v1.")] = None,
    majority: Annotated[
        bool, typer.Option("--majority", help="Only what most samples of a problem answered, for majority@k.")
    ] = False,
    settings: Settings = None,
) -> None:
    from evalcore import nemo_skills
    from evalcore.config import Judge
    from evalcore.judge import judge

    folders, overrides = folders_and_overrides(arguments)
    asked = section(Judge, "judge", overrides, model=model, address=address)
    if not asked.model:
        raise ConfigError("no judge model; give --model")

    def judged(folder: Path) -> object:
        if nemo_skills.is_results(folder):
            raise ConfigError(
                f"{folder}: NeMo-Skills' results are judged by its llm_math_judge; summarize reads what that wrote"
            )
        return judge(folder, asked, settings=settings, majority=majority)

    each(benchmark_folders(folders), judged)


@app.command(
    help=examples(
        "Compute pass@k and its kin of benchmark folders, write scorecard.json, print the tables.",
        "summarize results/run/step-1500",
        "summarize nemo-run/eval-results --markdown",
    )
)
def summarize(
    folders: Folders,
    markdown: Annotated[bool, typer.Option("--markdown", help="Tables to paste into a report.")] = False,
    settings: Settings = None,
) -> None:
    from evalcore import nemo_skills
    from evalcore.report import as_markdown, as_text
    from evalcore.summarize import Scorecard, summarize

    cards: list[Scorecard] = []
    failures: list[str] = []
    for folder in benchmark_folders(folders):
        try:
            if not nemo_skills.is_results(folder):
                cards.append(summarize(folder, settings=settings))
            elif settings:
                raise ConfigError(
                    f"{folder}: --settings is for folders with a manifest; NeMo-Skills' have none"
                )
            else:
                cards.append(nemo_skills.summarize(folder))
        except (EvalError, OSError) as error:
            failures.append(str(error))
    typer.echo(as_markdown(cards) if markdown else as_text(cards), nl=False)
    if failures:
        raise EvalError("; ".join(failures))


@app.command(
    help=examples(
        "Send a checkpoint's scorecards to W&B: one run per checkpoint, its step as the axis.",
        "track results/run/step-1500 wandb.project=my-evals",
    )
)
def track(
    arguments: Annotated[list[str], typer.Argument(metavar="FOLDER [wandb.KEY=VALUE]...")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BENCHMARK=ID", help="Leave out a benchmark that is not of these settings; see `plan`."
        ),
    ] = None,
) -> None:
    from evalcore.profiles import wandb_defaults
    from evalcore.settings import Wandb
    from evalcore.track import track

    folders, overrides = folders_and_overrides(arguments)
    wandb = section(Wandb, "wandb", overrides, **wandb_defaults())
    pairs = [pair.split("=", 1) for pair in settings or []]
    if wrong := [pair for pair in pairs if len(pair) != 2]:
        raise ConfigError(f"--settings {wrong[0][0]!r}: expected BENCHMARK=ID")
    for folder in folders:
        typer.echo(f"{folder}: {track(folder, wandb, dict(pairs))}")


@_verb(
    "All the stages of an evaluation in this process: fetch, plan, convert, generate, grade, judge, summarize, "
    "record, track.",
    "run include/tiny/checkpoints/step-001800 --suite tiny",
    "run CKPT -b gsm8k:8 --server-type vllm inference.temperature=0.6 --judge-model gpt-4o",
)
def run(config: EvalConfig) -> None:
    from evalcore.report import as_text
    from evalcore.run import run

    evaluated = run(config)
    typer.echo(as_text(evaluated.scorecards), nl=False)
    typer.echo(f"\nresults: {evaluated.folder}")
    if evaluated.tracked:
        typer.echo(evaluated.tracked)
    if evaluated.failures:
        raise EvalError("; ".join(evaluated.failures))


app.add_typer(verbs.app)


@app.callback(invoke_without_command=True)
def _global_options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run a command line, this process's own by default.

    An error the user can mend is one line on standard error and exit code 1, whatever names of files and
    words of servers are in it.
    """
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_level=False, log_time_format="%H:%M:%S")
    logging.basicConfig(level=logging.INFO, handlers=[handler], format="%(message)s")
    for library in ("httpx", "httpx2"):
        # They log every address that is asked, and some of those let anybody in.
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        app(arguments)
    except (EvalError, OSError) as error:
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(error))
        print(f"evalcore: error: {line}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
