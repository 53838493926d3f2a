"""How much a triggerer asks of a Slurm cluster, and how soon it knows that a job is over.

    make bench-slurm
    make bench-slurm JOBS=50

A real local Slurm over a real sshd, as root. The jobs are submitted one by one and then watched together, by as
many triggers in one process as there are jobs, as Airflow's triggerer has them. *Commands a minute* are those sent
to the login node while they are watched; *delay* is from what a job wrote when it was over to its trigger's event.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import structlog
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "include"), str(ROOT / "plugins")]

from demo.cluster import Cluster as Slurm  # noqa: E402 (after the path)
from evalcore.profiles import SlurmProfile  # noqa: E402
from evalcore.slurm.cluster import Cluster  # noqa: E402
from evalcore.slurm.shell import Finished  # noqa: E402
from hooks.slurm import SshShell  # noqa: E402
from triggers import job as job_trigger  # noqa: E402

NODES = 10


class Counting(SshShell):
    """Counts the commands that go to the login node."""

    commands = 0

    def run(self, command: str, stdin: bytes, *, timeout: float) -> Finished:
        self.commands += 1
        return super().run(command, stdin, timeout=timeout)


async def watch(cluster: Cluster, jobs: list[str]) -> list[float]:
    """Seconds from each job's end to its trigger's event."""
    job_trigger._pollers["cluster", ""] = job_trigger._Poller(cluster)

    began = time.time()

    async def delay(job: str) -> float:
        async for _ in job_trigger.JobTrigger(job, cluster="cluster").run():
            # Some were over before anybody watched.
            return time.time() - max(began, (Path(job) / "result.json").stat().st_mtime)
        raise AssertionError("a trigger ends with an event")

    return list(await asyncio.gather(*map(delay, jobs)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=200)
    jobs_wanted = parser.parse_args().jobs
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    console = Console(width=110)
    with tempfile.TemporaryDirectory(prefix="bench-slurm-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with Slurm(Path(folder), nodes=NODES, user="root") as slurm:
            os.environ["AIRFLOW_CONN_CLUSTER"] = slurm.connection_uri()
            profile = SlurmProfile(
                name="cluster",
                executor="slurm",
                tunnel="ssh",
                ssh_conn_id="cluster",
                partition="main",
                remote_job_dir=str(slurm.remote_job_dir),
            )
            shell = Counting(profile)
            cluster = Cluster(profile, shell)
            console.print(f"[dim]submitting {jobs_wanted} jobs to {NODES} nodes …[/]")
            began = time.monotonic()
            jobs = [
                cluster.ensure(f"bench-{i}", ["sleep", str(130 + i % 40)], {}) for i in range(jobs_wanted)
            ]
            submitting, submitted = time.monotonic() - began, shell.commands
            console.print("[dim]watching them …[/]")
            cpu, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
            delays = sorted(asyncio.run(watch(cluster, jobs)))
            watching = time.monotonic() - began
            now = resource.getrusage(resource.RUSAGE_SELF)
            used = now.ru_utime + now.ru_stime - cpu.ru_utime - cpu.ru_stime
            shell.close()
    interval = profile.poll_interval
    table = Table(title=f"{jobs_wanted} jobs, looked at every {interval:.0f} s")
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in (
        (
            "commands a minute while they are watched (at most 4)",
            f"{(shell.commands - submitted) / watching * 60:.1f}",
        ),
        (f"delay, median (under {2 * interval:.0f} s)", f"{statistics.median(delays):.1f} s"),
        ("delay, largest", f"{delays[-1]:.1f} s"),
        ("CPU of the triggerer", f"{used / watching:.1%} of a core"),
        ("commands for a submission", f"{submitted / jobs_wanted:.1f}"),
        ("submissions a minute", f"{jobs_wanted / submitting * 60:,.0f}"),
    ):
        table.add_row(name, value)
    console.print(table)


if __name__ == "__main__":
    main()
