"""Alerts on W&B runs, through the real wandb, to a server that understands it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import wandb_server
from evalcore.settings import Wandb
from evalcore.summarize import summarize
from evalcore.track import run_id
from evalcore.wandb_run import find
from synthetic_results import CHECKPOINT, Sample, manifest, write
from waiting import LONG

# They start processes, and wait for them.
pytestmark = pytest.mark.slow

KEY = "0123456789abcdef" * 2 + "deadbeef"
# Another process: wandb keeps state in its own, and reads much of it from the environment.
ALERT = """
import json, logging, sys
from pathlib import Path
from evalcore.checkpoints import Checkpoint
from evalcore.settings import Wandb
from evalcore.errors import EvalError
from evalcore.track import track
from evalcore.wandb_run import find
logging.basicConfig(level=1)
folder, checkpoint, settings = sys.argv[1], Checkpoint(**json.loads(sys.argv[2])), Wandb(**json.loads(sys.argv[3]))
try:
    if folder:
        track(Path(folder), settings)
    run = find(checkpoint, settings)
    if run:
        run.alert("llama/step-1500: worse on toy " + 50 * "x", "the text")
    print(json.dumps([run and run.url, repr(run)]))
except EvalError as error:
    sys.exit(f"one line: {error}")
"""


def alert(
    tmp: Path, url: str, folder: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    home = tmp / "home"
    home.mkdir(exist_ok=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    env |= {"HOME": str(home), "NETRC": str(home / "netrc"), "WANDB_BASE_URL": url, "WANDB_API_KEY": KEY}
    arguments = [str(folder or ""), CHECKPOINT.model_dump_json(), json.dumps({"project": "evals"})]
    return subprocess.run(
        [sys.executable, "-c", ALERT, *arguments],
        cwd=home,
        env=env | environment,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_an_alert_is_on_the_run_that_track_made(tmp_path: Path) -> None:
    folder = tmp_path / "step-1500"
    summarize(write(folder / "toy", manifest(1, 1), [Sample("a", 0, "1", True)]))
    with wandb_server.running() as server:
        done = alert(tmp_path, server.url, folder)
        url, shown = said(done)
    id_ = run_id(CHECKPOINT)
    assert url == f"{server.url}/team/evals/runs/{id_}"
    [sent] = server.runs[id_].alerts
    assert sent == {
        "entityName": "team",
        "projectName": "evals",
        "runName": id_,
        "title": f"llama/step-1500: worse on toy {33 * 'x'}",
        "text": "the text",
        "severity": "ERROR",
    }
    assert base64.b64decode(server.login.removeprefix("Basic ")).decode() == f"api:{KEY}"
    assert server.runs[id_].history.keys() == {0}, "the run itself is as it was"
    assert KEY not in done.stdout + done.stderr + shown


def test_an_alert_that_wandb_does_not_take_is_an_error(tmp_path: Path) -> None:
    with wandb_server.running() as server:
        server.runs[run_id(CHECKPOINT)] = wandb_server.Run()
        server.refuses_alerts = True
        done = alert(tmp_path, server.url)
    assert done.returncode == 1
    assert "one line: W&B did not take the alert: " in done.stderr


def test_an_alert_that_is_sent_elsewhere_takes_no_key_there(tmp_path: Path) -> None:
    with wandb_server.running() as server, wandb_server.running() as other:
        server.runs[run_id(CHECKPOINT)] = wandb_server.Run()
        server.elsewhere = other.url
        done = alert(tmp_path, server.url)
        assert other.asked == 0
    assert done.returncode == 1
    assert (
        f"one line: W&B did not take the alert: 302 Found, it is at {other.url}/graphql: set" in done.stderr
    )


def test_a_page_that_takes_any_request_has_taken_no_alert(tmp_path: Path) -> None:
    with wandb_server.running() as server:
        server.runs[run_id(CHECKPOINT)] = wandb_server.Run()
        server.is_page = True
        done = alert(tmp_path, server.url)
    assert done.returncode == 1
    assert "one line: W&B cannot be asked for an alert: " in done.stderr


def test_without_a_run_or_a_key_nobody_is_told(tmp_path: Path) -> None:
    with wandb_server.running() as server:
        assert said(alert(tmp_path, server.url))[0] is None
        server.runs[run_id(CHECKPOINT)] = wandb_server.Run()
        assert said(alert(tmp_path, server.url, WANDB_API_KEY=""))[0] is None
        assert said(alert(tmp_path, server.url, WANDB_MODE="offline"))[0] is None
        assert server.runs[run_id(CHECKPOINT)].alerts == []


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_where_nothing_is_sent_wandb_is_not_even_imported(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert find(CHECKPOINT, Wandb(mode=mode)) is None
    assert find(CHECKPOINT, Wandb(mode="online")) is None, "it is not installed"


def test_a_server_that_is_away_is_an_error(tmp_path: Path) -> None:
    done = alert(tmp_path, "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "one line: W&B cannot be asked for the run of step-1500: " in done.stderr
    # And not only that wandb is still trying: until it has given up, no process of it ends.
    assert "connection refused" in done.stderr
    assert KEY not in done.stderr
