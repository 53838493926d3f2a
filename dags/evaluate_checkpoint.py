"""# Evaluate a checkpoint

Fetches one checkpoint, converts it, serves it, asks it every problem of the benchmarks, grades and judges the
answers, prints pass@k tables and sends them to W&B.

**fetch** brings a checkpoint that lies elsewhere (`hf://org/repo@step1000`, `wandb://entity/project/name:v12`,
`s3://connection_id@bucket/run/step-1000`) to where jobs read it; it is skipped where the checkpoint is a path.
**plan** checks the params and lays out the commands; with `dry_run` it prints them and stops. Each stage
is an `evalcore` command that runs as a job of its own; *Job log* on a task shows what it prints.
**generate** runs once for each inference server, **score** once for each benchmark. A benchmark that
fails does not lose the others: **report** prints what there is, then fails the run and says what failed
and why. Clear a failed task to go on from there: what was done already is not done again. Clearing or
failing a waiting task stops its job. **record** puts the numbers into the history, and **compare** says
whether the checkpoint got worse than its baseline: the previous step, or what the file in `tracked/` says. If it
did, **confirm** starts a run of **confirm_regression**, which looks again before anybody is told.

API keys come from the environment (`OPENAI_API_KEY`, `WANDB_API_KEY`, `HF_TOKEN`), never from params.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, Param, task_group

from evalcore import include
from evalcore.profiles import load_profiles
from operators.compare import CompareOperator
from operators.convert import ConvertOperator
from operators.fetch import FetchOperator
from operators.generate import GenerateOperator
from operators.grade import GradeOperator
from operators.judge import JudgeOperator
from operators.plan import PlanOperator
from operators.record import RecordOperator
from operators.report import ReportOperator
from operators.runs import confirmed
from operators.summarize import SummarizeOperator
from operators.track import TrackOperator

RESULTS = str(Path(os.environ.get("EVALCORE_RESULTS", "results")).absolute())
BENCHMARKS = r"^\s*[A-Za-z0-9][\w.+-]*(:\d{1,6})?(\s*,\s*[A-Za-z0-9][\w.+-]*(:\d{1,6})?)*\s*$"
ADDRESS = r"^https?://\S+$"
OVERRIDE = r"^\+{0,2}[A-Za-z_][\w.]*=.*$"


def optional(kind: str, description: str, **schema: object) -> Param:
    """A param that may stay empty: the suite's own value holds then."""
    return Param(None, type=["null", kind], description=description, **schema)


