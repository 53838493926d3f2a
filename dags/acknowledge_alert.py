"""# Acknowledge an alert

Asks somebody to say that they know of alarms: **ask** shows what was alerted about, and waits under *Required
Actions* for *Acknowledge* or *Leave open*, and a note if there is one. **acknowledge** writes down who answered.

Acknowledging a canary's alarm makes the numbers that it moved to its baseline, and models are judged again: if
nothing holds back a cluster's alarms any more, **release** finds them, and **confirm** starts
**confirm_regression** for them.

Alarms that are acknowledged already are left out; without any others the run ends at once.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, Param

from operators.acknowledge import (
    ACKNOWLEDGE,
    LEAVE_OPEN,
    XCOM_BODY,
    XCOM_SUBJECT,
    AcknowledgeOperator,
    ShowAlarmsOperator,
)
from operators.confirm import ReleaseOperator
from operators.runs import confirmed

with DAG(
    dag_id="acknowledge_alert",
    schedule=None,
    catchup=False,
    # A run waits for its answer: those that nobody answers must not keep the next from being asked.
    max_active_runs=1000,
    # It is started by what has told somebody.
    is_paused_upon_creation=False,
    doc_md=__doc__,
    params={
        "alarms": Param(
            type="array",
            items={"type": "integer"},
            minItems=1,
            description="Their ids, as they stand under the alert.",
        ),
    },
    tags=["evaluation"],
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
) as dag:
    show = ShowAlarmsOperator(task_id="show")
    ask = HITLOperator(
        task_id="ask",
        subject=f"{{{{ ti.xcom_pull(task_ids='show', key='{XCOM_SUBJECT}') }}}}",
        body=f"{{{{ ti.xcom_pull(task_ids='show', key='{XCOM_BODY}') }}}}",
        options=[ACKNOWLEDGE, LEAVE_OPEN],
        params={
            "note": Param("", type=["null", "string"], description="What is done about it, if you like.")
        },
    )
    acknowledge = AcknowledgeOperator(task_id="acknowledge", alarms=show.output, answer=ask.output)
    release = ReleaseOperator(task_id="release")
    confirmed(release.output)
    show >> ask
    acknowledge >> release
