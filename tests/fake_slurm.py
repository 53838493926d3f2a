"""Slurm's commands as a few lines of sh each, for what a real Slurm does too rarely; tests/e2e/ has that one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalcore.backends import Look
from evalcore.profiles import SlurmProfile
from evalcore.slurm.cluster import Cluster
from evalcore.slurm.shell import Finished, Here

COMMAND = ["train", "--fast"]


class FakeSlurm:
    """Commands in ``bin``; until told otherwise sbatch says 4711 and the others nothing, successfully."""

    def __init__(self, folder: Path) -> None:
        self.bin, self._calls = folder / "bin", folder / "calls"
        self.bin.mkdir(parents=True)
        self._calls.touch()
        for command in ("sbatch", "squeue", "sacct", "scontrol", "scancel"):
            self.says(command, "4711\n" if command == "sbatch" else "")

    def says(self, command: str, out: str = "", *, error: str = "", code: int = 0) -> None:
        """From now on a command prints this and exits so."""
        self.does(command, f"printf %s {shlex.quote(out)}; printf %s {shlex.quote(error)} >&2; exit {code}")

    def does(self, command: str, script: str) -> None:
        """From now on a command is these lines of sh."""
        temporary = self.bin / f".{command}.tmp"
        temporary.write_text(f'#!/bin/sh\necho "{command} $*" >> {shlex.quote(str(self._calls))}\n{script}\n')
        temporary.chmod(0o755)
        os.replace(temporary, self.bin / command)

    def calls(self, command: str) -> list[str]:
        """The arguments of a command's calls, the first call first."""
        lines = self._calls.read_text().splitlines()
        return [line.removeprefix(f"{command} ") for line in lines if line.startswith(f"{command} ")]


class InThisProcess(Here):
    """Runs an agent that is sent as its login node's python3 would, but needs no process for it."""

    def run(self, command: str, stdin: bytes, *, timeout: float) -> Finished:
        source, _, request = stdin.partition(b"\0")
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(compile(source, "agent", "exec"), {"__name__": "agent", "REQUEST": request})
        return Finished(0, said.getvalue().encode(), b"")


def cluster_on(tmp_path: Path, array: Sequence[int] = (), **keys: Any) -> Cluster:
    remote = {"name": "c", "executor": "slurm", "remote_job_dir": str(tmp_path / "remote")}
    return Cluster(SlurmProfile.model_validate({**remote, **keys}), InThisProcess(), array)


def attempt(cluster: Cluster, number: int, *, command: Sequence[str] = COMMAND) -> Path:
    """The folder of an attempt of the job ``eval`` that was submitted, by hand."""
    folder = Path(cluster.folder("eval")) / str(number)
    folder.mkdir(parents=True)
    (folder / "id").write_text("4711")
    (folder / "script.sh").touch()
    (folder / "command.json").write_text(json.dumps({"argv": list(command)}))
    return folder


def look(cluster: Cluster, job: str | Path, offset: int = 0) -> Look:
    return cluster.look({str(job): offset})[str(job)]
