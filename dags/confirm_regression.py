"""# Confirm a regression

Started by **evaluate_checkpoint** when a checkpoint looks worse than its baseline; where a canary held that back, by
**acknowledge_alert** or **nightly_regression** when none does any more. Asks the benchmarks in question again, of
both checkpoints and on fresh seeds, before anybody is told.

**confirm** says which runs of evaluate_checkpoint that takes, **again** waits for them, and **settle** decides what
became of the alarms; what could not be looked at again counts as confirmed, and says why. **alert** sends what is
confirmed to the channels of the training run's file in `tracked/`; a channel that fails is tried again, and the
evaluation is not touched by it. **acknowledge** then waits for somebody to say that they know.

A run that failed before **settle** had decided is started again, under its id with `__2`, by whichever of those
three DAGs looks next.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from operators.confirm import ConfirmOperator, SettleOperator
from operators.runs import evaluated, told

with DAG(
    dag_id="confirm_regression",
    schedule=None,
    catchup=False,
    # What is suspected at night is not to wait for somebody to switch this on.
    is_paused_upon_creation=False,
    doc_md=__doc__,
    params={
        "alarms": Param([], type="array", items={"type": "integer"}, description="Ids in the history."),
        "evaluation": Param(
            "", type="string", description="The run of evaluate_checkpoint that raised them."
        ),
        "params": Param({}, type="object", description="The params of that run."),
    },
    tags=["evaluation"],
    render_template_as_native_obj=True,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
) as dag:
    confirm = ConfirmOperator(task_id="confirm")
    again = evaluated("again", confirm.output)
    settle = SettleOperator(task_id="settle", confirmed_by="again", trigger_rule="all_done")
    confirm >> again >> settle
    settle >> told(settle.output)
