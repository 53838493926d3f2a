"""# Discover checkpoints

Every five minutes: looks where the training runs of `tracked/*.yaml` put their checkpoints, and starts one run
of **evaluate_checkpoint** for each complete one that has none.

A checkpoint's run has an id that follows from it, so that it is evaluated once, however often it is found or
published, and whatever was restarted in between. **discover** prints what is not complete yet; **failures**
fails when a training run could not be looked at, after the others were.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG

from operators.discover import DiscoverOperator
from operators.failures import FailuresOperator

EVALUATION = "evaluate_checkpoint"

with DAG(
    dag_id="discover_checkpoints",
    schedule=timedelta(minutes=5),
    catchup=False,
    max_active_runs=1,
    # There is nothing to look at before somebody has said what to follow.
    is_paused_upon_creation=True,
    doc_md=__doc__,
    tags=["evaluation"],
    render_template_as_native_obj=True,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
) as dag:
    discover = DiscoverOperator(task_id="discover", trigger_dag_id=EVALUATION)
    evaluate = TriggerDagRunOperator.partial(
        task_id="evaluate",
        trigger_dag_id=EVALUATION,
        skip_when_already_exists=True,
        openlineage_inject_parent_info=False,
    ).expand_kwargs(discover.output)
    failures = FailuresOperator(
        task_id="failures", told_by=["discover"], trigger_rule="none_failed", retries=0
    )
    [discover, evaluate] >> failures
