"""The local Slurm cluster: jobs end as they do on a large one, faults are real, nothing outlives it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from airflow.providers.ssh.hooks.ssh import SSHHook, SSHHookAsync
from paramiko import BadHostKeyException

from cluster_folder import cluster_folder
from demo.cluster import Cluster, ClusterError
from demo.daemons import of_jobs, recorded
from demo.slurm_conf import PORTS, job_ids
from demo.standalone import ROOT
from waiting import bystander, started, until

pytestmark = [pytest.mark.e2e, pytest.mark.beside]


@pytest.fixture
def folder() -> Iterator[Path]:
    with cluster_folder() as empty:
        yield empty


@pytest.fixture
def sleeping(cluster: Cluster) -> Iterator[str]:
    """A job that runs."""
    # On one node: what preempts it there leaves it no other.
    job = submit(cluster, "sleep 600", "--nodelist=node1")
    until(lambda: cluster.state(job) == "RUNNING", "the job")
    yield job
    cluster.run("scancel", job)
    until(lambda: not cluster.run("squeue", "-h"), "an empty queue")


def submit(cluster: Cluster, script: str, *options: str) -> str:
    return cluster.run(
        "sbatch", "--parsable", "--output=/dev/null", *options, stdin=f"#!/bin/sh\n{script}\n"
    ).strip()


def ssh(cluster: Cluster, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        cluster.ssh(*argv), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


def ended(cluster: Cluster, job: str) -> str:
    """State and exit code in the accounts, once the job is over."""

    def look() -> str:
        rows = cluster.run("sacct", "-X", "-n", "-P", "-j", job, "-o", "state,exitcode").split()
        return "" if not rows or rows[0].startswith(("PENDING", "RUNNING")) else rows[0]

    return until(look, f"the end of job {job}")


def test_a_job_sent_over_ssh_runs_as_the_job_user_and_completes(cluster: Cluster) -> None:
    out = cluster.remote_job_dir / "out"
    sent = ssh(cluster, "sbatch", "--parsable", "--gres=gpu:1", f"--output={out}", "--wrap", "id -un; env")
    assert ended(cluster, sent.stdout.strip()) == "COMPLETED|0:0"
    assert out.read_text().splitlines()[0] == cluster.user
    assert "CUDA_VISIBLE_DEVICES=0" in out.read_text()


def test_a_job_out_of_memory_is_told_apart(cluster: Cluster) -> None:
    job = submit(cluster, "head -c 400M /dev/zero | tail -c 400M > /dev/null", "--mem=50")
    assert ended(cluster, job).split("|")[0] == ("OUT_OF_MEMORY" if cluster.has_memory_limit else "COMPLETED")


def test_a_job_is_brought_to_its_time_limit(cluster: Cluster, sleeping: str) -> None:
    cluster.end_now(sleeping)
    assert ended(cluster, sleeping) == "TIMEOUT|0:0"


def test_a_node_is_lost_and_comes_back(cluster: Cluster) -> None:
    job = submit(cluster, "sleep 600", "--no-requeue", "--nodelist=node2")
    until(lambda: cluster.state(job) == "RUNNING", "the job")
    cluster.fail_node("node2")
    assert ended(cluster, job) == "NODE_FAIL|0:0"
    cluster.resume_node("node2")
    assert ended(cluster, submit(cluster, "true", "--nodelist=node2")) == "COMPLETED|0:0"


def test_a_preempted_job_waits_and_runs_again(cluster: Cluster, sleeping: str) -> None:
    urgent = cluster.preempt(sleeping)
    assert cluster.state(sleeping) == "PENDING"
    cluster.run("scancel", urgent)
    until(lambda: cluster.state(sleeping) == "RUNNING", "its second run")


def test_jobs_outlive_slurmctld(cluster: Cluster, sleeping: str) -> None:
    cluster.stop("slurmctld")
    with pytest.raises(ClusterError, match="Unable to contact slurm controller"):
        cluster.run("squeue")
    cluster.start("slurmctld")
    assert cluster.state(sleeping) == "RUNNING"


def test_slurmdbd_goes_and_comes_back(cluster: Cluster) -> None:
    cluster.stop("slurmdbd")
    with pytest.raises(ClusterError, match="sacct"):
        cluster.run("sacct")
    job = submit(cluster, "exit 3")
    until(lambda: cluster.state(job) == "FAILED", "the job")
    cluster.start("slurmdbd")
    assert until(lambda: ended(cluster, job) == "FAILED|3:0", "the account of what ended without it")


def test_a_node_that_is_stopped_is_noticed_and_comes_back(cluster: Cluster) -> None:
    cluster.stop("node2")
    until(lambda: "down" in cluster.run("sinfo", "-h", "-n", "node2", "-o", "%T"), "the loss")
    cluster.start("node2")
    assert ended(cluster, submit(cluster, "true", "--nodelist=node2")) == "COMPLETED|0:0"


def test_cut_connections_end_and_new_ones_are_taken(cluster: Cluster) -> None:
    with subprocess.Popen(
        cluster.ssh("sh", "-c", "echo there; sleep 600"), stdout=subprocess.PIPE, text=True
    ) as open_one:
        assert open_one.stdout
        assert open_one.stdout.readline() == "there\n"
        cluster.cut_ssh()
        assert open_one.wait(60) == 255
    assert ssh(cluster, "id", "-un").stdout == f"{cluster.user}\n"


def test_what_a_users_shell_would_say_first_is_not_said(cluster: Cluster) -> None:
    assert ssh(cluster, "sh", "-c", "basename $SHELL").stdout == "bash\n"
    bashrc = Path(ssh(cluster, "pwd").stdout.strip()) / ".bashrc"
    before = bashrc.read_bytes() if bashrc.exists() else b""
    bashrc.write_text("echo noise\n")
    try:
        assert ssh(cluster, "echo", "there").stdout == "there\n"
    finally:
        bashrc.write_bytes(before)


def test_without_sshd_nobody_answers(cluster: Cluster) -> None:
    cluster.stop("sshd")
    assert "Connection refused" in ssh(cluster, "true").stderr
    cluster.start("sshd")
    assert ssh(cluster, "true").returncode == 0


async def test_airflows_hooks_connect_and_know_the_host(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CLUSTER", cluster.connection_uri())
    with SSHHook(cluster.ssh_conn_id).get_conn() as connection:
        assert connection.exec_command("id -un")[1].read() == f"{cluster.user}\n".encode()
    asynchronous = SSHHookAsync(cluster.ssh_conn_id)
    assert (await asynchronous.run_command("id -un"))[1] == f"{cluster.user}\n"
    # The host key of another machine is not accepted.
    other = (cluster.root / "ssh" / "id.pub").read_text().split()[1]
    ours = (cluster.root / "ssh" / "host.pub").read_text().split()[1]
    wrong = cluster.connection_uri().replace(quote(ours, safe=""), quote(other, safe=""))
    monkeypatch.setenv("AIRFLOW_CONN_CLUSTER", wrong)
    with pytest.raises(BadHostKeyException), SSHHook(cluster.ssh_conn_id).get_conn():
        pass


def test_the_profile_says_how_to_reach_it(cluster: Cluster) -> None:
    profile = tomllib.loads(cluster.env_toml().read_text())["cluster"]
    assert (profile["executor"], profile["user"]) == ("slurm", cluster.user)
    assert ssh(cluster, "touch", f"{profile['remote_job_dir']}/written").returncode == 0


def name_of(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:  # a shell's, which has ended since it was listed
        return ""


def test_nothing_is_left_after_an_error(folder: Path) -> None:
    left: list[psutil.Process] = []

    def use(cluster: Cluster) -> None:
        # The first leaves the job's session and its parent.
        job = submit(cluster, "(setsid sleep 600 &) ; sleep 600")
        until(lambda: list(map(name_of, of_jobs(job_ids(cluster.ports)))).count("sleep") >= 2, job)
        with pytest.raises(ClusterError, match="accounting storage is disabled"):
            cluster.run("sacct")
        daemons = [p for name, p in recorded(folder / "processes.json").items() if p and name != "cluster"]
        assert len(daemons) == 4  # munged, slurmctld, node1, sshd
        left.extend([*daemons, *of_jobs(job_ids(cluster.ports))])
        raise KeyError

    with pytest.raises(KeyError), Cluster(folder, nodes=1, with_dbd=False) as running:
        use(running)
    assert left
    assert not any(process.is_running() for process in left)


def cli(verb: str, folder: Path) -> list[str]:
    return [sys.executable, str(ROOT / "include" / "demo" / "cluster.py"), verb, str(folder)]


@contextmanager
def up(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``up`` in the foreground, as soon as it says that it is ready."""
    with started(cli("up", folder), stdout=subprocess.PIPE) as owner:
        assert owner.stdout
        assert any(b"Ctrl-C stops it" in line for line in owner.stdout)
        yield owner


