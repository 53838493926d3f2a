"""# Nightly regression

Every night: evaluates the canaries of `canaries/*.yaml`, frozen models whose numbers stay the same unless the stack
has moved, and then the newest checkpoint of every training run of `tracked/*.yaml` with its nightly suite.

**canaries** and **models** list what is evaluated, **canary** and **evaluate** wait for those runs of
**evaluate_checkpoint**. **stack** compares each canary with its baseline: if it moved, in either direction, **alert**
says so, and what is found about models on the same cluster is held back until somebody has acknowledged it, or the
canary is back where it was. **failures** fails when something could not be evaluated, after the others were.
**release** finds what was held back and no longer is, unless tonight's comparisons have, and what a run of
**confirm_regression** that failed has left undecided; **confirm** starts one for it.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable

from operators.confirm import ReleaseOperator
from operators.failures import FailuresOperator
from operators.nightly import CanariesOperator, StackOperator, SweepOperator
from operators.runs import confirmed, evaluated, told

with DAG(
    dag_id="nightly_regression",
    schedule=CronTriggerTimetable(os.environ.get("EVALCORE_NIGHTLY") or "0 2 * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    # There is nothing to evaluate before somebody has said what to follow.
    is_paused_upon_creation=True,
    doc_md=__doc__,
    tags=["evaluation"],
    render_template_as_native_obj=True,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
) as dag:
    canaries = CanariesOperator(task_id="canaries")
    canary = evaluated("canary", canaries.output)
    stack = StackOperator(task_id="stack", trigger_rule="all_done")
    models = SweepOperator(task_id="models", trigger_rule="all_done")
    evaluate = evaluated("evaluate", models.output)
    failures = FailuresOperator(
        task_id="failures", told_by=["canaries", "stack", "models"], trigger_rule="all_done", retries=0
    )
    # After the evaluations: the comparisons that find the same again start a confirmation themselves.
    release = ReleaseOperator(task_id="release", trigger_rule="all_done")
    confirmed(release.output)
    canary >> stack >> [*told(stack.output), models]
    evaluate >> [failures, release]
