"""A checkpoint on the hub is found, fetched and evaluated in the real Airflow; and fetched on a real cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.standalone import Airflow
from evalcore import jobs
from evalcore.backends import reason
from evalcore.fetch import command, folder_of
from evalcore.jobs import State
from evalcore.manifest import Manifest
from evalcore.profiles import load_profiles
from evalcore.sources.object_store import remote as stored
from evalcore.summarize import Scorecard
from hooks.backends import backend
from hub import Hub, Model
from on_slurm import running_slurm
from waiting import LONG, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DISCOVERY, EVALUATION = "discover_checkpoints", "evaluate_checkpoint"
NAME, RUN = "org/olmo", "olmo-run"


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[Hub]:
    files = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
    with Hub({}, models={NAME: Model(branches={"main": {}, "step900-tokens1B": files})}) as hub:
        yield hub


@pytest.fixture
def followed(airflow: Airflow, hub: Hub, tmp_path: Path) -> Iterator[Path]:
    """The hub's repository is followed, by tasks that take this hub for the real one. The folder of the results."""
    file = Path(airflow.settings["EVALCORE_INCLUDE"]) / "tracked" / f"{RUN}.yaml"
    file.parent.mkdir(exist_ok=True)
    airflow.settings["HF_ENDPOINT"] = hub.url
    airflow.kill_component("scheduler")
    airflow.start_component("scheduler")
    try:
        overrides = f"[max_problems=2, 'results={tmp_path}']"
        file.write_text(f"source: {{hub: {NAME}}}\nsuite: tiny\nbenchmarks: good:1\noverrides: {overrides}\n")
        yield tmp_path
    finally:
        file.unlink()
        del airflow.settings["HF_ENDPOINT"]
        airflow.kill_component("scheduler")
        airflow.start_component("scheduler")


def test_a_checkpoint_that_discovery_finds_on_the_hub_is_evaluated(
    airflow: Airflow, hub: Hub, checkpoint: Path, followed: Path
) -> None:
    airflow.request("PATCH", f"/dags/{DISCOVERY}", {"is_paused": False})
    try:
        assert airflow.wait(DISCOVERY, airflow.trigger(DISCOVERY, {})) == "success"
        [run] = until(lambda: runs(airflow), "its run", LONG)
    finally:
        airflow.request("PATCH", f"/dags/{DISCOVERY}", {"is_paused": True})
    assert run["conf"]["checkpoint"] == f"hf://{NAME}@step900-tokens1B"
    assert airflow.wait(EVALUATION, run["dag_run_id"]) == "success"

    [folder] = followed.glob(f"{RUN}/*")
    assert folder.name == "step900-tokens1B"
    manifest = Manifest.load(folder / "good")
    assert (manifest.checkpoint.run, manifest.checkpoint.name) == (RUN, "step900-tokens1B")
    assert manifest.checkpoint.step == 900
    fetched = Path(str(manifest.checkpoint.path))
    assert fetched.parents[1] == followed / ".checkpoints"
    assert sorted(f.name for f in fetched.iterdir()) == sorted(f.name for f in checkpoint.iterdir())
    assert Scorecard.load(folder / "good").complete

    # Asked for again it is here already; as a path nothing is asked of the hub at all.
    hub.requests.clear()
    again = airflow.trigger(EVALUATION, {**run["conf"], "dry_run": True})
    assert airflow.wait(EVALUATION, again) == "success"
    states = {t["task_id"]: t["state"] for t in airflow.tasks(EVALUATION, again)}
    assert (states["fetch"], states["plan"], states["convert"]) == ("success", "success", "skipped")
    assert not [r for r in hub.requests if "/resolve/" in r]


def runs(airflow: Airflow) -> list[dict[str, Any]]:
    found = airflow.request("GET", f"/dags/{EVALUATION}/dagRuns", limit=100)["dag_runs"]
    return [run for run in found if run["conf"].get("training_run") == RUN]


def test_a_cluster_fetches_in_a_job_of_its_own(
    hub: Hub, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_slurm() as slurm:
        file = slurm.env_toml()
        file.write_text(
            f'{file.read_text()}python = "{sys.executable}"\n[cluster.env]\nHF_ENDPOINT = "{hub.url}"\n'
        )
        monkeypatch.setenv("EVALCORE_ENV_TOML", str(file))
        monkeypatch.setenv("AIRFLOW_CONN_CLUSTER", slurm.connection_uri())
        runs_at = backend("cluster", "")
        results = load_profiles().get("cluster").results  # type: ignore[union-attr]
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "step-7").symlink_to(checkpoint)
        store = stored(f"file://{tmp_path}/run/step-7/")
        hf = f"hf://{NAME}@step900-tokens1B"
        there = {file.name for file in checkpoint.iterdir()}
        for name, argv in {
            "hub": ["evalcore", "fetch", hf, "--results", results],
            "store": command(store.url, store.revision, results),
            "gone": command(store.url, "0123456789ab", results),
        }.items():
            job = runs_at.ensure(jobs.job_name("fetch", name), argv, {})
            look = until(lambda j=job: over(runs_at, j), name, LONG)
            if name == "gone":
                assert look.status.state is State.FAILED
                assert "it has changed since it was planned" in reason(look)
                continue
            assert look.status.state is State.SUCCEEDED, look.log
            folder = Path(look.log[-1].removeprefix("fetched: "))
            assert folder.is_relative_to(f"{results}/.checkpoints")
            assert {f.name for f in folder.iterdir()} == there
        assert folder == folder_of(store, results)


def over(runs_at: Any, job: str) -> Any:
    look = runs_at.look({job: 0})[job]
    return look if look.status.state.is_over else None
