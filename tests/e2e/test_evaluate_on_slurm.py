"""The whole DAG on a real Slurm: every stage is a job there, results come back, keys are nowhere to be found."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from demo.cluster import Cluster as Slurm
from demo.standalone import Airflow
from distributed_checkpoint import COPY, write_converter, write_distributed
from evalcore.counts import ProblemCounts
from evalcore.summarize import Scorecard
from on_slurm import generate_jobs, generate_of, running_airflow, running_slurm
from seen_processes import command_lines, in_environment
from waiting import LONG, until
from whole_dag import DAG, SECRET, conf, held, is_watched, some_rows

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with running_slurm() as running:
        yield running


@pytest.fixture(scope="module")
def airflow(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    with running_airflow(slurm, tmp_path_factory.mktemp("slurm")) as running:
        yield running


def test_a_checkpoint_is_evaluated_there_and_reported_here(
    airflow: Airflow, slurm: Slurm, checkpoint: Path, tmp_path: Path
) -> None:
    # Of a format that has to be converted, by what is said here and nowhere there.
    write_converter(Path(airflow.settings["EVALCORE_INCLUDE"]), "ours", COPY.format(model=str(checkpoint)))
    folder = write_distributed(tmp_path / "run" / "iter_0001800")
    run = airflow.trigger(DAG, conf(tmp_path / "results", folder, overrides=["converter=ours"]))
    assert airflow.wait(DAG, run) == "success"
    [card] = (tmp_path / "results").rglob("scorecard.json")
    here = Scorecard.load(card.parent)
    assert here.complete
    assert here.subsets[0].counts.generated == 2160
    assert not (card.parent / "generations").exists(), "what is big stays there"
    assert len(ProblemCounts.load(card.parent).problems) == 240, "what the history takes of it does not"
    there = slurm.remote_job_dir / "results"
    assert list(there.rglob("generations/*.jsonl"))
    # Each stage was a job of its own, and none was submitted twice.
    jobs = slurm.run("sacct", "-n", "-X", "-D", "-P", "-o", "jobname,state").split()
    stages = ["convert", "generate", "score.grade", "score.summarize", "track"]
    assert [sum(f"-{stage}-" in job for job in jobs) for stage in stages] == [1] * len(stages)
    assert all(job.endswith("|COMPLETED") for job in jobs)
    assert "tiny-arithmetic" in airflow.log(DAG, run, "report")


def test_keys_are_nowhere_but_in_the_job(
    airflow: Airflow, slurm: Slurm, checkpoint: Path, tmp_path: Path, hold: Path
) -> None:
    params = {"max_problems": 40, "overrides": held(hold)}
    run = airflow.trigger(DAG, conf(tmp_path / "results", checkpoint, **params))
    seen: set[str] = set()
    in_jobs: set[str] = set()

    def over() -> bool:
        seen.update(command_lines())
        in_jobs.update(in_environment("OPENAI_API_KEY", of="-m evalcore.cli generate"))
        seen.add(slurm.run("scontrol", "show", "job", "-o"))
        if SECRET in in_jobs and any("supervise.py" in line for line in seen):
            hold.unlink(missing_ok=True)
        return airflow.state(DAG, run) in ("success", "failed")

    until(over, "the run", LONG)
    assert airflow.state(DAG, run) == "success"
    assert any("supervise.py" in line for line in seen), "a job was seen while it ran"
    assert SECRET in in_jobs
    assert not [line for line in seen if SECRET in line]
    # Files and Airflow's database (XComs, rendered templates) on this side, scripts and logs on the other.
    for folder in (airflow.home, tmp_path, slurm.remote_job_dir, slurm.root / "log", slurm.root / "spool"):
        found = subprocess.run(
            ["grep", "-rlaF", SECRET, str(folder)], capture_output=True, text=True, check=False
        )
        assert found.stdout == "", folder


def test_a_triggerer_that_dies_loses_no_job(
    airflow: Airflow, slurm: Slurm, checkpoint: Path, tmp_path: Path, hold: Path
) -> None:
    params = {"training_run": "dying", "overrides": held(hold)}
    run = airflow.trigger(DAG, conf(tmp_path / "results", checkpoint, **params))

    def generating() -> bool:
        return "-generate-" in slurm.run("squeue", "-h", "-t", "running", "-o", "%j")

    until(generating, "generate to run", LONG)
    until(lambda: is_watched(airflow, run), "a trigger", LONG)
    airflow.kill_component("triggerer")
    airflow.start_component("triggerer")
    hold.unlink()
    assert airflow.wait(DAG, run) == "success"
    jobs = slurm.run("sacct", "-n", "-X", "-D", "-P", "-o", "jobname").split()
    names = [job for job in jobs if run.replace(":", "-").replace("+", "-")[:30] in job]
    assert len(names) == len(set(names))


def test_the_job_log_is_there_while_it_runs_and_a_marked_or_cleared_task_leaves_no_job(
    airflow: Airflow, slurm: Slurm, checkpoint: Path, tmp_path: Path, hold: Path
) -> None:
    params = {"training_run": "marked", "overrides": held(hold)}
    run = airflow.trigger(DAG, conf(tmp_path / "results", checkpoint, **params))

    def generating() -> str:
        return slurm.run("squeue", "-h", "-t", "running", "-n", generate_jobs(slurm), "-o", "%i").strip()

    first = until(generating, "generate to run", LONG)
    path = f"/dags/{DAG}/dagRuns/{run}/taskInstances/generate/0"
    page = f"/evalcore/jobs/{DAG}/{quote(run, safe='')}/generate/0/log"
    until(lambda: "(the end of /" in airflow.get(page).text, "the log's page", LONG)
    until(lambda: is_watched(airflow, run), "a trigger", LONG)
    airflow.clear(DAG, run, ["generate", 0])
    until(lambda: generating() not in ("", first), "the next attempt", LONG)
    airflow.request("PATCH", path, {"new_state": "failed"})
    until(lambda: not slurm.run("squeue", "-h"), "an empty queue", LONG)
    assert airflow.wait(DAG, run) == "failed"


def test_a_preempted_generation_goes_on_where_it_stopped(
    airflow: Airflow, slurm: Slurm, checkpoint: Path, tmp_path: Path, hold: Path
) -> None:
    params = {"overrides": held(hold), "max_problems": 10, "training_run": "preempted"}
    run = airflow.trigger(DAG, conf(tmp_path / "results", checkpoint, **params))
    parts = slurm.remote_job_dir / "results" / "preempted"
    written = some_rows(parts)
    job = slurm.run("squeue", "-h", "-t", "running", "-n", generate_jobs(slurm), "-o", "%i").strip()
    rows = [file.read_bytes() for file in written]
    slurm.run("scancel", slurm.preempt(job))
    hold.unlink()
    assert airflow.wait(DAG, run) == "success"
    [card] = (tmp_path / "results" / "preempted").rglob("scorecard.json")
    assert Scorecard.load(card.parent).complete
    # What was written before is still there, and nothing was asked twice.
    now = [row for file in parts.rglob("generations/*.jsonl") for row in file.read_text().splitlines()]
    keys = [(row["problem_id"], row["sample"]) for row in map(json.loads, now)]
    assert len(keys) == len(set(keys)) == 90
    assert rows[0].splitlines()[0].decode() in now
    said = slurm.run("sacct", "-n", "-X", "-D", "-P", "-o", "jobname,state")
    states = [line.rpartition("|")[2] for line in said.splitlines() if generate_of(run) in line]
    assert states == ["PREEMPTED", "COMPLETED"]


def test_what_is_wrong_with_a_request_is_said_by_plan(
    airflow: Airflow, slurm: Slurm, checkpoint: Path, tmp_path: Path
) -> None:
    run = airflow.trigger(DAG, conf(tmp_path / "results", tmp_path / "nowhere"))
    assert airflow.wait(DAG, run) == "failed"
    assert f"checkpoint {tmp_path}/nowhere: no such folder" in json.dumps(
        airflow.xcom(DAG, run, "plan", "error")
    )
