"""Slurm's commands as a line of sh each, for what a real Slurm does too rarely; tests/e2e/ has that one."""

from __future__ import annotations

from pathlib import Path


class FakeSlurm:
    """Commands in a folder; without more a job is accepted, and nothing is in queue or accounts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.set("sbatch", "echo 4711")
        for command in ("squeue", "sacct", "scancel"):
            self.set(command, "")

    def set(self, command: str, script: str) -> None:
        """Say what a command does."""
        (self.folder / command).write_text(
            f'#!/bin/sh\necho "${{0##*/}} $*" >> {self.folder}/calls\n{script}\n'
        )
        (self.folder / command).chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """The command lines there were."""
        return (self.folder / "calls").read_text().splitlines()
