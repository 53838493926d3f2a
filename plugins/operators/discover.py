"""discover as a task: the checkpoints of all training runs that are followed and have no run yet.

>>> discover.execute(context)
[{'trigger_run_id': 'ckpt__llama-8b__step-1000__5f0c…', 'conf': {'checkpoint': '/lustre/…/step-1000', …}}]
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice, zip_longest
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from operators.failures import XCOM_FAILURES

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from evalcore.discovery import Place
    from evalcore.tracked import Tracked

_AT_ONCE = 200
"""New runs a round. Airflow maps a task 1,024 times at most, and each takes some tenths of a second."""
_IDS = 100  # that go into the address of one request


class DiscoverOperator(BaseOperator):
    """Returns ``{trigger_run_id, conf}`` of each complete checkpoint that has no run of ``trigger_dag_id`` yet.

    At most some hundred, the oldest steps first and the training runs in turn; the rest comes next time. What
    cannot be read is left for ``FailuresOperator``, and the others go on.
    """

    ui_color = "#f3ecfa"

    def __init__(self, *, trigger_dag_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.trigger_dag_id = trigger_dag_id

    def execute(self, context: Context) -> list[dict[str, Any]]:
        # Here: they import what reading a DAG need not wait for.
        from evalcore.discovery import Findings, find, request
        from hooks.places import at_each

        ti = context["ti"]

        def look(tracked: Tracked, place: Place) -> Findings:
            return find(tracked, place, unknown=lambda ids: self._unknown(ti, ids), limit=_AT_ONCE)

        failures: list[str] = []
        new = []
        for tracked, findings in at_each(look, failures):
            for reason in findings.waiting:
                self.log.info("%s: %s", tracked.training_run, reason)
            new.append([request(tracked, found) for found in findings.found])
            self.log.info("%s: %d new", tracked.training_run, len(findings.found))
        for failure in failures:
            self.log.error("%s", failure)
        ti.xcom_push(XCOM_FAILURES, failures)
        return list(islice(_in_turn(new), _AT_ONCE))

    def _unknown(self, ti: Any, ids: list[str]) -> set[str]:
        """Those of some run ids that have no run. Airflow tells only how many of some there are."""
        if len(ids) > _IDS:
            return set().union(*(self._unknown(ti, ids[i : i + _IDS]) for i in range(0, len(ids), _IDS)))
        if not ids:
            return set()
        count = ti.get_dr_count(dag_id=self.trigger_dag_id, run_ids=ids)
        if count == len(ids):
            return set()
        if count == 0:
            return set(ids)
        half = len(ids) // 2
        return self._unknown(ti, ids[:half]) | self._unknown(ti, ids[half:])


def _in_turn(lists: Iterable[list[dict[str, Any]]]) -> Iterable[dict[str, Any]]:
    return filter(None, chain.from_iterable(zip_longest(*lists)))
