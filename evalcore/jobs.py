"""A job: one command that outlives whoever started it, and can be found again by its name.

>>> job = ensure(Path("results/.jobs"), "evaluate_checkpoint-grade-0", ["evalcore", "grade", "results/…"])
>>> status(job).state
<State.RUNNING: 'running'>

Each attempt has a folder of its own::

    <root>/<name>/<attempt>/
        command.json    argv; never a secret, those stay in the environment
        log.txt         what the command prints
        lock            locked while the supervisor lives: this, not a pid, says that a job is running
        pid.json        pid, start time, host and boot id of the supervisor
        result.json     exit code or signal, when it is over; until then only the place for it
        cancelled       somebody wants it stopped
        consumed        its outcome was reported, so that the next one to ask gets a new attempt

``python -m evalcore.jobs`` is the supervisor: a small process in a session of its own that runs the
command, passes signals on and writes the result. What can die, and what then happens:

- whoever submitted: nothing, the supervisor is no child of his;
- the command: its signal is the result, ``KILLED``, and ``ensure`` makes the next attempt;
- the supervisor: the kernel kills the command with it and frees the lock, ``LOST``; the next attempt
  first kills what the command may have left behind (found by a variable in its environment);
- the machine: the lock is gone with it, ``LOST``, and recorded pids are of another boot.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import psutil

from evalcore.errors import EvalError, JobError
from evalcore.marked import kill_marked
from evalcore.processes import die_with
from evalcore.records import write_file
from evalcore.terminal import without_controls

COMMAND = "command.json"
LOG = "log.txt"
LOCK = "lock"
PIDS = "pid.json"
RESULT = "result.json"
CANCELLED = "cancelled"
CONSUMED = "consumed"

MAX_ATTEMPTS = 3
"""How often a job that was killed or lost is tried before that counts as a failure."""

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL."""

_RESULT_BYTES = 512
_RESULT_PATIENCE = 60.0
_MARK = "EVALCORE_JOB"
_POLL = 0.2
_TAIL_BYTES = 1 << 16


