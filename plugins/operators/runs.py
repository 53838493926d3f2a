"""Tasks that several DAGs have alike, each for as many as another task returns: an evaluation that is waited for, a
confirmation, and telling somebody.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator

from operators.alert import AlertOperator
from operators.confirm import CONFIRMATION

if TYPE_CHECKING:
    from airflow.sdk import XComArg
    from airflow.sdk.definitions.mappedoperator import MappedOperator


def evaluated(task_id: str, runs: XComArg) -> MappedOperator:
    """Runs of evaluate_checkpoint, each waited for.

    runs: a list of ``{trigger_run_id, conf}``.
    """
    return TriggerDagRunOperator.partial(
        task_id=task_id,
        trigger_dag_id="evaluate_checkpoint",
        # Tried again, a run goes on where it was.
        reset_dag_run=True,
        wait_for_completion=True,
        deferrable=True,
        poke_interval=10,
        openlineage_inject_parent_info=False,
    ).expand_kwargs(runs)


def confirmed(runs: XComArg) -> MappedOperator:
    """``confirm``: runs of confirm_regression, each once; started and not waited for.

    runs: a list of ``{trigger_run_id, conf}``.
    """
    return TriggerDagRunOperator.partial(
        task_id="confirm",
        trigger_dag_id=CONFIRMATION,
        skip_when_already_exists=True,
        openlineage_inject_parent_info=False,
    ).expand_kwargs(runs)


def told(alarms: XComArg) -> list[MappedOperator]:
    """``alert``, which sends what is confirmed, and ``acknowledge``: a run that waits for somebody to know of it.

    alarms: a list of one ``{alarms}``, or of none.
    """
    alert = AlertOperator.partial(
        task_id="alert",
        retries=8,
        retry_delay=timedelta(seconds=30),
        retry_exponential_backoff=True,
        max_retry_delay=timedelta(hours=1),
    ).expand_kwargs(alarms)
    acknowledge = TriggerDagRunOperator.partial(
        task_id="acknowledge",
        trigger_dag_id="acknowledge_alert",
        trigger_run_id="acknowledge__{{ run_id }}",
        skip_when_already_exists=True,
        openlineage_inject_parent_info=False,
    ).expand(conf=alarms)
    return [alert, acknowledge]
