"""Acknowledging alarms: what somebody is asked, and what is made of the answer.

Asking itself is Airflow's HITLOperator, between the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk.definitions.context import Context

ACKNOWLEDGE, LEAVE_OPEN = "Acknowledge", "Leave open"
XCOM_SUBJECT, XCOM_BODY = "subject", "body"


class ShowAlarmsOperator(BaseOperator):
    """Returns the ids of the alarms, of the DAG run's param ``alarms``, that wait for somebody; else it is skipped.

    What they say is in the XComs ``subject`` and ``body`` (Markdown).
    """

    ui_color = "#f3ecfa"

    def execute(self, context: Context) -> list[int]:
        # Here: they import what reading a DAG need not wait for.
        from evalcore.alert import message
        from evalcore.errors import ResultsError
        from evalcore.history import open_history
        from evalcore.history.alarms import Alarms, State

        with open_history() as history:
            try:
                alarms = Alarms(history).get(context["params"]["alarms"])
            except ResultsError as error:
                raise AirflowFailException(str(error)) from error
            for alarm in alarms:
                who = f" by {alarm.acknowledged_by}" if alarm.acknowledged_by else ""
                self.log.info("%s of %s: %s%s", alarm.kind, alarm.benchmark, alarm.state, who)
            open_ = [alarm for alarm in alarms if alarm.state is State.CONFIRMED]
            if not open_:
                raise AirflowSkipException("none of them waits for anybody")
            said = message(history, open_, {})
        context["ti"].xcom_push(XCOM_SUBJECT, said.title)
        context["ti"].xcom_push(XCOM_BODY, said.markdown)
        return [alarm.id for alarm in open_]


class AcknowledgeOperator(BaseOperator):
    """Records who acknowledged alarms; who did so first stays. Returns the ids of those that are acknowledged.

    :param alarms: ids in the history.
    :param answer: what HITLOperator returned; its ``note``, if it asked for one, is kept.
    """

    template_fields = ("alarms", "answer")
    ui_color = "#eaf7ea"

    def __init__(self, *, alarms: Sequence[int], answer: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alarms = alarms
        self.answer = answer

    def execute(self, context: Context) -> list[int]:
        from evalcore.history import open_history
        from evalcore.history.alarms import Alarms, State

        by, note = answered(self.answer)
        if self.answer["chosen_options"] != [ACKNOWLEDGE]:
            self.log.info("left open by %s", by)
            return []
        with open_history() as history:
            known = Alarms(history).acknowledge(list(self.alarms), by=by, note=note)
        for alarm in known:
            self.log.info("alarm %d: %s by %s", alarm.id, alarm.state, alarm.acknowledged_by)
        return [alarm.id for alarm in known if alarm.state is State.ACKNOWLEDGED]


def answered(answer: Mapping[str, Any]) -> tuple[str, str]:
    """Who answered a HITLOperator, and the note that they left."""
    user = answer["responded_by_user"] or {}
    return user.get("name") or user.get("id") or "nobody", (answer["params_input"] or {}).get("note") or ""
