"""Daemons in the foreground, each in a session of its own, and a file that remembers them.

Whoever starts them may be killed: the file has the pid and the start time of each, so that the next one
ends what is left, and no process that merely got the same pid.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

STOP_TIMEOUT = 60.0
"""Seconds: one that is killed before it has saved its state starts with an older one."""


class Daemons:
    """Started processes by name, recorded in ``file``, with one log each in ``logs``."""

    def __init__(self, file: Path, logs: Path) -> None:
        self.file = file
        self.logs = logs
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._recorded: dict[str, tuple[int, float]] = {}

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                argv,
                env=env,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started[name] = process
        self.record(name, process.pid)

    def record(self, name: str, pid: int) -> None:
        """Remember a process; one that was not started here, too."""
        self._recorded[name] = (pid, psutil.Process(pid).create_time())
        self._write()

    def process(self, name: str) -> psutil.Process | None:
        """The process of that name, if it was started here and lives."""
        started = self._started.get(name)
        return psutil.Process(started.pid) if started and started.poll() is None else None

    def stop(self, name: str) -> None:
        """SIGTERM, SIGKILL if that does not help; nothing if it does not run."""
        started = self._started.pop(name, None)
        if started and started.poll() is None:
            started.terminate()
            try:
                started.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
        if self._recorded.pop(name, None):
            self._write()

    def gone(self) -> list[str]:
        """The names of those that ended without being stopped."""
        return [name for name, started in self._started.items() if started.poll() is not None]

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _write(self) -> None:
        temporary = self.file.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._recorded))
        temporary.replace(self.file)


def recorded(file: Path) -> dict[str, psutil.Process | None]:
    """What a file remembers: the processes by name, None for those that are gone."""
    if not file.is_file():
        return {}
    return {name: _same_process(*entry) for name, entry in json.loads(file.read_text()).items()}


def with_descendants(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The processes and all that they have started and not abandoned."""
    family: list[psutil.Process] = []
    for process in processes:
        try:
            family += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return family


def of_jobs(jobs: range) -> list[psutil.Process]:
    """The processes of Slurm jobs: Slurm's own, their descendants, and those that left them behind."""
    return with_descendants(process for process in psutil.process_iter() if _job_of(process) in jobs)


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL, and wait until they are gone."""
    victims = list(processes)
    for victim in victims:
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(victims, timeout=STOP_TIMEOUT)


def _same_process(pid: int, started: float) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if same else None


def _job_of(process: psutil.Process) -> int | None:
    try:
        step = re.match(r"slurmstepd: \[(\d+)", " ".join(process.cmdline()))
        job = step[1] if step else process.environ().get("SLURM_JOB_ID", "")
    except psutil.Error:
        return None
    return int(job) if job.isdecimal() else None
