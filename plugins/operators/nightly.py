"""The nightly sweep: what is evaluated tonight, and whether the stack itself has moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from evalcore.errors import ConfigError
from operators.failures import XCOM_FAILURES

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk.definitions.context import Context


class CanariesOperator(BaseOperator):
    """Returns ``{trigger_run_id, conf}`` of the run of evaluate_checkpoint of each canary."""

    ui_color = "#f3ecfa"

    def execute(self, context: Context) -> list[dict[str, Any]]:
        # Here: it imports what reading a DAG need not wait for.
        from evalcore.regression.canary import canaries, request

        failures, runs = [], []
        for name, canary in canaries():
            if isinstance(canary, ConfigError):
                failures.append(str(canary))
                self.log.error("%s", canary)
            else:
                runs.append(request(name, canary, _night(context)))
        context["ti"].xcom_push(XCOM_FAILURES, failures)
        return runs


class StackOperator(BaseOperator):
    """Compares each canary with its own baseline; returns one ``{alarms}``, ids to tell somebody of, or none.

    A canary whose checkpoint is another one is left for ``FailuresOperator`` in the XCom ``failures``.
    """

    ui_color = "#eaf7ea"

    def execute(self, context: Context) -> list[dict[str, list[int]]]:
        from evalcore.history import open_history
        from evalcore.regression.canary import canaries, judge_stack, unwatched

        told, failures = [], []
        with open_history() as history:
            for name, canary in canaries():
                if isinstance(canary, ConfigError):
                    continue
                alarms = judge_stack(history, name, canary, _night(context))
                for alarm in alarms:
                    self.log.warning("the stack of %s moved: %s", canary.cluster, alarm.reason)
                if missing := unwatched(history, name, _night(context)):
                    self.log.warning("%s", missing.reason)
                    failures += [missing.reason] if missing.changed else []
                elif not alarms:
                    self.log.info("%s: where it was", name)
                told += [alarm.id for alarm in alarms]
        context["ti"].xcom_push(XCOM_FAILURES, failures)
        return [{"alarms": told}] if told else []


class SweepOperator(BaseOperator):
    """Returns ``{trigger_run_id, conf}`` of the run of evaluate_checkpoint of each tracked model's newest checkpoint.

    What cannot be read is left for ``FailuresOperator``, and the others go on.
    """

    ui_color = "#f3ecfa"

    def execute(self, context: Context) -> list[dict[str, Any]]:
        from evalcore.discovery import newest, request
        from evalcore.regression.canary import night_name
        from hooks.places import at_each

        night = night_name(_night(context))
        failures: list[str] = []
        runs = []
        for tracked, found in at_each(lambda _, place: newest(place), failures):
            if found is None:
                self.log.info("%s: no complete checkpoint yet", tracked.training_run)
                continue
            self.log.info("%s: %s", tracked.training_run, found.name)
            run = request(tracked.at_night(), found)
            runs.append({**run, "trigger_run_id": f"{run['trigger_run_id']}__{night}"})
        for failure in failures:
            self.log.error("%s", failure)
        context["ti"].xcom_push(XCOM_FAILURES, failures)
        return runs


def _night(context: Context) -> datetime:
    # The same however often a task of the run is tried again.
    run_after: datetime = context["dag_run"].run_after
    return run_after