# The form shows descriptions as plain text, and the sections folded up but for the first.
params = {
    "checkpoint": optional(
        "string",
        "Hugging Face folder of the checkpoint, or one in another format with converter=NAME in the overrides, or "
        "where to fetch it: hf://org/repo@step1000, wandb://entity/project/name:v12, "
        "s3://connection_id@bucket/step-1000. Not needed if a server address is given.",
    ),
    "suite": Param(
        "default",
        type="string",
        enum=include.names("suites"),
        description="What to run and how. All that is left empty in this form is as the suite says.",
    ),
    "benchmarks": optional(
        "string",
        "Instead of the suite's, with samples of each problem: gsm8k:4,aime24:64 (:4 is four samples after a "
        "greedy answer, :0 greedy alone).",
        pattern=BENCHMARKS,
    ),
    "max_problems": optional("integer", "Only the first so many problems of each benchmark.", minimum=1),
    "dry_run": Param(False, type="boolean", description="Print every command and stop."),
    "training_run": optional(
        "string",
        "Name of the training run; by default the folder above the checkpoint's.",
        section="Names and places",
    ),
    "name": optional(
        "string",
        "Name of the checkpoint in results and history; by default its folder's.",
        section="Names and places",
    ),
    "step": optional(
        "integer",
        "Training step; by default the number that ends the folder's name.",
        section="Names and places",
        minimum=0,
    ),
    "results": Param(
        RESULTS,
        type="string",
        minLength=1,
        description="Folder of all results.",
        section="Names and places",
    ),
    "server_type": Param(
        None,
        type=["null", "string"],
        enum=[None, "embedded", "vllm", "sglang", "trtllm", "openai"],
        values_display={"null": "as the suite says"},
        description="Which inference server to start; openai starts none and needs an address.",
        section="Inference server",
    ),
    "server_address": optional(
        "string",
        "A server that runs already: http://host:8000/v1.",
        section="Inference server",
        pattern=ADDRESS,
    ),
    "model": optional("string", "The model's name at that address.", section="Inference server"),
    "skip_greedy": Param(
        False, type="boolean", description="Only samples, no greedy answers.", section="Sampling"
    ),
    "temperature": optional(
        "number", "Of samples; greedy answers have 0.", section="Sampling", minimum=0, maximum=5
    ),
    "top_p": optional("number", "Nucleus sampling.", section="Sampling", exclusiveMinimum=0, maximum=1),
    "tokens_to_generate": optional("integer", "Longest answer, in tokens.", section="Sampling", minimum=1),
    "seed": optional(
        "integer", "Another seed gives other samples; the same one the same.", section="Sampling", minimum=0
    ),
    "judge_model": optional(
        "string", "Have all answers judged by this model too; without one nothing is judged.", section="Judge"
    ),
    "judge_address": optional(
        "string", "Where the judge model is served; by default OpenAI.", section="Judge", pattern=ADDRESS
    ),
    "cluster": Param(
        "local",
        type="string",
        enum=list(load_profiles().names),
        description="Where the jobs run: a profile of env.toml, whose checkpoint and results lie there; local is the "
        "machine of Airflow's workers.",
        section="Names and places",
    ),
    "force_squash": Param(
        False,
        type="boolean",
        description="On a Slurm cluster: make the squashfs file of the container's image anew, once for this run; "
        "for an image that has changed under its name.",
        section="Names and places",
    ),
    "compare": Param(
        True,
        type="boolean",
        description="Compare with the baseline, have a loss confirmed, and alert.",
        section="Baseline",
    ),
    "overrides": Param(
        [],
        type="array",
        items={"type": "string", "pattern": OVERRIDE},
        description="Any other setting, one on a line: client.concurrency=64.",
        section="Other settings",
    ),
}

with DAG(
    dag_id="evaluate_checkpoint",
    schedule=None,
    catchup=False,
    doc_md=__doc__,
    params=params,
    tags=["evaluation"],
    render_template_as_native_obj=True,
    # For workers that die and clusters that are away; a command that fails is not tried again (see JobOperator).
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
) as dag:
    fetch = FetchOperator(
        task_id="fetch",
        cluster="{{ params.cluster }}",
        force_squash="{{ params.force_squash }}",
    )
    # A checkpoint that needs no fetching skips that, and nothing else.
    plan = PlanOperator(task_id="plan", fetched=fetch.output, trigger_rule="none_failed")
    planned = plan.output
    job = {
        "jobs_folder": planned["jobs_folder"],
        "cluster": "{{ params.cluster }}",
        "force_squash": "{{ params.force_squash }}",
    }

    convert = ConvertOperator(task_id="convert", argv=planned["convert"], returns=planned["generate"], **job)
    generate = GenerateOperator.partial(task_id="generate", **job).expand_kwargs(convert.output)

    @task_group
    def score(name, brings, grade, judge, summarize):
        graded = GradeOperator(task_id="grade", argv=grade, subject=name, trigger_rule="all_done", **job)
        judged = JudgeOperator(task_id="judge", argv=judge, subject=name, **job)
        summarized = SummarizeOperator(
            task_id="summarize",
            argv=summarize,
            subject=name,
            brings=brings,
            trigger_rule="none_failed",
            **job,
        )
        generate >> graded >> judged >> summarized

    scores = score.expand_kwargs(planned)
    # As a template, so that only scores are upstream: with plan there, one success would always be had.
    track = TrackOperator(
        task_id="track",
        argv="{{ ti.xcom_pull(task_ids='plan', key='track') }}",
        jobs_folder="{{ ti.xcom_pull(task_ids='plan', key='jobs_folder') }}",
        cluster="{{ params.cluster }}",
        force_squash="{{ params.force_squash }}",
        trigger_rule="all_done_min_one_success",
    )
    record = RecordOperator(task_id="record", trigger_rule="all_done_min_one_success")
    compare = CompareOperator(task_id="compare", recorded=record.output)
    # Not waited for: what comes of it is no part of this evaluation.
    confirm = confirmed(compare.output)
    report = ReportOperator(task_id="report", trigger_rule="all_done", retries=0)
    scores >> [track, record]
    [track, confirm] >> report