class State(StrEnum):
    """Where a job stands. FAILED: an exit code of its own; KILLED: a signal; LOST: gone without a result."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    KILLED = "killed"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def is_over(self) -> bool:
        return self is not State.RUNNING

    @property
    def is_resumable(self) -> bool:
        """Whether another attempt can be expected to get further: the command itself found no fault."""
        return self in (State.KILLED, State.CANCELLED, State.LOST)


@dataclass(frozen=True)
class Status:
    """detail: what a scheduler calls it, or says beside."""

    state: State
    exit_code: int | None = None
    signal: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        if self.detail:
            return f"{self.state} ({self.detail})"
        if self.exit_code:
            return f"{self.state} with exit code {self.exit_code}"
        if self.signal:
            return f"{self.state} by {_signal_name(self.signal)}"
        return str(self.state)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal, which has no name
        return f"signal {number}"


class LogLines(NamedTuple):
    """Whole lines of a log, and the offset in bytes to go on from."""

    lines: list[str]
    offset: int


def job_name(*parts: object) -> str:
    """A folder name that is the same for the same parts and for no others: readable, then 8 hex digits."""
    plain = "\0".join(map(str, parts))
    readable = re.sub(r"[^A-Za-z0-9._+=-]+", "-", "-".join(map(str, parts))).strip("-.")[:120]
    return f"{readable}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


def ensure(root: Path, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Path:
    """The job of that name: the one still of use, or a new attempt.

    Of use is one that runs or whose result nobody consumed. After a kill or a loss the next attempt is
    made, up to MAX_ATTEMPTS; a job of that name with another command is cancelled first. env: the whole
    environment of the command, this process's own by default.

    Returns:
        The attempt's folder.
    Raises:
        JobError: it was killed or lost too often, or could not be started.
    """
    # Both from one look: who finds no job of use here must not come after the attempt that another one
    # starts meanwhile, but find its number taken.
    listed = list(attempts(root / name))
    number = int(listed[0].name) + 1 if listed else 1
    fresh = list(itertools.takewhile(lambda attempt: not (attempt / CONSUMED).exists(), listed))
    if fresh:
        newest = fresh[0]
        if command(newest) != list(argv):
            cancel(newest)
        elif not status(newest).state.is_resumable:
            return newest
        _kill_marked(newest)
        lost = [a for a in fresh if status(a).state in (State.KILLED, State.LOST)]
        if len(lost) >= MAX_ATTEMPTS:
            consume(newest)
            raise JobError(
                f"job {name}: {status(newest)}, {len(lost)} times in a row; it may need more memory. "
                f"Log: {newest / LOG}"
            )
    return _submit(root, name, number, argv, dict(os.environ if env is None else env))


def _submit(root: Path, name: str, number: int, argv: Sequence[str], env: dict[str, str]) -> Path:
    """Start an attempt. If two do so at once, both get the one that won."""
    folder = root.absolute() / name / str(number)
    temporary = folder.with_name(f".{number}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
        (temporary / COMMAND).write_bytes(_as_line({"argv": list(argv)}))
        # So that the disk it fills cannot keep a command from having a result.
        (temporary / RESULT).write_bytes(b" " * _RESULT_BYTES)
        # The lock is taken before the folder has its name, and handed on to the supervisor: there is no
        # moment in which a job that is about to run could be taken for a lost one.
        with (temporary / LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                temporary.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
                return folder
            _start_supervisor(folder, lock.fileno(), env)
    except OSError as error:
        raise JobError(f"job {name}: cannot start in {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def latest(root: Path, name: str) -> Path | None:
    """The newest attempt of a job, or None."""
    return next(attempts(root / name), None)


def running(root: Path) -> list[Path]:
    """The jobs of a root that run."""
    found = [attempt for name in sorted(root.glob("*")) for attempt in attempts(name)]
    return [attempt for attempt in found if status(attempt).state is State.RUNNING]


def command(folder: Path) -> list[str]:
    """The argv of a job."""
    return list(read_json(folder / COMMAND).get("argv", []))


def status(folder: Path) -> Status:
    """Where the job stands. JobError if there is no such job."""
    if not folder.is_dir():
        raise JobError(f"{folder}: no such job")
    # In this order: a supervisor writes the result before it frees the lock.
    is_locked = _is_locked(folder / LOCK)
    result = read_json(folder / RESULT)
    if not result:
        if is_locked:
            return Status(State.RUNNING)
        return Status(State.CANCELLED if (folder / CANCELLED).exists() else State.LOST)
    code, by_signal = result["exit_code"], result["signal"]
    if code == 0:
        return Status(State.SUCCEEDED, exit_code=0)
    if (folder / CANCELLED).exists():
        return Status(State.CANCELLED, code, by_signal)
    # A command that is told to stop may exit with a code of its own; that is no fault it found.
    if by_signal or result["terminated"]:
        return Status(State.KILLED, signal=by_signal or signal.SIGTERM)
    return Status(State.FAILED, exit_code=code)


def consume(folder: Path) -> None:
    """Note that the outcome was reported: the next ``ensure`` makes a new attempt."""
    (folder / CONSUMED).touch()


def request_cancel(folder: Path) -> None:
    """Tell the supervisor to stop the job, and do not wait for it."""
    # It looks for this file; so a job is also stopped from a container with other pids.
    (folder / CANCELLED).touch()


def cancel(folder: Path) -> None:
    """Stop a job and everything it started, and wait until it is gone (at most GRACE + 5 s)."""
    request_cancel(folder)
    deadline = time.monotonic() + GRACE + 5
    while _is_locked(folder / LOCK) and time.monotonic() < deadline:
        time.sleep(_POLL / 2)
    if _is_locked(folder / LOCK):
        _kill_recorded(folder)
    _kill_marked(folder)


def read_log(folder: Path, offset: int = 0, limit: int = _TAIL_BYTES, *, is_over: bool = False) -> LogLines:
    """The whole lines of the log after an offset, at most ``limit`` bytes of them, free of control codes.

    is_over: nothing more is written, so that a last line without its end counts, too.
    """
    try:
        with (folder / LOG).open("rb") as stream:
            stream.seek(offset)
            block, rest = stream.read(limit), stream.read(1)
    except FileNotFoundError:
        return LogLines([], offset)
    end = block.rfind(b"\n") + 1
    if not end and len(block) == limit:  # a single line longer than the limit
        end = limit
    if is_over and not rest:
        end = len(block)
    return LogLines([_clean(line) for line in block[:end].splitlines()], offset + end)


def tail(folder: Path, lines: int = 20) -> list[str]:
    """The last lines of the log, free of control codes."""
    try:
        size = (folder / LOG).stat().st_size
    except FileNotFoundError:
        return []
    start = max(0, size - _TAIL_BYTES)
    with (folder / LOG).open("rb") as stream:
        stream.seek(start)
        return [_clean(line) for line in stream.read(_TAIL_BYTES).splitlines()[-lines:]]


def attempts(job: Path) -> Iterator[Path]:
    """The attempts of a job, newest first."""
    numbers = [int(f.name) for f in job.iterdir() if f.name.isdigit()] if job.is_dir() else []
    return (job / str(number) for number in sorted(numbers, reverse=True))


def _is_locked(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _as_line(content: Mapping[str, Any]) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


def read_json(file: Path) -> dict[str, Any]:
    """What a file says; {} if it is not there, or not yet complete: it is when its newline is there.

    Raises:
        JobError: it is unreadable.
    """
    try:
        content = file.read_bytes()
        return dict(orjson.loads(content)) if content.endswith(b"\n") else {}
    except FileNotFoundError:
        return {}
    except (OSError, orjson.JSONDecodeError) as error:
        raise JobError(f"{file}: unreadable ({error})") from error


def _clean(line: bytes) -> str:
    return without_controls(line.decode(errors="replace"))[:2000]


def _start_supervisor(folder: Path, lock: int, env: dict[str, str]) -> None:
    # The commands of this environment are found even where only its python was named by path.
    scripts = str(Path(sys.executable).parent)
    env["PATH"] = os.pathsep.join([scripts, env["PATH"]]) if env.get("PATH") else scripts
    with (folder / LOG).open("ab") as log:
        started = subprocess.run(
            [sys.executable, "-P", "-m", "evalcore.jobs", str(folder), str(lock)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
            env=env,
            check=False,
        )
    if started.returncode:
        why = " ".join(tail(folder, 1)) or "its log is empty; is the disk full?"
        raise JobError(f"{folder}: the supervisor did not start: {why}")


def _kill_marked(folder: Path) -> None:
    """SIGKILL what still runs of a job, wherever it has moved to."""
    kill_marked(_MARK, str(folder.absolute()))


def _kill_recorded(folder: Path) -> None:
    """SIGKILL a supervisor that does not react; only if it is the process that was recorded."""
    pids = read_json(folder / PIDS)
    if not pids:
        raise JobError(f"{folder}: does not stop, and has not recorded its pid yet; try again")
    if (pids.get("host"), pids.get("boot")) != (socket.gethostname(), _boot_id()):
        raise JobError(f"{folder}: does not stop, and runs on {pids.get('host')}; stop it there")
    try:
        supervisor = psutil.Process(pids["supervisor"])
        if abs(supervisor.create_time() - pids["supervisor_started"]) < 1:
            supervisor.kill()
    except psutil.NoSuchProcess:
        return


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()))


class _Supervisor:
    """Runs the command of one attempt to its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.terminated = False
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)

    def _stop(self, *_: object) -> None:
        self.terminated = True

    def start(self) -> subprocess.Popen[bytes] | None:
        """Start the command, or write why it cannot be started as its result."""
        own = psutil.Process()
        # Before there is a command, which may fill the disk at once.
        write_file(
            self.folder / PIDS,
            _as_line(
                {
                    "supervisor": own.pid,
                    "supervisor_started": own.create_time(),
                    "host": socket.gethostname(),
                    "boot": _boot_id(),
                }
            ),
        )
        argv = command(self.folder)
        try:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, _MARK: str(self.folder)},
                preexec_fn=functools.partial(die_with, os.getpid()),
            )
        except OSError as error:
            _say(f"cannot run {argv[0]}: {error.strerror}")
            self._write_result(127)
            return None

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        kill_at: float | None = None
        while process.poll() is None:
            if kill_at is None and (self.terminated or (self.folder / CANCELLED).exists()):
                os.killpg(process.pid, signal.SIGTERM)
                kill_at = time.monotonic() + GRACE
            elif kill_at is not None and time.monotonic() > kill_at:
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL)
        _kill_marked(self.folder)
        self._write_result(process.returncode)

    def _write_result(self, code: int) -> None:
        result = {
            "exit_code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "terminated": self.terminated,
        }
        content = orjson.dumps(result).ljust(_RESULT_BYTES - 1) + b"\n"
        deadline = time.monotonic() + _RESULT_PATIENCE
        while True:
            try:
                # In place, where there is room for it, and with one write.
                with (self.folder / RESULT).open("r+b") as file:
                    file.write(content)
                return
            except OSError:
                # btrfs and ZFS want new room for what replaces old: on a full disk, wait for some.
                if time.monotonic() > deadline or not self.folder.is_dir():
                    raise
            time.sleep(_POLL)


def main(argv: Sequence[str]) -> int:
    """``python -m evalcore.jobs <folder> <lock's descriptor>``: detach and supervise one attempt."""
    folder, lock = Path(argv[0]), int(argv[1])
    os.set_inheritable(lock, False)
    is_started, tell_started = os.pipe()
    if os.fork():
        os.close(tell_started)
        return 0 if os.read(is_started, 1) else 1
    os.setsid()
    try:
        supervisor = _Supervisor(folder)
        process = supervisor.start()
        os.write(tell_started, b"1")
        os.close(tell_started)
        if process:
            supervisor.wait(process)
    except EvalError as error:
        _say(str(error))
        return 1
    return 0


def _say(error: str) -> None:
    with contextlib.suppress(OSError):  # the log's disk is full
        os.write(1, f"evalcore: error: {error}\n".encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
