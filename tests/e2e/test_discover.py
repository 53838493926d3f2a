"""One run for each checkpoint, in the real Airflow: a burst, a killed scheduler, another look, and a push."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from demo.standalone import FINAL, Airflow
from evalcore.discovery import Folder, find
from evalcore.tracked import Tracked
from hooks.places import place_of
from on_slurm import running_slurm
from waiting import LONG, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DISCOVERY, EVALUATION = "discover_checkpoints", "evaluate_checkpoint"
RUN = "burst"


def pause(airflow: Airflow, dag_id: str, paused: bool) -> None:
    airflow.request("PATCH", f"/dags/{dag_id}", {"is_paused": paused})


def evaluated(airflow: Airflow) -> dict[str, str]:
    """The checkpoint of each run that was made for this test's training run, by the run's id."""
    found: dict[str, str] = {}
    offset, total = 0, 1
    while offset < total:
        page = airflow.request("GET", f"/dags/{EVALUATION}/dagRuns", limit=100, offset=offset, order_by="id")
        total, offset = page["total_entries"], offset + 100
        for run in page["dag_runs"]:
            if run["conf"].get("training_run") == RUN:
                assert run["dag_run_id"] not in found
                found[run["dag_run_id"]] = run["conf"]["checkpoint"]
    return found


def look(airflow: Airflow) -> str:
    """The id of a round of discovery that is started and waited for."""
    run = airflow.trigger(DISCOVERY, {})
    assert airflow.wait(DISCOVERY, run) == "success"
    return run


def rest(airflow: Airflow) -> None:
    """Pause discovery between two rounds: one that is under way would go on afterwards with what it has seen."""
    pause(airflow, DISCOVERY, True)
    while under_way := airflow.unfinished(DISCOVERY, ""):
        pause(airflow, DISCOVERY, False)
        airflow.wait(DISCOVERY, under_way[0])
        pause(airflow, DISCOVERY, True)


def at_once(airflow: Airflow, tasks: int) -> None:
    """How many tasks may run at a time."""
    body = {"pool": "default_pool", "slots": tasks, "include_deferred": False}
    airflow.request("PATCH", "/pools/default_pool", body, update_mask=["slots"])


@pytest.fixture
def followed(airflow: Airflow, tmp_path: Path) -> Iterator[Path]:
    """The folder of a training run that is followed, by an Airflow that makes runs and starts none."""
    file = Path(airflow.settings["EVALCORE_INCLUDE"]) / "tracked" / f"{RUN}.yaml"
    file.parent.mkdir(exist_ok=True)
    folder = tmp_path / "training"
    folder.mkdir()
    pause(airflow, EVALUATION, True)
    try:
        file.write_text(f"source: {{path: {folder}}}\nsuite: tiny\n")
        yield folder
    finally:
        file.unlink()
        rest(airflow)
        for run in evaluated(airflow):
            airflow.request("DELETE", f"/dags/{EVALUATION}/dagRuns/{run}")
        pause(airflow, EVALUATION, False)


def test_a_hundred_at_once_and_a_killed_scheduler_make_a_hundred_runs(
    airflow: Airflow, followed: Path, checkpoint: Path
) -> None:
    steps = range(100, 10_100, 100)
    for step in steps:
        (followed / f"step-{step}").symlink_to(checkpoint)
    at_once(airflow, 1)  # so that all takes minutes
    try:
        pause(airflow, DISCOVERY, False)  # the first round is due at once
        until(lambda: len(evaluated(airflow)) >= 10, "the first runs", LONG)
        airflow.kill_component("scheduler")
    finally:
        at_once(airflow, 128)
    made = len(evaluated(airflow))
    assert made < 100, "it was killed too late to tell anything"
    airflow.start_component("scheduler")

    until(lambda: len(evaluated(airflow)) >= 100, "all runs", LONG)
    rounds = airflow.request("GET", f"/dags/{DISCOVERY}/dagRuns", limit=100)["dag_runs"]
    for run in rounds:
        until(lambda r=run: airflow.state(DISCOVERY, r["dag_run_id"]) in FINAL, "the round's end", LONG)
    everything = evaluated(airflow)
    assert sorted(everything.values()) == sorted(str(followed / f"step-{step}") for step in steps)

    # Another look, and what training says itself, add none.
    again = look(airflow)
    assert [t["task_id"] for t in airflow.tasks(DISCOVERY, again) if t["state"] == "skipped"] == ["evaluate"]
    for said in publish(airflow, followed / "step-5000"), publish(airflow, followed / "step-5000"):
        assert said.endswith("was there already: nothing to do")
        assert said.split()[1] in everything
    assert evaluated(airflow) == everything

    # One that is pushed first is found afterwards, as known.
    rest(airflow)
    late = followed / "step-20000"
    late.symlink_to(checkpoint)
    assert publish(airflow, late).endswith("is made")
    pause(airflow, DISCOVERY, False)
    look(airflow)
    assert sorted(set(evaluated(airflow).values()) - set(everything.values())) == [str(late)]
    assert len(evaluated(airflow)) == 101


def publish(airflow: Airflow, path: Path) -> str:
    """What ``evalcore publish`` says."""
    environment = {
        **os.environ,
        "EVALCORE_INCLUDE": airflow.settings["EVALCORE_INCLUDE"],
        "EVALCORE_AIRFLOW_URL": airflow.url,
        "EVALCORE_AIRFLOW_USER": "admin",
        "EVALCORE_AIRFLOW_PASSWORD": airflow.password,
    }
    argv = [sys.executable, "-m", "evalcore.cli", "publish", str(path), "--run", RUN, "--step", "1"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_webhook_of_wandb_is_for_those_who_may_start_runs(airflow: Airflow) -> None:
    address = f"{airflow.url}/evalcore/artifacts"
    body = {"artifact": "team/llama/checkpoints:v1"}
    assert httpx.post(address, json=body, trust_env=False).status_code == 401
    login = {"username": "admin", "password": airflow.password}
    token = httpx.post(f"{airflow.url}/auth/token", json=login, trust_env=False).json()["access_token"]
    answer = httpx.post(address, json=body, headers={"Authorization": f"Bearer {token}"}, trust_env=False)
    assert (answer.status_code, answer.json()["detail"]) == (
        404,
        "No training run in tracked/ has checkpoints in team/llama/checkpoints",
    )


def test_a_cluster_is_looked_at_over_ssh(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_slurm() as slurm:
        file = slurm.env_toml()
        file.write_text(f'{file.read_text()}python = "{sys.executable}"\n')
        monkeypatch.setenv("EVALCORE_ENV_TOML", str(file))
        monkeypatch.setenv("AIRFLOW_CONN_CLUSTER", slurm.connection_uri())
        folder = Path(slurm.remote_job_dir) / "training"
        folder.mkdir()
        (folder / "step-2").symlink_to(checkpoint)
        (folder / "step-10").mkdir()
        (folder / "a step").mkdir()
        source = {"path": str(folder)}
        tracked = Tracked.model_validate(
            {"training_run": RUN, "source": source, "suite": "tiny", "cluster": "cluster"}
        )
        findings = find(tracked, place_of(tracked), unknown=set, limit=9)
        assert findings == find(tracked, Folder(str(folder)), unknown=set, limit=9)
        assert [f.name for f in findings.found] == ["step-2"]
        assert len(findings.waiting) == 2
