"""alert as a task, on real receivers: everybody is told once, and no secret gets out."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from airflow.sdk.exceptions import AirflowException

from alarmed import confirmed, suspected
from evalcore.checkpoints import Checkpoint
from evalcore.errors import EvalError
from evalcore.history import open_history
from evalcore.history.alarms import Alarm, Alarms, Kind, State
from evalcore.wandb_run import WandbRun
from hooks.channels import channels
from operators.alert import WANDB, AlertOperator
from receivers import SECRET, Mailbox, Webhook, mailbox, webhook
from waiting import until

# Of what Apprise imports when it reads its first URL.
pytestmark = [
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning"),
    pytest.mark.slow,
]

ACKNOWLEDGES = "the DAG acknowledge_alert acknowledges them."
LOG = "https://airflow.example.com/dags/confirm_regression/runs/r%2F1/tasks/alert?try_number=1"


class Ti(NamedTuple):
    log_url: str = LOG


@pytest.fixture
def alarm(tmp_path: Path) -> Alarm:
    with open_history() as history:
        return confirmed(history, tmp_path / "results")


@pytest.fixture(autouse=True)
def _libraries_may_log_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed message they are quiet to the end of the process, which here is other tests', too."""
    for name in ("apprise", "urllib3", "requests"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "propagate", logger.propagate)
        monkeypatch.setattr(logger, "handlers", list(logger.handlers))


