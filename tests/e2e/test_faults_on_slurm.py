"""The whole DAG on a real Slurm, on which something breaks: no row is lost or double, and the run ends well."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from demo.cluster import Cluster as Slurm
from demo.daemons import kill
from demo.standalone import Airflow
from evalcore.summarize import Scorecard
from on_slurm import generate_jobs, generate_of, running_airflow, running_slurm
from waiting import LONG, until
from whole_dag import DAG, conf, held

pytestmark = pytest.mark.e2e

NO_TRACK = ["wandb.mode=disabled"]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with running_slurm() as running:
        yield running


@pytest.fixture(scope="module")
def airflow(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    with running_airflow(slurm, tmp_path_factory.mktemp("faults")) as running:
        yield running


def written(slurm: Slurm, training_run: str) -> list[str]:
    """The lines of all generations of a training run, as they are there."""
    parts = (slurm.remote_job_dir / "results" / training_run).rglob("generations/*.jsonl")
    return [line for part in parts for line in part.read_text().splitlines(keepends=True)]


def check(slurm: Slurm, results: Path, training_run: str, samples: int) -> None:
    """That so many samples are there, each once and whole, and that the scorecard here has them all."""
    rows = [json.loads(line) for line in written(slurm, training_run)]
    keys = {(row["problem_id"], row["sample"]) for row in rows}
    assert len(keys) == len(rows) == samples
    [card] = (results / training_run).rglob("scorecard.json")
    found = Scorecard.load(card.parent)
    assert found.complete
    assert found.subsets[0].counts.generated == samples


def attempts(slurm: Slurm, run: str, what: str = "state") -> list[str]:
    """What accounting says of each generate job that a run has had, the oldest first."""
    said = slurm.run("sacct", "-n", "-X", "-D", "-P", "-o", f"jobname,{what}")
    return [line.rpartition("|")[2] for line in said.splitlines() if generate_of(run) in line]


def generating(slurm: Slurm, run: str) -> list[str]:
    """Id and node of a run's generate job, once it runs."""
    return slurm.run("squeue", "-h", "-t", "running", "-n", generate_jobs(slurm, run), "-o", "%i %N").split()


def logs(slurm: Slurm, run: str) -> list[str]:
    """What each attempt of a run's generate job has printed, the oldest first."""
    files = (slurm.remote_job_dir / "jobs").glob(f"*{generate_of(run)}*/*/log.txt")
    return [file.read_text() for file in sorted(files)]


def test_two_runs_of_one_checkpoint_at_once_share_what_one_has_generated(
    airflow: Airflow, slurm: Slurm, checkpoint: Path, tmp_path: Path, hold: Path
) -> None:
    params = conf(
        tmp_path, checkpoint, overrides=held(hold) + NO_TRACK, max_problems=20, training_run="twice"
    )
    runs = [airflow.trigger(DAG, params) for _ in range(2)]
    until(lambda: any("waiting" in log for run in runs for log in logs(slurm, run)), "the second one", LONG)
    hold.unlink()
    assert [airflow.wait(DAG, run) for run in runs] == ["success", "success"]
    check(slurm, tmp_path, "twice", 20 * 9)
    assert [attempts(slurm, run) for run in runs] == [["COMPLETED"], ["COMPLETED"]]
    # They did meet: the one that came second says what it waits for, and asks nothing.
    [[first], [second]] = sorted((logs(slurm, run) for run in runs), key=lambda log: "waiting" in log[0])
    assert "180 samples, 180 new" in first
    assert "waiting for another process" in second
    assert "180 samples, 0 new" in second


def test_a_generation_goes_on_after_a_lost_node_and_when_its_time_is_up(
    airflow: Airflow, slurm: Slurm, checkpoint: Path, tmp_path: Path, hold: Path
) -> None:
    params = conf(
        tmp_path, checkpoint, overrides=held(hold) + NO_TRACK, max_problems=40, training_run="stopped"
    )
    run = airflow.trigger(DAG, params)
    until(lambda: len(written(slurm, "stopped")) > 10, "some rows", LONG)
    before = written(slurm, "stopped")[:-1]  # the last one may just be coming
    first, node = generating(slurm, run)
    # Nobody on the node is left to end the job's processes, which go on when Slurm has given it up.
    slurm.stop(node)
    slurm.fail_node(node)
    until(lambda: "waiting for another process" in "".join(logs(slurm, run)[1:]), "the next attempt", LONG)
    slurm.start(node)
    slurm.resume_node(node)
    second, _ = generating(slurm, run)
    assert second != first
    until(lambda: "going on" in logs(slurm, run)[1], "the first one to be gone", LONG)
    slurm.end_now(second)
    until(lambda: second not in generating(slurm, run), "its time to be up", LONG)
    hold.unlink()
    assert airflow.wait(DAG, run) == "success"
    lost, late, last = attempts(slurm, run)
    assert (lost, last) == ("NODE_FAIL", "COMPLETED")
    assert late in ("TIMEOUT", "FAILED"), "killed then, or told to stop just before"
    assert written(slurm, "stopped")[: len(before)] == before
    check(slurm, tmp_path, "stopped", 40 * 9)


