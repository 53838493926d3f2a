"""How commands reach a cluster: over a connection that somebody else keeps (``Shell``), or right here.

>>> Here().run("hostname", b"", timeout=10.0)
Finished(code=0, stdout=b'login01\n', stderr=b'')
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import NamedTuple, Protocol

from evalcore.backends import Unreachable
from evalcore.executors import SECRET_NAME


class Finished(NamedTuple):
    code: int
    stdout: bytes
    stderr: bytes


class Shell(Protocol):
    """Runs commands on a cluster's login node and moves files there and back."""

    def run(self, command: str, stdin: bytes, *, timeout: float) -> Finished:
        """Run a command of sh; Unreachable where its end was not seen."""

    def get(self, remote: str, local: str) -> None:
        """Copy a file from there; Unreachable if the connection breaks, OSError if the file cannot be read."""


class Here:
    """This host is the login node. Commands do not have what Airflow has: sbatch hands all of it on to jobs."""

    def run(self, command: str, stdin: bytes, *, timeout: float) -> Finished:
        try:
            done = subprocess.run(
                ["sh", "-c", command], input=stdin, capture_output=True, timeout=timeout, env=_environment()
            )
        except subprocess.TimeoutExpired:
            raise Unreachable(f"no answer within {timeout:.0f} s") from None
        return Finished(done.returncode, done.stdout, done.stderr)

    def get(self, remote: str, local: str) -> None:
        shutil.copyfile(remote, local)


def _environment() -> dict[str, str]:
    """This process's, but for Airflow's settings, secrets, and the job of Slurm's that it may itself run in."""
    return {name: value for name, value in os.environ.items() if not _is_airflows_own(name)}


def _is_airflows_own(name: str) -> bool:
    if name == "SLURM_CONF":
        return False
    return name.lstrip("_").startswith(("AIRFLOW_", "SLURM_")) or bool(SECRET_NAME.fullmatch(name))
