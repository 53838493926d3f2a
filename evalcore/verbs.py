"""The verbs of ``evalcore`` that are no stages: what is asked of results, and what goes around evaluations."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from evalcore.arguments import (
    PAIR_SECONDS,
    Folders,
    Plot,
    Timeout,
    Workers,
    benchmark_folders,
    examples,
    options_of,
)
from evalcore.errors import ConfigError, EvalError, ResultsError
from evalcore.progress import console

app = typer.Typer()


@app.command(
    help=examples(
        "Say why an answer got its verdict: what was extracted, how it was read, which stage decided.",
        "explain results/run/step-1500/gsm8k --problem gsm8k-17",
        "explain results/run/step-1500/gsm8k --problem gsm8k-17 --sample 3",
        "explain nemo-run/eval-results/aime24/output-rs0.jsonl --problem 12",
    )
)
def explain(
    place: Annotated[Path, typer.Argument(help="A benchmark folder, or a JSONL file with responses.")],
    problem: Annotated[str, typer.Option(help="Its id; in a file without ids the line number.")],
    sample: Annotated[int | None, typer.Option(help="-1 is greedy; default: the first there is.")] = None,
    grader: Annotated[
        str | None, typer.Option(help="For a file; default: as our benchmark of its folder's name, or math.")
    ] = None,
    option: Annotated[list[str] | None, typer.Option(help="A grader option, as extract=relaxed.")] = None,
) -> None:
    from evalcore.explain import explain

    typer.echo(explain(place, problem, sample=sample, grader=grader, options=options_of(option)))


@app.command(
    help=examples(
        "Compare the pairs of a JSONL file: rows with gold, pred and kind (answer or text) come out with equal, "
        "stage and ms. The counts go to standard error.",
        "equal pairs.jsonl",
        "equal pairs.jsonl --option percent=value --output verdicts.jsonl",
    )
)
def equal(
    file: Annotated[Path, typer.Argument(help="One JSON object on a line.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: standard output.")] = None,
    grader: Annotated[str, typer.Option(help="math, multiple_choice or exact.")] = "math",
    option: Annotated[list[str] | None, typer.Option(help="A grader option, as percent=value.")] = None,
    workers: Workers = None,
    timeout: Timeout = PAIR_SECONDS,
) -> None:
    import orjson

    from evalcore.equal import Counts, equal
    from evalcore.records import written_whole

    counts = Counts()
    with written_whole(output) if output else nullcontext(sys.stdout.buffer) as stream:
        for row in equal(file, grader=grader, options=options_of(option), workers=workers, timeout=timeout):
            counts = counts.plus(row)
            stream.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    typer.echo(counts, err=True)


@app.command(
    help=examples(
        "Say whether a checkpoint got worse than another: differences by problem, their errors, and a verdict.",
        "compare results/run/step-1800 results/run/step-900",
        "compare results/run/step-1800 results/run/step-900 --margin 0.02 --margin aime24=0.05 --flips 20",
        "compare results/run/step-1800 results/run/step-900 --plot step-1800.png --plot step-1800.html",
    )
)
def compare(
    folder: Annotated[Path, typer.Argument(help="The checkpoint's folder, or one of its benchmarks'.")],
    baseline: Annotated[Path, typer.Argument(help="The same of what it is compared with.")],
    margin: Annotated[
        list[str] | None,
        typer.Option(help="How much worse is still fine: 0.01 is a point; aime24=0.05 for one benchmark."),
    ] = None,
    advisory: Annotated[
        list[str] | None, typer.Option(help="A benchmark whose false alarms matter less; may be repeated.")
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="False alarms, over all benchmarks together.", min=1e-9, max=0.5)
    ] = 0.05,
    flips: Annotated[int, typer.Option(help="Problems to list of each benchmark.", min=0)] = 10,
    plot: Plot = None,
    fail_on_regression: Annotated[
        bool, typer.Option("--fail-on-regression", help="Exit with code 3 if it regressed.")
    ] = False,
) -> None:
    from evalcore import plot as plots
    from evalcore.compare import MARGIN, as_text, compare_folders, margins_of, sentence
    from evalcore.comparison import Verdict

    plots.check(plot or [])
    margins = margins_of(margin or [])
    compared = compare_folders(
        folder,
        baseline,
        margin=margins.pop("", MARGIN),
        margins=margins,
        advisory=advisory or [],
        alpha=alpha,
    )
    typer.echo(as_text(compared, flips=flips), nl=False)
    if plot:
        plots.draw(plots.of_comparison(compared), sentence(compared), plot)
    if fail_on_regression and compared.verdict is Verdict.REGRESSED:
        raise typer.Exit(3)


@app.command(
    help=examples(
        "Put the numbers of benchmark folders into the history; what is there already is not written again.",
        "record results/run/step-1500/gsm8k",
        "record results",
    )
)
def record(folders: Folders) -> None:
    from collections import Counter

    from rich.progress import track

    from evalcore import nemo_skills
    from evalcore.history import open_history

    outcomes: Counter[str] = Counter()
    failures = []
    with open_history() as history:
        found = benchmark_folders(folders)
        for folder in track(found, "recording", console=console, disable=not console.is_terminal):
            try:
                if nemo_skills.is_results(folder):
                    raise ConfigError(
                        f"{folder}: NeMo-Skills' results do not say what made them; not recorded"
                    )
                outcomes[history.record(folder).outcome] += 1
            except (EvalError, OSError) as error:
                failures.append(str(error))
    typer.echo(", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items()) or "nothing recorded")
    if failures:
        raise EvalError("; ".join(failures))


@app.command(
    help=examples(
        "List the training runs there are, or the evaluations of one, newest checkpoint first. Every table of "
        "every scorecard is in what --export writes.",
        "history",
        "history run-7 --benchmark gsm8k --last 20",
        "history run-7 --export run-7.parquet",
        "history run-7 --plot run-7.html",
    )
)
def history(
    training_run: Annotated[str | None, typer.Argument(help="Its name.")] = None,
    benchmark: Annotated[str | None, typer.Option("--benchmark", "-b", help="Of this one only.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="Only what is comparable with it.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="A line of the tables, as greedy or pass@8; default: pass@1.")
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(help="Checkpoints of a run; default: 50; all, with --export or --plot.", min=1),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="A file to write instead: .csv, or .parquet (needs pyarrow).")
    ] = None,
    plot: Plot = None,
) -> None:
    from evalcore import plot as plots
    from evalcore.history import open_history

    plots.check(plot or [])
    if plot and not training_run:
        raise ConfigError("--plot is of one training run: give its name")
    with open_history() as opened:
        from evalcore.history import table

        if not (training_run or benchmark or fingerprint or mode or last or export):
            table.show(table.runs_table(opened.training_runs()))
            return
        evaluations = opened.evaluations(
            run=training_run,
            benchmark=benchmark,
            fingerprint=fingerprint,
            mode=mode,
            last=last if last or export or plot else 50,
        )
        if not evaluations:
            raise ResultsError(
                "the history has no such evaluation; `evalcore history` lists the training runs"
            )
        if export:
            typer.echo(f"{export}: {table.export(opened, evaluations, export):,} rows")
        if plot:
            panels = plots.of_run(evaluations)
            plots.draw(panels, training_run or "", plot)
            typer.echo(f"{', '.join(map(str, plot))}: {len(panels):,} benchmarks")
        if not (export or plot):
            table.show(table.evaluations_table(evaluations))


@app.command(
    help=examples(
        "List the alarms there are and what became of each, the last raised first.",
        "alarms",
        "alarms run-7 --state held",
    )
)
def alarms(
    training_run: Annotated[str | None, typer.Argument(help="Of this one only.")] = None,
    state: Annotated[
        str | None,
        typer.Option(help="suspected, held, refuted, confirmed, repeated or acknowledged; default: all."),
    ] = None,
) -> None:
    from evalcore.history import open_history

    with open_history() as opened:
        from evalcore.history import table
        from evalcore.history.alarms import Alarms, State

        if state not in (None, *State):
            raise ConfigError(f"--state {state}: expected one of {', '.join(State)}")
        found = Alarms(opened).find(run=training_run, state=State(state) if state else None)
        if found:
            table.show(table.alarms_table(found))
        else:
            typer.echo("no such alarms")


@app.command(
    help=examples(
        "List the cluster profiles of env.toml, or print one of them with all that it extends.",
        "profiles",
        "profiles my-cluster --file ~/nemotron/env.toml",
    )
)
def profiles(
    name: Annotated[str | None, typer.Argument(help="One of them, as JSON.")] = None,
    file: Annotated[Path | None, typer.Option(help="Default: $EVALCORE_ENV_TOML, then ./env.toml.")] = None,
) -> None:
    from evalcore.profiles import describe, load_profiles

    known = load_profiles(file)
    typer.echo(known.get(name).model_dump_json(indent=2, exclude_none=True) if name else describe(known))
    if name and (unused := known.unused(name)):
        typer.echo(f"not used by an evaluation: {', '.join(unused)}", err=True)


@app.command(
    help=examples(
        "Have Airflow evaluate a checkpoint that training has just written: once, however often it is published, "
        "or discovered. Reads EVALCORE_AIRFLOW_URL and EVALCORE_AIRFLOW_TOKEN, or EVALCORE_AIRFLOW_USER and "
        "EVALCORE_AIRFLOW_PASSWORD, from the environment.",
        "publish /ckpt/llama-8b/step-1500 --run llama-8b --step 1500",
        "publish /ckpt/llama-8b/step-1500 --run llama-8b --suite nightly --cluster my-cluster",
    )
)
def publish(
    path: Annotated[str, typer.Argument(help="The checkpoint's folder.")],
    run: Annotated[str, typer.Option(help="The training run; its file in tracked/ says how to evaluate it.")],
    step: Annotated[
        int | None, typer.Option(help="Training step, if the folder's name lacks it.", min=0)
    ] = None,
    suite: Annotated[str | None, typer.Option(help="Default: as its tracked file says.")] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="Where the path is: a profile of Airflow's env.toml. Default: as its file says."),
    ] = None,
    patience: Annotated[
        float, typer.Option(help="Seconds for which an Airflow that is away is asked again.", min=0)
    ] = 600.0,
) -> None:
    from evalcore.publish import publish

    done = publish(path, run, step=step, suite=suite, cluster=cluster, patience=patience)
    typer.echo(f"run {done.run_id} " + ("is made" if done.is_new else "was there already: nothing to do"))
