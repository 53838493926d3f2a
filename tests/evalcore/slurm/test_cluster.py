"""What of a cluster needs no real Slurm; the rest is in tests/e2e."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from evalcore import jobs
from evalcore.config import load_config
from evalcore.errors import JobError
from evalcore.plan import Plan
from evalcore.profiles import SlurmProfile
from evalcore.slurm.cluster import MAX_ATTEMPTS, Cluster
from evalcore.slurm.shell import Finished, Here
from fake_slurm import FakeSlurm

CHECKPOINT = sorted((Path(__file__).parents[3] / "include" / "tiny" / "checkpoints").glob("step-*"))[1]
KILLED = '{"exit_code": null, "signal": 11, "terminated": false}\n'


def test_a_run_is_planned_by_the_login_nodes_python(tmp_path: Path) -> None:
    """That of jobs is in a container, which the login node cannot look into."""
    keys = {
        "name": "c",
        "executor": "slurm",
        "remote_job_dir": str(tmp_path),
        "container_image": "/images/e.sqsh",
    }
    profile = SlurmProfile.model_validate({**keys, "python": "/opt/e/python", "login_python": sys.executable})
    config = load_config("tiny", checkpoint=str(CHECKPOINT), results=str(tmp_path / "results"))
    asked = config.model_dump_json().encode()
    said = Cluster(profile, Here()).run("evalcore.plan", stdin=asked, timeout=60)
    assert Plan.from_json(said).convert[:2] == ["evalcore", "convert"]
    assert Plan.from_json(b"Welcome to login01\n" + said) == Plan.from_json(said)
    without = SlurmProfile.model_validate({**keys, "python": "/opt/e/python"})
    with pytest.raises(JobError, match="/opt/e/python"):
        Cluster(without, Here()).run("evalcore.plan", stdin=asked, timeout=60)


@pytest.fixture
def cluster(slurm: FakeSlurm, tmp_path: Path) -> Cluster:
    return Cluster(SlurmProfile(name="c", executor="slurm", remote_job_dir=str(tmp_path / "jobs")), Here())


def attempt(cluster: Cluster) -> Path:
    return Path(cluster.ensure("eval", ["true"], {}))


def test_a_command_that_a_signal_kills_is_not_tried_for_ever(cluster: Cluster) -> None:
    for _ in range(jobs.MAX_ATTEMPTS):
        (attempt(cluster) / "result.json").write_text(KILLED)
    with pytest.raises(JobError, match="killed by SIGSEGV, 3 times in a row"):
        attempt(cluster)
    assert attempt(cluster).name == "4", "whoever asks once more wants it tried again"


def test_what_the_cluster_stops_goes_on_more_often(cluster: Cluster, slurm: FakeSlurm) -> None:
    slurm.set("sacct", "echo '4711|TIMEOUT|0:0|node1'")
    for _ in range(MAX_ATTEMPTS):
        attempt(cluster)
    with pytest.raises(JobError, match=r"lost \(TIMEOUT\), 10 times in a row"):
        attempt(cluster)


def test_clearing_a_task_often_is_no_failure(cluster: Cluster) -> None:
    for _ in range(MAX_ATTEMPTS + 1):
        cluster.cancel([str(attempt(cluster))])
    assert attempt(cluster).name == str(MAX_ATTEMPTS + 2)


def test_a_submission_that_was_cut_off_and_cancelled_is_not_taken_up_again(
    cluster: Cluster, slurm: FakeSlurm
) -> None:
    first = attempt(cluster)
    (first / "id").unlink()
    slurm.set("squeue", "exit 1")
    with pytest.raises(Exception, match="squeue"):
        cluster.cancel([str(first)])
    slurm.set("squeue", 'case "$*" in *"--name eval.1 "*) echo 4711;; esac')
    assert attempt(cluster).name == "2"
    assert "scancel --quiet 4711" in slurm.calls


class Greeting(Here):
    """A login node whose users' .bashrc prints something, and does not end the line."""

    def run(self, command: str, stdin: bytes, *, timeout: float) -> Finished:
        return super().run(f"echo Welcome; printf 'loading modules ... '; {command}", stdin, timeout=timeout)


def test_what_a_login_shell_prints_is_no_answer(tmp_path: Path) -> None:
    keys = {"name": "c", "executor": "slurm", "remote_job_dir": str(tmp_path), "python": sys.executable}
    cluster = Cluster(SlurmProfile.model_validate(keys), Greeting())
    assert cluster.newest("nothing") is None
    config = load_config("tiny", checkpoint=str(CHECKPOINT), results=str(tmp_path / "results"))
    said = cluster.run("evalcore.plan", stdin=config.model_dump_json().encode(), timeout=60)
    assert Plan.from_json(said).convert[:2] == ["evalcore", "convert"]