class Heard(logging.Handler):
    """What a logger says, be it to nobody else."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Receivers(NamedTuple):
    hook: Webhook
    box: Mailbox


@pytest.fixture
def receivers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receivers]:
    """A webhook and a mailbox, each behind a Connection."""
    with ExitStack() as stack:
        both = Receivers(stack.enter_context(webhook()), stack.enter_context(mailbox()))
        connect(monkeypatch, "team_hook", both.hook.url)
        connect(monkeypatch, "team_mail", both.box.url)
        yield both


def connect(monkeypatch: pytest.MonkeyPatch, name: str, *urls: Any) -> None:
    paths = [{"path": url, "tag": "alerts"} for url in urls]
    extra = {"config": paths if len(paths) > 1 else paths[0]}
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps({"conn_type": "apprise", "extra": extra}))


def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *alerts: str, run: str = "llama") -> None:
    tracked = tmp_path / "include" / "tracked"
    tracked.mkdir(parents=True, exist_ok=True)
    text = f"source: {{path: /ckpt/{run}}}\nsuite: tiny\nalerts: [{', '.join(alerts)}]\n"
    (tracked / f"{run}.yaml").write_text(text)
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path / "include"))


def alert(*alarms: Alarm, **params: str) -> list[str]:
    operator = AlertOperator(task_id="alert", alarms=[alarm.id for alarm in alarms])
    return operator.execute({"ti": Ti(), "params": params})  # type: ignore[typeddict-item]


def test_a_webhook_and_a_mailbox_get_the_message_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receivers: Receivers, alarm: Alarm
) -> None:
    follow(tmp_path, monkeypatch, "team_hook", "team_mail")
    assert alert(alarm) == ["team_hook", "team_mail"]
    [posted] = receivers.hook.received
    assert receivers.hook.path == f"/{SECRET}"
    assert (posted["title"], posted["type"]) == ("llama/step-1500: worse on toy", "failure")
    table = "first   | toy       | pass@1[4] | 81.25%   | 56.25% | -25.00"
    run = "[DAG run](https://airflow.example.com/dags/confirm_regression/runs/r%2F1)"
    assert all(part in posted["message"] for part in ("```\nsamples | benchmark", table, run))
    [mail] = receivers.box.received
    assert mail["Subject"] == "llama/step-1500: worse on toy"
    assert (mail["To"], mail["From"]) == ("team@example.com", "evals@example.com")
    page = mail.get_body(("html",)).get_content()
    assert all(part in page for part in ("<pre>samples | benchmark", table, f'<a href="{LOG}">Log</a>'))
    plain = mail.get_body(("plain",)).get_content()
    assert table in plain.replace("\r\n", "\n"), "as it is read where no HTML is shown"
    assert alert(alarm) == []
    assert len(receivers.hook.received) == len(receivers.box.received) == 1


def test_who_did_not_take_it_is_told_again_and_the_others_are_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    receivers: Receivers,
    alarm: Alarm,
) -> None:
    follow(tmp_path, monkeypatch, "team_hook", "team_mail")
    receivers.hook.answers = [500]
    with pytest.raises(AirflowException, match=r"^not everybody was told: team_hook: .*error=500\.$"):
        alert(alarm)
    assert (len(receivers.hook.received), len(receivers.box.received)) == (0, 1)
    assert alert(alarm) == ["team_hook"]
    assert alert(alarm) == []
    assert (len(receivers.hook.received), len(receivers.box.received)) == (1, 1)


def test_of_two_urls_of_a_connection_each_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receivers: Receivers, alarm: Alarm
) -> None:
    with webhook() as other:
        connect(monkeypatch, "both", receivers.hook.url, other.url)
        follow(tmp_path, monkeypatch, "both")
        other.answers = [503]
        with pytest.raises(AirflowException, match="not everybody was told: both 2: "):
            alert(alarm)
        assert alert(alarm) == ["both 2"]
        assert (len(receivers.hook.received), len(other.received)) == (1, 1)


def test_a_url_that_cannot_be_used_does_not_silence_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receivers: Receivers, alarm: Alarm
) -> None:
    connect(monkeypatch, "three", receivers.hook.url, f"nonsense://{SECRET}", receivers.box.url)
    follow(tmp_path, monkeypatch, "three")
    with pytest.raises(AirflowException, match=r"told: three 2: its URL is none that Apprise can use$"):
        alert(alarm)
    assert (len(receivers.hook.received), len(receivers.box.received)) == (1, 1)


@pytest.mark.parametrize("status", [301, 302, 303, 429])
def test_a_channel_that_sends_away_has_not_taken_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receivers: Receivers, alarm: Alarm, status: int
) -> None:
    follow(tmp_path, monkeypatch, "team_hook")
    receivers.hook.answers = [status]
    with pytest.raises(AirflowException, match=rf"team_hook: .*error={status}"):
        alert(alarm)
    assert alert(alarm) == ["team_hook"]
    assert len(receivers.hook.received) == 1


@pytest.mark.slow
def test_a_channel_that_answers_late_has_taken_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receivers: Receivers, alarm: Alarm
) -> None:
    follow(tmp_path, monkeypatch, "team_hook")
    receivers.hook.go_on.clear()

    def answer() -> None:
        until(lambda: receivers.hook.received, "the message")
        time.sleep(5)  # longer than Apprise waits unless it is told to
        receivers.hook.go_on.set()

    answering = threading.Thread(target=answer)
    answering.start()
    assert alert(alarm) == ["team_hook"]
    answering.join()
    assert len(receivers.hook.received) == 1


def test_a_channel_that_never_answers_has_not_taken_the_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    receivers: Receivers,
    alarm: Alarm,
) -> None:
    caplog.set_level(logging.DEBUG)
    follow(tmp_path, monkeypatch, "team_hook", "team_mail")
    monkeypatch.setattr("hooks.channels._SECONDS", 2)
    monkeypatch.setattr("hooks.channels._ANSWER_SECONDS", 600)  # which would end it, too
    receivers.hook.go_on.clear()
    heard = Heard()
    logging.getLogger("apprise").addHandler(heard)
    with pytest.raises(AirflowException, match="not everybody was told: team_hook: "):
        alert(alarm)
    # Where two seconds are short for a mail, too, it goes on like the other.
    until(lambda: len(receivers.box.received) == 1, "the mail")
    receivers.hook.go_on.set()
    # What Apprise no longer waits for goes on, and says so with its URL when it is answered.
    until(lambda: any("JSON send() completed" in line for line in heard.lines), "the answer")
    said = [it for it in caplog.records if it.name.startswith(("apprise", "urllib3", "requests"))]
    assert not [it for it in said if it.module != "locale"]


@pytest.mark.parametrize(("more", "seconds"), [("", 30), ("?rto=7", 7)])
def test_how_long_a_channel_may_take_its_url_may_say(
    monkeypatch: pytest.MonkeyPatch, more: str, seconds: float
) -> None:
    connect(monkeypatch, "hook", f"json://127.0.0.1/{more}")
    (channel,) = channels("hook")
    assert channel._service is not None
    assert channel._service.socket_read_timeout == seconds


def test_a_channel_that_is_named_twice_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receivers: Receivers, alarm: Alarm
) -> None:
    follow(tmp_path, monkeypatch, "team_hook", "team_hook")
    assert alert(alarm) == ["team_hook"]
    assert receivers.hook.received[0]["message"].endswith(f"Alarm ids: {alarm.id}; {ACKNOWLEDGES}")


@pytest.mark.parametrize("kind", ["tracked", "canaries"])
def test_a_file_that_cannot_be_used_is_no_reason_to_tell_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receivers: Receivers, kind: str
) -> None:
    run = {"tracked": "llama", "canaries": "canary-llama"}[kind]
    with open_history() as history:
        alarm = confirmed(history, tmp_path / "results", run=run)
    folder = tmp_path / "include" / kind
    folder.mkdir(parents=True)
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path / "include"))
    place = {"tracked": "source: {path: /ckpt}", "canaries": "checkpoint: /ckpt/x"}[kind]
    (folder / "llama.yaml").write_text(f"{place}\nsuite: tinny\nalerts: [team_hook]\n")
    with pytest.raises(AirflowException, match=r"not everybody was told: .*llama: unknown suite 'tinny'"):
        alert(alarm)
    (folder / "llama.yaml").write_text(f"{place}\nsuite: tiny\nalerts: [team_hook]\n")
    assert alert(alarm) == ["team_hook"]


# A log that shows everything, and what is raised with all its causes.
@pytest.mark.parametrize(
    "url",
    [
        f"json://127.0.0.1:1/{SECRET}",
        f"json://{SECRET}.invalid:1/",  # which Apprise names
        f"json://user:{SECRET}@127.0.0.1:1/",
        f"mailto://user:{SECRET}@127.0.0.1:1?to=team@example.com",
        f"slack://{SECRET}/x",
        f"nonsense://{SECRET}",
        f"not a url {SECRET}",
        {"no": SECRET},
    ],
)
def test_a_dead_channel_fails_the_task_with_its_name_and_without_its_secret(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    receivers: Receivers,
    alarm: Alarm,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    url: Any,
) -> None:
    caplog.set_level(0)
    monkeypatch.setattr(logging.root, "level", 1)
    for name in ("apprise", "urllib3"):
        caplog.set_level(1, name)
    connect(monkeypatch, "dead", url)
    follow(tmp_path, monkeypatch, "dead", "team_hook")
    with pytest.raises(AirflowException, match="not everybody was told: dead: ") as failed:
        alert(alarm)
    assert len(receivers.hook.received) == 1, "the others are told all the same"
    with pytest.raises(AirflowException):
        alert(alarm)
    failures, error = [], failed.value
    while error:
        failures.append(repr(error))
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    assert SECRET not in "".join(failures)
    printed = "".join(capfd.readouterr())
    assert SECRET not in caplog.text + printed
    assert "team_hook was told" in printed


def test_a_canary_tells_its_own_channels_and_links_the_run_that_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receivers: Receivers
) -> None:
    folder = tmp_path / "include" / "canaries"
    folder.mkdir(parents=True)
    (folder / "frozen.yaml").write_text("checkpoint: /ckpt/frozen\nsuite: tiny\nalerts: [team_hook]\n")
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path / "include"))
    with open_history() as history:
        raised = suspected(history, tmp_path / "results", Kind.CANARY, run="canary-frozen")
        moved = Alarms(history).settle(raised.id, State.CONFIRMED)
    assert alert(moved, evaluation="manual__1/2") == ["team_hook"]
    assert "the stack has moved" in receivers.hook.received[0]["title"]
    link = "[DAG run](https://airflow.example.com/dags/evaluate_checkpoint/runs/manual__1%2F2)"
    assert link in receivers.hook.received[0]["message"]


def test_a_connection_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alarm: Alarm
) -> None:
    follow(tmp_path, monkeypatch, "nowhere")
    with pytest.raises(AirflowException, match="nowhere"):
        alert(alarm)


def test_without_a_channel_the_log_has_it_and_says_how_to_name_one(
    alarm: Alarm, capfd: pytest.CaptureFixture[str]
) -> None:
    assert alert(alarm) == []
    printed = capfd.readouterr().out
    assert "worse on toy by 18.8 points" in printed
    assert "name Connections of type apprise under `alerts:` in the file that follows llama" in printed


def test_only_what_is_confirmed_is_told_and_what_is_held_is_told_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receivers: Receivers, alarm: Alarm
) -> None:
    follow(tmp_path, monkeypatch, "team_hook")
    follow(tmp_path, monkeypatch, "team_hook", run="other")
    with open_history() as history:
        raised = suspected(history, tmp_path / "results", run="other")
        held = Alarms(history).settle(raised.id, State.HELD, reason="the canary moved")
    assert alert(held) == []
    assert alert(alarm, held) == ["team_hook"]
    assert "held back" in receivers.hook.received[0]["message"]
    with open_history() as history:
        Alarms(history).settle(held.id, State.CONFIRMED)
    assert alert(alarm, held) == ["team_hook"]
    assert len(receivers.hook.received) == 2
    assert receivers.hook.received[1]["title"] == "other/step-1500: worse on toy"


class FakeRun(WandbRun):
    alerts: list[tuple[str, str]] = []

    def alert(self, title: str, text: str) -> None:
        self.alerts.append((title, text))
        if len(self.alerts) == 1:
            raise EvalError("W&B did not take the alert")


def test_wandb_is_a_channel_of_its_own_and_its_page_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receivers: Receivers, alarm: Alarm
) -> None:
    run = FakeRun("https://wandb.ai/t/p/runs/1", "t", "p", "1", "https://api.wandb.ai", "key")
    monkeypatch.setattr("evalcore.wandb_run.find", lambda *_: run)
    follow(tmp_path, monkeypatch, "team_hook")
    with pytest.raises(AirflowException, match="not everybody was told: W&B did not take the alert"):
        alert(alarm)
    assert alert(alarm) == [WANDB]
    assert [title for title, _ in run.alerts] == ["llama/step-1500: worse on toy"] * 2
    assert "[W&B](https://wandb.ai/t/p/runs/1)" in receivers.hook.received[0]["message"]
    assert len(receivers.hook.received) == 1


def test_each_checkpoints_wandb_run_is_told_of_that_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receivers: Receivers, alarm: Alarm
) -> None:
    with open_history() as history:
        other = confirmed(history, tmp_path / "results", run="other")
    told: list[tuple[str, str]] = []

    class Page(WandbRun):
        def alert(self, title: str, text: str) -> None:
            told.append((self.id, title))

    def find(checkpoint: Checkpoint, _: Any) -> WandbRun:
        url = f"https://wandb.ai/t/p/runs/{checkpoint.run}"
        return Page(url, "t", "p", checkpoint.run, "https://api.wandb.ai", "key")

    monkeypatch.setattr("evalcore.wandb_run.find", find)
    for run in ("llama", "other"):
        follow(tmp_path, monkeypatch, "team_hook", run=run)
    assert alert(alarm, other) == ["team_hook", WANDB, WANDB]
    assert told == [(run, f"{run}/step-1500: worse on toy") for run in ("llama", "other")]
    [posted] = receivers.hook.received
    assert "[W&B](https://wandb.ai/t/p/runs/llama)" in posted["message"]
    assert "[W&B 2](https://wandb.ai/t/p/runs/other)" in posted["message"]


def test_what_wandb_refuses_to_say_fails_the_task_after_the_others_were_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receivers: Receivers, alarm: Alarm
) -> None:
    def away(*_: Any) -> None:
        raise EvalError("W&B cannot be asked")

    monkeypatch.setattr("evalcore.wandb_run.find", away)
    follow(tmp_path, monkeypatch, "team_hook")
    with pytest.raises(AirflowException, match="W&B cannot be asked"):
        alert(alarm)
    assert len(receivers.hook.received) == 1
