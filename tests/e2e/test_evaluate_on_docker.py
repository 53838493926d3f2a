"""The whole DAG on a real Docker engine: every stage is a container of the project's own image."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from demo.engine import Engine
from demo.standalone import ROOT, Airflow
from evalcore.summarize import Scorecard
from seen_processes import in_environment
from waiting import LONG, until
from whole_dag import DAG, QUICK, SECRET, conf, held, is_watched, some_rows

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def airflow(engine: Engine, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    folder = tmp_path_factory.mktemp("docker")
    checkpoints = ROOT / "include" / "tiny" / "checkpoints"
    (folder / "env.toml").write_text(
        f'[box]\nexecutor = "docker"\ncontainer_image = "{image}"\nnetwork = "none"\nmemory = "4g"\n'
        f'mounts = ["{checkpoints}:{checkpoints}:ro"]\n'
    )
    settings = {
        "EVALCORE_ENV_TOML": str(folder / "env.toml"),
        "EVALCORE_DATA": str(folder / "data"),
        "EVALCORE_CACHE": str(folder / "cache"),
        "EVALCORE_RESULTS": str(folder / "results"),
        "DOCKER_HOST": engine.url,
        "WANDB_MODE": "offline",
        "OPENAI_API_KEY": SECRET,
        **QUICK,
    }
    with Airflow(folder / "airflow", settings=settings) as running:
        yield running


def containers(engine: Engine, stage: str = "") -> list[str]:
    """The ids of the jobs' containers, of one stage or of all."""
    told = engine.run("ps", "-a", "--format", '{{.ID}} {{.Label "evalcore.job"}}').splitlines()
    return [line.split()[0] for line in told if f"-{stage}" in line]


def test_a_checkpoint_is_evaluated_in_containers_that_show_no_keys(
    airflow: Airflow, engine: Engine, checkpoint: Path, tmp_path: Path, hold: Path
) -> None:
    run = airflow.trigger(DAG, conf(tmp_path / "results", checkpoint, cluster="box", overrides=held(hold)))
    seen: dict[str, str] = {}
    in_jobs: set[str] = set()

    def over() -> bool:
        in_jobs.update(in_environment("OPENAI_API_KEY", of="-m evalcore.cli generate"))
        for container in containers(engine):
            if container not in seen:
                # It may be gone by now.
                told = engine.run("ps", "-a", "--no-trunc", "--filter", f"id={container}")
                seen[container] = told + "".join(inspected(engine, container))
        if SECRET in in_jobs and any("supervise.py" in text for text in seen.values()):
            hold.unlink(missing_ok=True)
        return airflow.state(DAG, run) in ("success", "failed")

    until(over, "the run", LONG)
    assert airflow.state(DAG, run) == "success"
    [card] = (tmp_path / "results").rglob("scorecard.json")
    scorecard = Scorecard.load(card.parent)
    assert scorecard.complete
    assert scorecard.subsets[0].counts.generated == 2160
    assert "tiny-arithmetic" in airflow.log(DAG, run, "report")
    assert not containers(engine), "what was reported is removed"
    assert any("supervise.py" in text for text in seen.values()), "a container was seen while it ran"
    assert SECRET in in_jobs
    assert not [text for text in seen.values() if SECRET in text]
    for folder in (airflow.home, tmp_path):
        found = subprocess.run(
            ["grep", "-rlaF", SECRET, str(folder)], capture_output=True, text=True, check=False
        )
        assert found.stdout == "", folder


def inspected(engine: Engine, container: str) -> list[str]:
    return [engine.run("inspect", container)] if container in containers(engine) else []


def test_a_container_that_is_killed_goes_on_where_it_stopped(
    airflow: Airflow, engine: Engine, checkpoint: Path, tmp_path: Path, hold: Path
) -> None:
    results = tmp_path / "results"
    params = {"cluster": "box", "max_problems": 10, "overrides": held(hold)}
    run = airflow.trigger(DAG, conf(results, checkpoint, **params))
    rows = some_rows(results)[0].read_text().splitlines()
    engine.run("kill", *containers(engine, "generate"))
    hold.unlink()
    assert airflow.wait(DAG, run) == "success"
    [card] = results.rglob("scorecard.json")
    assert Scorecard.load(card.parent).complete
    now = [row for file in results.rglob("generations/*.jsonl") for row in file.read_text().splitlines()]
    keys = [(row["problem_id"], row["sample"]) for row in map(json.loads, now)]
    assert len(keys) == len(set(keys)) == 90
    assert rows[0] in now
    assert not containers(engine)


def test_a_triggerer_that_dies_finds_the_container_again(
    airflow: Airflow, engine: Engine, checkpoint: Path, tmp_path: Path, hold: Path
) -> None:
    params = {"cluster": "box", "max_problems": 10, "overrides": held(hold)}
    run = airflow.trigger(DAG, conf(tmp_path / "results", checkpoint, **params))
    [container] = until(lambda: containers(engine, "generate"), "generate to run", LONG)
    until(lambda: is_watched(airflow, run), "a trigger", LONG)
    airflow.kill_component("triggerer")
    airflow.start_component("triggerer")
    hold.unlink()
    made = set()

    def over() -> bool:
        made.update(containers(engine, "generate"))
        return airflow.state(DAG, run) in ("success", "failed")

    until(over, "the run", LONG)
    assert airflow.state(DAG, run) == "success"
    assert made == {container}


def test_the_job_log_is_there_while_it_runs_and_a_marked_task_leaves_no_container(
    airflow: Airflow, engine: Engine, checkpoint: Path, tmp_path: Path, hold: Path
) -> None:
    run = airflow.trigger(DAG, conf(tmp_path / "results", checkpoint, cluster="box", overrides=held(hold)))
    until(lambda: containers(engine, "generate"), "generate to run", LONG)
    page = f"/evalcore/jobs/{DAG}/{quote(run, safe='')}/generate/0/log"
    until(lambda: airflow.get(page).text, "the log's page", LONG)
    path = f"/dags/{DAG}/dagRuns/{run}/taskInstances/generate/0"
    airflow.request("PATCH", path, {"new_state": "failed"})
    until(lambda: not containers(engine), "no container", LONG)
    assert airflow.wait(DAG, run) == "failed"


def test_a_checkpoint_that_no_container_sees_is_refused_by_plan(
    airflow: Airflow, checkpoint: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "step-1"
    elsewhere.symlink_to(checkpoint)
    run = airflow.trigger(DAG, conf(tmp_path / "results", elsewhere, cluster="box"))
    assert airflow.wait(DAG, run) == "failed"
    error = airflow.xcom(DAG, run, "plan", "error")
    assert f"no container sees {elsewhere}" in error
    assert f'mounts = ["{tmp_path}:{tmp_path}:ro"]' in error
