"""Looking again at what is suspected: the runs that do so, and what came of them."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.sdk.definitions.context import Context

CONFIRMATION = "confirm_regression"

_AT_ONCE = 200
"""Confirmations a time. Airflow maps a task 1,024 times at most; the rest is found the next night."""


def to_start(ti: Any, runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of some runs of confirm_regression that are not there yet, and in place of each that failed another.

    One that failed, and whose alarms are undecided still, was killed, or the history was away. Two tasks that ask at
    the same time find the same ids, and Airflow starts each once.
    """
    from evalcore.regression.confirmation import attempt_id

    def is_there(run: str, states: list[str] | None = None) -> bool:
        return bool(ti.get_dr_count(dag_id=CONFIRMATION, run_ids=[run], states=states))

    found: list[dict[str, Any]] = []
    for run in runs:
        if len(found) == _AT_ONCE:
            break
        ids = (attempt_id(run["trigger_run_id"], number) for number in count(1))
        next_ = next(id_ for id_ in ids if not is_there(id_, ["failed"]))
        if not is_there(next_):
            found.append({**run, "trigger_run_id": next_})
    return found


class ReleaseOperator(BaseOperator):
    """Returns ``{trigger_run_id, conf}`` of each run of confirm_regression in which undecided alarms go on.

    One for each evaluation whose alarms no canary holds any more, and for each whose run has failed. That run
    releases what was held, this task does not: what could not be started is found again.
    """

    ui_color = "#f3ecfa"

    def execute(self, context: Context) -> list[dict[str, Any]]:
        # Here: they import what reading a DAG need not wait for.
        from evalcore.history import open_history
        from evalcore.regression.confirmation import confirmations, to_confirm

        with open_history() as history:
            asked = confirmations(history, to_confirm(history))
        runs = to_start(context["ti"], asked)
        for run in runs:
            conf = run["conf"]
            self.log.info(
                "%s: alarms %s of %s go on", run["trigger_run_id"], conf["alarms"], conf["evaluation"]
            )
        return runs


class ConfirmOperator(BaseOperator):
    """Returns ``{trigger_run_id, conf}`` of each run of evaluate_checkpoint that asks again, on fresh seeds.

    None where it cannot be asked again. The DAG run's params are ``alarms`` (ids in the history), ``evaluation`` (the
    run that raised them) and ``params`` (of that run). Alarms that were held are released.
    """

    ui_color = "#f3ecfa"

    def execute(self, context: Context) -> list[dict[str, Any]]:
        from evalcore.history import open_history
        from evalcore.history.alarms import Alarms
        from evalcore.regression.confirmation import requests, unconfirmable

        asked = context["params"]
        if not asked["alarms"]:
            raise AirflowFailException(
                "no alarms are given: evaluate_checkpoint starts this for those it raises"
            )
        with open_history() as history:
            alarms = Alarms(history).release(asked["alarms"])
            if reason := unconfirmable(alarms, asked["params"]):
                self.log.warning("not looked at again: %s", reason)
                return []
            runs = requests(history, alarms, asked["params"])
        for conf in runs:
            self.log.info("%s: %s, seed %d", conf["training_run"], conf["benchmarks"], conf["seed"])
        run = context["dag_run"].run_id
        return [{"trigger_run_id": f"{run[:200]}__{i}", "conf": conf} for i, conf in enumerate(runs)]


class SettleOperator(BaseOperator):
    """Decides what became of the alarms; returns one ``{alarms}``, ids of those to tell somebody of, or none.

    :param confirmed_by: the mapped task whose runs looked again.
    """

    ui_color = "#eaf7ea"

    def __init__(self, *, confirmed_by: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.confirmed_by = confirmed_by

    def execute(self, context: Context) -> list[dict[str, list[int]]]:
        from evalcore.history import open_history
        from evalcore.history.alarms import Alarms, State
        from evalcore.regression.confirmation import settle, unconfirmable

        ti, asked = context["ti"], context["params"]
        with open_history() as history:
            alarms = Alarms(history).get(asked["alarms"])
            failed = unconfirmable(alarms, asked["params"]) or self._failed(ti)
            settled = settle(history, alarms, failed)
        for alarm in settled:
            self.log.info("%s of %s: %s: %s", alarm.kind, alarm.benchmark, alarm.state, alarm.reason)
        confirmed = [alarm.id for alarm in settled if alarm.state is State.CONFIRMED]
        return [{"alarms": confirmed}] if confirmed else []

    def _failed(self, ti: Any) -> str:
        finished = ti.get_task_breadcrumbs(ti.dag_id, ti.run_id)
        states = [t["state"] for t in finished if t["task_id"] == self.confirmed_by]
        if any(state != "success" for state in states):
            return "a run that was to look again failed"
        return ""