def daemons_in(folder: Path) -> list[psutil.Process]:
    found = [p for name, p in recorded(folder / "processes.json").items() if p and name != "cluster"]
    # munged, mariadb, slurmdbd, slurmctld, two nodes, sshd
    assert len(found) == 7
    return found


def test_what_a_killed_owner_left_is_ended_and_no_stranger(folder: Path) -> None:
    with up(folder) as owner:
        assert subprocess.run(cli("status", folder), check=False).returncode == 0
        daemons = daemons_in(folder)
        owner.kill()
        owner.wait()
    assert all(daemon.is_running() for daemon in daemons)
    with bystander() as stranger:
        # A daemon that is gone by itself, and whose pid another process has got since.
        record = json.loads((folder / "processes.json").read_text())
        (folder / "processes.json").write_text(json.dumps(record | {"node9": (stranger.pid, 1.0)}))
        assert subprocess.run(cli("down", folder), check=False).returncode == 0
        assert stranger.poll() is None
    assert not any(daemon.is_running() for daemon in daemons)
    assert subprocess.run(cli("status", folder), check=False).returncode == 3


@pytest.mark.parametrize("by", ["ctrl-c", "down"])
def test_what_runs_in_the_foreground_is_ended(folder: Path, by: str) -> None:
    with up(folder) as owner:
        daemons = daemons_in(folder)
        if by == "ctrl-c":
            owner.send_signal(signal.SIGINT)
        else:
            subprocess.run(cli("down", folder), check=True)
        assert owner.wait(300) == 0
        assert not any(daemon.is_running() for daemon in daemons)


def test_a_folder_has_one_cluster_and_only_ours(folder: Path) -> None:
    first, second = Cluster(folder), Cluster(folder)
    first._take_root()
    with pytest.raises(ClusterError, match="another cluster runs in"):
        second._take_root()
    first.down()
    strange = folder / "strange"
    (strange / "etc").mkdir(parents=True)
    with pytest.raises(ClusterError, match="is not empty"):
        Cluster(strange).up()
    assert (strange / "etc").is_dir()


def test_a_folder_the_job_user_cannot_enter_is_refused(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ClusterError, match=f"cannot enter {closed}"), Cluster(closed / "cluster"):
        pass


def test_two_clusters_share_no_job_ids() -> None:
    ids = [job_ids({"slurmctld": port}) for port in PORTS]
    assert ids[0].start > 0
    assert all(a.stop <= b.start for a, b in pairwise(ids))
    assert ids[-1].stop < 0x03FF0000  # Slurm's largest
