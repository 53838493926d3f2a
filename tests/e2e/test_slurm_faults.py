"""Transfers from a real Slurm to Airflow, whole and broken, and servers that share a node there."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from paramiko import SFTPClient

from demo.cluster import Cluster as Slurm
from demo.daemons import with_descendants
from evalcore.backends import Look, Unreachable
from evalcore.jobs import State
from evalcore.profiles import SlurmProfile
from evalcore.slurm.cluster import Cluster
from hooks.slurm import SshShell
from on_slurm import running_slurm
from waiting import LONG, until
from whole_dag import held

pytestmark = [pytest.mark.e2e, pytest.mark.beside]

BIG = 256 << 20


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with running_slurm() as running:
        yield running


@pytest.fixture
def cluster(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("AIRFLOW_CONN_CLUSTER", slurm.connection_uri())
    profile = SlurmProfile(
        name="cluster",
        executor="slurm",
        tunnel="ssh",
        ssh_conn_id=slurm.ssh_conn_id,
        time="10",
        remote_job_dir=str(slurm.remote_job_dir),
        python=sys.executable,
        extra_sbatch=(f"--nodelist={slurm.nodes[0]}",),
    )
    shell = SshShell(profile)
    yield Cluster(profile, shell)
    shell.close()


@pytest.fixture(scope="module")
def results(slurm: Slurm) -> Path:
    """A benchmark's folder there: a small file, and one of many blocks."""
    folder = slurm.remote_job_dir / "results" / "toy"
    (folder / "grades").mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    with (folder / "grades" / "a-0.jsonl").open("wb") as stream:
        stream.truncate(BIG)
    return folder


def sessions(slurm: Slurm) -> list[psutil.Process]:
    """The processes that serve connections, not the one that listens."""
    listener = slurm.daemons.process("sshd")
    assert listener
    return with_descendants([listener])[1:]


def test_results_come_back_whole(cluster: Cluster, slurm: Slurm, tmp_path: Path) -> None:
    there = slurm.remote_job_dir / "results" / "small"
    for part, text in (
        ("manifest.json", "{}"),
        ("grades/a-0.jsonl", "g\n" * 1000),
        ("generations/a-0.jsonl", "x"),
    ):
        (there / part).parent.mkdir(parents=True, exist_ok=True)
        (there / part).write_text(text)
    cluster.fetch(str(there), tmp_path)
    assert sorted(f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*.json*")) == [
        "grades/a-0.jsonl",
        "manifest.json",
    ]
    assert (tmp_path / "grades" / "a-0.jsonl").read_text() == "g\n" * 1000
    before = (tmp_path / "manifest.json").stat().st_mtime_ns
    cluster.fetch(str(there), tmp_path)
    assert (tmp_path / "manifest.json").stat().st_mtime_ns == before, "it is here already"


# paramiko's own thread, which asks for the file's next blocks, ends with the connection.
@pytest.mark.filterwarnings("ignore:Exception in thread .*_prefetch_thread")
@pytest.mark.parametrize("fault", ["cut", "stalled"])
def test_a_transfer_that_breaks_leaves_nothing_and_comes_whole_when_asked_again(
    cluster: Cluster,
    slurm: Slurm,
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    suspended: list[psutil.Process] = []
    get = SFTPClient.get

    def break_it(arrived: int, size: int) -> None:
        """After a block of the big file, and before the next one is taken."""
        if size < BIG or arrived == BIG:
            return
        if fault == "cut":
            slurm.cut_ssh()
        elif not suspended:
            suspended.extend(sessions(slurm))
            for process in suspended:
                process.suspend()

    with monkeypatch.context() as patch:
        patch.setattr("hooks.slurm._STALLED_SECONDS", 3.0)
        patch.setattr(SFTPClient, "get", lambda self, *paths: get(self, *paths, callback=break_it))
        try:
            with pytest.raises(Unreachable, match=f"^{slurm.ssh_host}|^cluster"):
                cluster.fetch(str(results), tmp_path)
        finally:
            for process in suspended:
                process.resume()
    there = [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()]
    assert there == ["manifest.json"], "whole, or not at all"
    cluster.fetch(str(results), tmp_path)
    assert (tmp_path / "grades" / "a-0.jsonl").stat().st_size == BIG


def test_servers_that_share_a_node_do_not_share_a_port(
    cluster: Cluster, slurm: Slurm, checkpoint: Path, tmp_path: Path, hold: Path
) -> None:
    def command(run: str) -> list[str]:
        return [
            *("evalcore", "generate", f"checkpoint={checkpoint}", "benchmarks=tiny-arithmetic:0"),
            *(f"training_run={run}", f"results={tmp_path}", "max_problems=20", *held(hold)),
        ]

    jobs = [cluster.ensure(run, command(run), {}) for run in ("one", "two", "three")]

    def all_of_them(holds: Callable[[Look], bool]) -> bool:
        return all(holds(look) for look in cluster.look(dict.fromkeys(jobs, 0)).values())

    until(lambda: all_of_them(lambda look: "server on port" in "".join(look.log)), "all servers", LONG)
    hold.unlink()
    until(lambda: all_of_them(lambda look: look.status.state.is_over), "the end of all", LONG)
    looks = cluster.look(dict.fromkeys(jobs, 0))
    assert [look.status.state for look in looks.values()] == [State.SUCCEEDED] * 3
    ports = [re.findall(r"server on port (\d+)", "\n".join(look.log)) for look in looks.values()]
    assert len({port for [port] in ports}) == 3
    said = slurm.run("sacct", "-n", "-X", "-P", "-o", "jobname,nodelist,start,end")
    rows = [line.split("|")[1:] for line in said.splitlines()]
    assert {node for node, _, _ in rows} == {slurm.nodes[0]}
    assert max(start for _, start, _ in rows) < min(end for _, _, end in rows), "all three at once"
