"""alert as a task: tells the channels of a training run that its checkpoint got worse, each once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow.sdk.definitions.context import Context

    from evalcore.alert import Message
    from evalcore.history.alarms import Alarm
    from evalcore.tracked import Watched
    from evalcore.wandb_run import WandbRun

EVALUATION = "evaluate_checkpoint"
WANDB = "W&B"
"""As the name of a channel; no Connection can have it."""


class Listener(NamedTuple):
    """Somebody who is to be told of some alarms. send: returns when it has taken the message, else an EvalError."""

    name: str
    alarms: list[Alarm]
    send: Callable[[Message], None]


class AlertOperator(BaseOperator):
    """Sends each channel one message over all confirmed alarms that it has not had; returns the channels' names.

    Channels are the Connections under ``alerts`` of the file that follows the training run, or of the canary, and the
    checkpoint's W&B run. The DAG run's param ``evaluation`` is the run of evaluate_checkpoint to show. What is held
    back stands in the message too, and is not taken for told. Fails, after all were tried, if a channel did not take
    it: give it retries, which go to those alone.

    :param alarms: ids in the history.
    """

    template_fields = ("alarms",)
    ui_color = "#fde2e1"

    def __init__(self, *, alarms: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alarms = alarms

    def execute(self, context: Context) -> list[str]:
        # Here: they import what reading a DAG need not wait for.
        from evalcore.alert import message
        from evalcore.errors import EvalError
        from evalcore.history import open_history
        from evalcore.history.alarms import Alarms, State

        told: list[str] = []
        with open_history() as history:
            alarms = Alarms(history)
            found = alarms.get(list(self.alarms))
            due = [alarm for alarm in found if alarm.state is State.CONFIRMED]
            held = [alarm for alarm in found if alarm.state is State.HELD]
            if not due:
                self.log.info("nobody is told: of %d alarms none is confirmed", len(found))
                return told
            files, failures = _files(due)
            runs, unasked = self._wandb_runs(due, files)
            failures += unasked
            links = _links(context, runs)
            listeners = [*self._channels(due, files, failures), *_on_wandb(due, runs)]
            if not listeners and not failures:
                self.log.warning("%s", message(history, [*due, *held], links).text)
                self.log.warning(
                    "nobody was told: name Connections of type apprise under `alerts:` in the file that follows %s",
                    ", ".join(files),
                )
            for listener in listeners:
                unheard = alarms.undelivered([alarm.id for alarm in listener.alarms], listener.name)
                if not unheard:
                    self.log.info("%s was told before", listener.name)
                    continue
                its_own = [alarm for alarm in listener.alarms if alarm.id in unheard]
                said = message(history, [*its_own, *held], links)
                try:
                    listener.send(said)
                except EvalError as error:
                    failures.append(str(error))
                    continue
                alarms.delivered(unheard, listener.name)
                self.log.info("%s was told: %s", listener.name, said.title)
                told.append(listener.name)
        if failures:
            raise AirflowException(f"not everybody was told: {'; '.join(failures)}")
        return told

    def _channels(
        self, due: Sequence[Alarm], files: Mapping[str, Watched | None], failures: list[str]
    ) -> list[Listener]:
        from hooks.channels import ChannelError, channels

        wanted: dict[str, list[Alarm]] = {}
        for alarm in due:
            watched = files[alarm.run]
            for connection in dict.fromkeys(watched.alerts if watched else ()):
                wanted.setdefault(connection, []).append(alarm)
        listeners = []
        for connection, its_own in wanted.items():
            try:
                listeners += [Listener(it.name, its_own, it.send) for it in channels(connection)]
            except ChannelError as error:
                failures.append(str(error))
        return listeners

    def _wandb_runs(
        self, due: Sequence[Alarm], files: Mapping[str, Watched | None]
    ) -> tuple[dict[str, WandbRun], list[str]]:
        """The W&B runs of the checkpoints that have one, by the checkpoint's digest; and what went wrong."""
        from evalcore.errors import EvalError
        from evalcore.wandb_run import find

        runs, failures = {}, []
        for checkpoint in {alarm.checkpoint.digest: alarm.checkpoint for alarm in due}.values():
            watched = files[checkpoint.run]
            if watched is None:
                continue
            try:
                run = find(checkpoint, watched.config(checkpoint.path or checkpoint.name).wandb)
            except EvalError as error:
                failures.append(str(error))
                continue
            if run is not None:
                runs[checkpoint.digest] = run
        return runs, failures


def _files(due: Sequence[Alarm]) -> tuple[dict[str, Watched | None], list[str]]:
    """The file of each alarm's training run or canary, None where there is none; and which cannot be used."""
    from evalcore.errors import ConfigError
    from evalcore.regression.canary import canary_of
    from evalcore.tracked import following

    files: dict[str, Watched | None] = {}
    failures = []
    for run in dict.fromkeys(alarm.run for alarm in due):
        try:
            files[run] = following(run) or canary_of(run)
        except ConfigError as error:
            files[run] = None
            failures.append(str(error))
    return files, failures


def _on_wandb(due: Sequence[Alarm], runs: Mapping[str, WandbRun]) -> list[Listener]:
    return [
        Listener(WANDB, [alarm for alarm in due if alarm.checkpoint.digest == digest], _alert_on(run))
        for digest, run in runs.items()
    ]


def _alert_on(run: WandbRun) -> Callable[[Message], None]:
    return lambda said: run.alert(said.title, said.text)


def _links(context: Context, runs: Mapping[str, WandbRun]) -> dict[str, str]:
    log = context["ti"].log_url
    run = log.rpartition("/tasks/")[0]
    evaluation = context["params"].get("evaluation")
    if evaluation:
        run = f"{log.partition('/dags/')[0]}/dags/{EVALUATION}/runs/{quote(evaluation, safe='')}"
    pages = [run.url for run in runs.values()]
    numbers = ["", *(f" {number}" for number in range(2, len(pages) + 1))]
    wandb = {f"{WANDB}{number}": url for number, url in zip(numbers, pages, strict=False)}
    return {"DAG run": run, "Log": log, **wandb}
