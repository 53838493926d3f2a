"""# Promote a baseline

Makes a checkpoint the baseline of its training run, after somebody has agreed: **ask** shows the numbers beside
those that it was compared with, and waits under *Required Actions*.

What comes later is compared with nothing before it (policies `previous` and `best`), or with it instead of the pinned
checkpoint. Where the policy is the same step of another training run, nothing can be promoted.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Param

from operators.acknowledge import XCOM_BODY, XCOM_SUBJECT
from operators.promote import PromoteOperator, ProposeOperator

with DAG(
    dag_id="promote_baseline",
    schedule=None,
    catchup=False,
    # A run waits for its answer: those that nobody answers must not keep the next from being asked.
    max_active_runs=1000,
    is_paused_upon_creation=False,
    doc_md=__doc__,
    params={
        "training_run": Param(type="string", minLength=1, description="As evalcore history lists it."),
        "checkpoint": Param(type="string", minLength=1, description="Its name, as step-1500."),
        "benchmarks": Param(
            None, type=["null", "array"], items={"type": "string"}, description="All, if left empty."
        ),
    },
    tags=["evaluation"],
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
) as dag:
    propose = ProposeOperator(task_id="propose")
    ask = ApprovalOperator(
        task_id="ask",
        subject=f"{{{{ ti.xcom_pull(task_ids='propose', key='{XCOM_SUBJECT}') }}}}",
        body=f"{{{{ ti.xcom_pull(task_ids='propose', key='{XCOM_BODY}') }}}}",
        params={"note": Param("", type=["null", "string"], description="Why, if you like.")},
    )
    promote = PromoteOperator(task_id="promote", evaluations=propose.output, answer=ask.output)
    propose >> ask
