"""# Nightly regression

Every night: evaluates the canaries of `canaries/*.yaml`, frozen models whose numbers stay the same unless the stack
has moved, and then the newest checkpoint of every training run of `tracked/*.yaml` with its nightly suite.

**canaries** and **models** list what is evaluated, **canary** and **evaluate** wait for those runs of
**evaluate_checkpoint**. **stack** compares each canary with its baseline: if it moved, in either direction, **alert**
says so, and what is found about models on the same cluster is held back until somebody has acknowledged it, or the
canary is back where it was. **failures** fails when something could not be evaluated, after the others were.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, CronTriggerTimetable

from operators.alert import AlertOperator
from operators.failures import FailuresOperator
from operators.nightly import CanariesOperator, StackOperator, SweepOperator

EVALUATION = {
    "trigger_dag_id": "evaluate_checkpoint",
    # Tried again, a run goes on where it was.
    "reset_dag_run": True,
    "wait_for_completion": True,
    "deferrable": True,
    "poke_interval": 10,
    "openlineage_inject_parent_info": False,
}

with DAG(
    dag_id="nightly_regression",
    schedule=CronTriggerTimetable("0 2 * * *", timezone="UTC"),
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
    canary = TriggerDagRunOperator.partial(task_id="canary", **EVALUATION).expand_kwargs(canaries.output)
    stack = StackOperator(task_id="stack", trigger_rule="all_done")
    alert = AlertOperator.partial(
        task_id="alert",
        retries=8,
        retry_delay=timedelta(seconds=30),
        retry_exponential_backoff=True,
        max_retry_delay=timedelta(hours=1),
    ).expand_kwargs(stack.output)
    acknowledge = TriggerDagRunOperator.partial(
        task_id="acknowledge",
        trigger_dag_id="acknowledge_alert",
        trigger_run_id="acknowledge__{{ run_id }}",
        skip_when_already_exists=True,
        openlineage_inject_parent_info=False,
    ).expand(conf=stack.output)
    models = SweepOperator(task_id="models", trigger_rule="all_done")
    evaluate = TriggerDagRunOperator.partial(task_id="evaluate", **EVALUATION).expand_kwargs(models.output)
    failures = FailuresOperator(
        task_id="failures", told_by=["canaries", "models"], trigger_rule="all_done", retries=0
    )
    canary >> stack >> [alert, acknowledge, models]
    evaluate >> failures