SBATCH = """#!/bin/sh
case "$*" in *-generate-*) ;; *) exec {real} "$@" ;; esac
at() {{ touch {folder}/$1; while [ -e {folder}/hold-$1 ]; do sleep 0.05; done; }}
case "$*" in *{before}*) at before ;; esac
{real} "$@"
code=$?
case "$*" in *{after}*) at after ;; esac
exit $code
"""


@contextmanager
def sbatch_that_waits(slurm: Slurm, folder: Path, before: str, after: str) -> Iterator[None]:
    """On the login node, before it has submitted a job of the one run, and after it has one of the other."""
    real = shutil.which("sbatch")
    wrapper = folder / "bin" / "sbatch"
    wrapper.parent.mkdir()
    wrapper.write_text(SBATCH.format(real=real, folder=folder, before=before, after=after))
    wrapper.chmod(0o755)
    for moment in ("before", "after"):
        (folder / f"hold-{moment}").touch()
    config = slurm.root / "ssh" / "sshd_config"
    text = config.read_text()
    path = f" PATH={wrapper.parent}:/usr/local/bin:/usr/bin:/bin"
    config.write_text(re.sub("^SetEnv .*", lambda found: found[0] + path, text, flags=re.MULTILINE))
    slurm.stop("sshd")
    slurm.start("sshd")
    try:
        yield
    finally:
        for moment in ("before", "after"):
            (folder / f"hold-{moment}").unlink(missing_ok=True)
        config.write_text(text)
        slurm.stop("sshd")
        slurm.start("sshd")


def kill_worker(airflow: Airflow, run: str) -> None:
    """SIGKILL the process in which a run's generate task runs, and the one that looks after it."""
    [task] = [
        task for task in airflow.tasks(DAG, run) if (task["task_id"], task["map_index"]) == ("generate", 0)
    ]
    found = psutil.process_iter(["cmdline"])
    victims = [process for process in found if task["id"] in " ".join(process.info["cmdline"] or [])]
    assert len(victims) == 2
    kill(victims)


def test_a_worker_that_dies_while_it_submits_leaves_a_job_that_its_successor_finds(
    airflow: Airflow, slurm: Slurm, checkpoint: Path, tmp_path: Path
) -> None:
    runs = {"before": "dies-before", "after": "dies-after"}
    with sbatch_that_waits(slurm, tmp_path, **runs):
        for run in runs.values():
            params = conf(
                tmp_path / "results", checkpoint, overrides=NO_TRACK, max_problems=3, training_run=run
            )
            airflow.trigger(DAG, params, run_id=run)
        for moment, run in runs.items():
            until((tmp_path / moment).exists, f"sbatch of {run}", LONG)
            kill_worker(airflow, run)
            (tmp_path / f"hold-{moment}").unlink()
        assert [airflow.wait(DAG, run) for run in runs.values()] == ["success", "success"]
    for run in runs.values():
        assert attempts(slurm, run) == ["COMPLETED"]
        check(slurm, tmp_path / "results", run, 3 * 9)
        [generate] = [task for task in airflow.tasks(DAG, run) if task["task_id"] == "generate"]
        assert generate["try_number"] == 2, "the first one is dead"


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(parents=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False)
    if made.returncode:
        pytest.skip("this machine mounts nothing for us")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_named_and_nothing_is_lost_on_it(
    airflow: Airflow, slurm: Slurm, checkpoint: Path, tmp_path: Path
) -> None:
    disk = slurm.remote_job_dir / "results" / "full"
    with small_disk(disk, "64k"):
        params = conf(tmp_path, checkpoint, overrides=NO_TRACK, max_problems=40, training_run="full")
        run = airflow.trigger(DAG, params)
        assert airflow.wait(DAG, run) == "failed"
        first = airflow.xcom(DAG, run, "report", "failures")[0]
        assert first.startswith("generate of tiny-arithmetic:8: ")
        assert "cannot write" in first
        assert "No space left on device" in first
        rows = written(slurm, "full")
        assert 0 < len(rows) < 40 * 9
        assert rows[-1].endswith("}\n")
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        airflow.clear(DAG, run, ["generate", 0])
        assert airflow.wait(DAG, run) == "success"
        assert written(slurm, "full")[: len(rows)] == rows
        check(slurm, tmp_path, "full", 40 * 9)
