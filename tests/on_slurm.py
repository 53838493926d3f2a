"""The whole DAG on a real Slurm over a real sshd: what the end-to-end tests of it have in common."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster_folder import cluster_folder
from demo.cluster import Cluster as Slurm
from demo.standalone import Airflow
from whole_dag import QUICK, SECRET


@contextmanager
def running_slurm() -> Iterator[Slurm]:
    """Jobs run as this user, who can run this Python."""
    with cluster_folder() as folder, Slurm(folder, user="root") as running:
        yield running


@contextmanager
def running_airflow(slurm: Slurm, folder: Path) -> Iterator[Airflow]:
    """With the profile ``cluster`` for that Slurm, and quick to notice who is dead."""
    profile = slurm.env_toml()
    profile.write_text(f'{profile.read_text()}python = "{sys.executable}"\npoll_interval = 2\n')
    settings = {
        "EVALCORE_ENV_TOML": str(profile),
        "EVALCORE_INCLUDE": str(folder / "include"),
        "EVALCORE_RESULTS": str(folder / "results"),
        "AIRFLOW_CONN_CLUSTER": slurm.connection_uri(),
        "WANDB_MODE": "offline",
        "OPENAI_API_KEY": SECRET,
        **QUICK,
    }
    with Airflow(folder / "airflow", settings=settings) as running:
        yield running


def generate_of(run: str) -> str:
    """What the names of a run's generate jobs have in common."""
    return f"{run.replace(':', '-')}-generate-"


def generate_jobs(slurm: Slurm, run: str = "") -> str:
    """The names of the queue's generate jobs, of one run or of all, as ``squeue --name`` wants them."""
    names = slurm.run("squeue", "-h", "-o", "%j").split()
    return ",".join(name for name in names if generate_of(run) in name) or "none"
