"""Runs a job's command on its node, and writes down how it ended: ``python3 supervise.py FOLDER``.

Copied beside the job, so that it needs Python 3.9's standard library alone, on whatever host the job lands. The
secrets are read and deleted before the command starts. SIGTERM (Slurm sends it when the job is cancelled, and
shortly before its time is up) goes on to the command, which may finish what it has begun; what ends after it
was told to is ``terminated``, whatever its exit code, and can go on in another job.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

_RESULT_BYTES = 512
_RESULT_PATIENCE = 60.0
_POLL = 0.5


def main(folder: str) -> int:
    task = os.environ.get("SLURM_ARRAY_TASK_ID")

    def path(name: str) -> str:
        return os.path.join(folder, name)

    def own(name: str) -> str:
        """A file of this task alone, where the job is an array of them."""
        return path(name if task is None else f"-{task}.".join(name.rsplit(".", 1)))

    told = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda *_: told.append(True))
    with open(path("command.json"), encoding="utf-8") as stream:
        command = json.load(stream)
    result: dict[str, Any] = {"job": os.environ.get("SLURM_JOB_ID", ""), "host": os.uname().nodename}
    try:
        process = subprocess.Popen(
            command["argv"],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**_inherited(), **command.get("env", {}), **_secrets(own("secrets.json"))},
        )
    except OSError as error:
        _say("error: cannot run {}: {}".format(command["argv"][0], error.strerror))
        return _write(own("result.json"), {**result, "exit_code": 127, "signal": None, "terminated": False})
    passed_on = False
    code: int | None = None
    while code is None:
        if told and not passed_on:
            passed_on = True
            _say("told to stop: time is nearly up, or it is cancelled")
            _tell_to_stop(process.pid, bool(command.get("step")), str(result["job"]))
        try:
            code = process.wait(_POLL)
        except subprocess.TimeoutExpired:
            continue
    if command.get("step") and code > 128:
        code = 128 - code  # srun says as a shell does which signal ended its task
    # What it has left behind must not outlive it; Slurm would see to that too, but only of this job's end.
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    return _write(
        own("result.json"),
        {
            **result,
            "exit_code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "terminated": bool(told),
        },
    )


def _say(text: str) -> None:
    # Not by print: what is left in its buffer when the log's disk is full would change this process's exit code.
    with contextlib.suppress(OSError):
        os.write(1, f"evalcore: {text}\n".encode())


def _tell_to_stop(group: int, is_step: bool, job: str) -> None:
    # srun answers SIGTERM by killing what it runs at once, so that is told by Slurm (scancel does not signal
    # the script itself).
    if is_step and not subprocess.call(
        ["scancel", "--quiet", "--signal=TERM", job], stdin=subprocess.DEVNULL
    ):
        return
    os.killpg(group, signal.SIGTERM)


def _inherited() -> dict[str, str]:
    # sbatch hands on what the SSH session that called it had, by which Debian's bash takes any ``bash -c`` for a
    # remote shell and runs the user's .bashrc, whatever that prints or breaks.
    return {name: value for name, value in os.environ.items() if name not in ("SSH_CLIENT", "SSH2_CLIENT")}


def _secrets(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8") as stream:
            secrets = json.load(stream)
        os.unlink(path)
    except FileNotFoundError:
        return {}
    return dict(secrets)


def _write(path: str, result: dict[str, Any]) -> int:
    """Write the result in place, where there is room for it on the fullest disk; return the job's exit code."""
    line = json.dumps(result).encode().ljust(_RESULT_BYTES - 1) + b"\n"
    deadline = time.monotonic() + _RESULT_PATIENCE
    while True:
        try:
            with open(path, "r+b") as stream:
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
            break
        except OSError as error:
            # btrfs and ZFS want new room for what replaces old: on a full disk, wait for some. Without a result
            # Slurm's word counts, and that must not be an exit code which the command did not have.
            if time.monotonic() > deadline:
                _say(f"cannot write {path}: {error.strerror}")
                break
        time.sleep(_POLL)
    return int(result["exit_code"] if result["exit_code"] is not None else 128 + result["signal"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
