"""What is asked of a Slurm cluster, answered on its login node: one command for any number of jobs.

``cluster`` sends this file ahead of each request through the connection's standard input, so that nothing has
to be installed for it and it is never of another version. It needs Python 3.9 and its standard library alone::

    python3 -c "$BOOT"      # on standard input: this source, a zero byte, the request as JSON

Answers are one line of JSON, ``{"ok": …}`` or ``{"error": …}``; a traceback is a fault of ours. Facts only:
what they mean is decided where they are asked for. The folder of a job's attempt holds::

    command.json    argv, and the environment beside the secrets
    secrets.json    0600, read and deleted when the job starts
    supervise.py    what runs the command on the node
    script.sh       what was submitted
    id              Slurm's number of the job, written as soon as it is known
    log.txt         what the job prints
    result.json     written when it is over, on the node (supervise)
                    (of an array each task has its own: secrets-3.json, log-3.txt, result-3.json)
    cancelled       somebody wants it stopped
    consumed        its outcome was reported
    lost            Slurm has not known it for too long
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

BOOT = (
    "import json, sys; source, _, request = sys.stdin.buffer.read().partition(bytes(1));"
    " exec(compile(source, 'agent', 'exec'), {'__name__': 'agent', 'REQUEST': request})"
    " if sys.version_info >= (3, 9) else"
    " print(json.dumps({'error': 'python3 is %d.%d, and 3.9 is needed' % sys.version_info[:2], 'kind': 'rejected'}))"
)
"""The program that reads this file and a request; for any Python 3."""

COMMAND, SECRETS, SUPERVISOR, SCRIPT = "command.json", "secrets.json", "supervise.py", "script.sh"
ID, LOG, RESULT, LOCK = "id", "log.txt", "result.json", "lock"
FILES = ".files"  # of a folder that was unpacked, their names
CANCELLED, CONSUMED, LOST = "cancelled", "consumed", "lost"

RESULT_BYTES = 512
_SLURM_SECONDS = 60  # for one command of Slurm's; a controller that is down takes 8 to 30
_LOCK_SECONDS = 90
_LOG_BYTES = 1 << 15
_NO_SLURMDBD = "accounting storage is disabled"
# What a folder answers that will not let us in later either. A full disk or quota may have room again.
_PERMANENT = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG)

Json = dict[str, Any]


class Failure(Exception):
    """One line for whoever asked. kind ``rejected``: Slurm will not have this job, now or later."""

    def __init__(self, message: str, kind: str = "failed") -> None:
        super().__init__(message)
        self.kind = kind


def submit(folder: str, script: str, supervisor: str, command: Json, secrets: dict[str, str]) -> Json:
    """Submit an attempt once, whoever asks and however often; returns its id.

    A submission that was cut off is finished: by the id it left, else by the job's name, else anew.
    """
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    try:
        os.mkdir(folder, 0o700)  # what a job prints is its user's alone
        was_there = False
    except FileExistsError:
        was_there = True
    with _locked(folder) as lock:
        known = _read(folder, ID)
        if known:
            return {"id": known, "new": False}
        found = _by_name(_job_name(folder)) if was_there else None
        if found:
            _write(folder, ID, found)
            return {"id": found, "new": False}
        if os.path.exists(os.path.join(folder, CANCELLED)):
            raise Failure(f"{folder}: cancelled before it was submitted")
        _write(folder, COMMAND, json.dumps(command))
        _write(folder, SUPERVISOR, supervisor)
        for task in command.get("tasks") or [None]:
            _write(folder, _of_task(SECRETS, task), json.dumps(secrets), mode=0o600)
            _write(folder, _of_task(RESULT, task), " " * RESULT_BYTES)
        path = _write(folder, SCRIPT, script)
        # Of its options sbatch takes SBATCH_PARTITION and the like, which a user's .bashrc may set, before those of
        # the script, but after its arguments.
        options = [line.partition(" ")[2] for line in script.splitlines() if line.startswith("#SBATCH ")]
        # The lock is sbatch's too: if we die, nobody looks for the job before sbatch has come to an end.
        done = _call(["sbatch", "--parsable", *options, path], pass_fds=lock)
        if done.returncode:
            said = _one_line(done.stderr) or f"exit code {done.returncode}"
            if done.returncode < 0 or _is_outage(said):
                raise Failure("sbatch: " + said)  # it may be in the queue all the same, and need its secrets
            _forget_secrets(folder)
            raise Failure("sbatch: " + said, "rejected")
        # A site's own sbatch may greet its users before it.
        numbers = re.findall(r"^(\d+)(?:;.*)?$", done.stdout, re.MULTILINE)
        if not numbers:
            raise Failure(f"sbatch: no number of a job in its answer: {_one_line(done.stdout)}")
        _write(folder, ID, numbers[-1])
        return {"id": numbers[-1], "new": True}


def look(jobs: dict[str, int]) -> Json:
    """The facts of attempts, by folder, each with its log from an offset on; one squeue and one sacct for all."""
    ids = {folder: _read(folder, ID) for folder in jobs}
    states, trouble, is_queue_known = _states([number for number in ids.values() if number])
    found = {}
    for folder, offset in jobs.items():
        number = ids[folder]
        command = _json(folder, COMMAND) or {}
        tasks = command.get("tasks") or []
        results = {str(task): _result(folder, task) for task in tasks}
        failed = [task for task in tasks if (results[str(task)] or {}).get("exit_code") not in (0, None)]
        result = None if tasks else _result(folder)
        # After the results: what is over has said all. Of an array, what the first task says that failed.
        task, is_over = failed[0] if failed else None, bool(failed or result)
        log, end = _log(folder, offset, task, is_over) if failed or not tasks else ("", offset)
        found[folder] = {
            "id": number,
            "states": {key: state for key, state in states.items() if _is_of(key, number)},
            "is_queue_known": is_queue_known,
            "result": result,
            "results": results,
            "cancelled": os.path.exists(os.path.join(folder, CANCELLED)),
            "consumed": os.path.exists(os.path.join(folder, CONSUMED)),
            "lost": os.path.exists(os.path.join(folder, LOST)),
            "command": command,
            "log": log,
            "offset": end,
        }
    return {"jobs": found, "trouble": trouble, "now": time.time()}


def history(folder: str, limit: int, needs: str) -> Json:
    """The newest attempts of a job as ``look`` finds them, newest first; and whether a folder is there."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    numbers = sorted((int(name) for name in names if name.isdigit()), reverse=True)
    found = look({os.path.join(folder, str(number)): 0 for number in numbers[:limit]})
    return {**found, "missing": bool(needs) and not _is_there(needs)}


def missing(paths: list[str]) -> Json:
    """Which of these paths are not there."""
    return {"missing": [path for path in paths if not _is_there(path)]}


def mark(folder: str, name: str) -> Json:
    """Note something about an attempt that is over, or counts as such."""
    if name not in (CONSUMED, LOST):
        raise Failure(f"no such mark: {name}")
    # Somebody may have removed it: what then counts as lost is found by its name, or made again.
    os.makedirs(folder, mode=0o700, exist_ok=True)
    _write(folder, name, "")
    _forget_secrets(folder)
    return {}


def cancel(folders: list[str]) -> Json:
    """Stop jobs, also those still being submitted or whose id was lost, and do not wait until they are gone."""
    numbers = []
    folders = [folder for folder in folders if os.path.isdir(folder)]
    for folder in folders:
        _write(folder, CANCELLED, "")
        with _locked(folder):
            number = _read(folder, ID)
            if not number and os.path.exists(os.path.join(folder, SCRIPT)):
                number = _by_name(_job_name(folder)) or ""
                _write(folder, ID, number)
            numbers += [number] if number else []
    if numbers:
        done = _call(["scancel", "--quiet", *numbers])
        # What is over cannot be cancelled, and need not be.
        if done.returncode and "Invalid job id" not in done.stderr:
            raise Failure("scancel: " + _one_line(done.stderr))
    for folder in folders:
        _forget_secrets(folder)  # one that was still waiting has not read them
    return {"ids": numbers}


def unpack(folder: str, digest: str, archive: str, check: list[str]) -> Json:
    """Put a tar archive's files, sent in hexadecimal, into a folder: whole or not at all, and only once.

    check: a command that has to succeed with them on PYTHONPATH, or they are not for this cluster; or none.
    """
    if _is_there(folder):
        return {"new": False}
    data = bytes.fromhex(archive)
    if hashlib.sha256(data).hexdigest() != digest:
        raise Failure(f"{folder}: what arrived is not what was sent")
    temporary = f"{folder}.{uuid.uuid4().hex}.tmp"
    try:
        os.makedirs(temporary)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", None)  # 3.12 and 3.13 warn without
            tar.extractall(temporary)
            _write(temporary, FILES, "\n".join(tar.getnames()))
            for name in tar.getnames():
                os.utime(os.path.join(temporary, name))  # what is old is the first that a site removes
        if check:
            done = _call(check, env={"PYTHONPATH": temporary, "PYTHONDONTWRITEBYTECODE": "1"})
            if done.returncode:
                raise Failure(f"{check[0]}: {_one_line(done.stderr)[-200:]}", "rejected")
        if os.path.isdir(folder) and not _is_there(folder):
            aside = f"{folder}.{uuid.uuid4().hex}.tmp"
            os.rename(folder, aside)
            shutil.rmtree(aside, ignore_errors=True)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not os.path.isdir(folder):
                raise
            return {"new": False}
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return {"new": True}


def files(folder: str, patterns: list[str]) -> Json:
    """Size and SHA-256 of the files that match patterns below a folder, by path relative to it."""
    import glob

    found = {}
    for pattern in patterns:
        for path in glob.glob(os.path.join(glob.escape(folder), pattern)):
            if os.path.isfile(path):
                digest = hashlib.sha256()
                with open(path, "rb") as stream:
                    for block in iter(lambda: stream.read(1 << 20), b""):
                        digest.update(block)
                found[os.path.relpath(path, folder)] = {
                    "size": os.path.getsize(path),
                    "sha256": digest.hexdigest(),
                }
    return {"files": found}


def _states(numbers: list[str]) -> tuple[dict[str, Json], str, bool]:
    """State, exit code and reason of jobs, array tasks apart; why that may not be all; whether the queue answered."""
    if not numbers:
        return {}, "", True
    known: dict[str, Json] = {}
    trouble = []
    queue = _call(["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format=%i|%T|%r"])
    if queue.returncode:
        trouble.append("squeue: " + _one_line(queue.stderr))
    wanted = set(numbers)
    for line in queue.stdout.splitlines():
        number, state, reason = ([*line.strip().split("|", 2), "", ""])[:3]
        if number.split("_")[0] in wanted:
            known[number] = {"state": state, "reason": reason, "queued": True}
    # Of an array only the tasks are listed, and those that are over have left the queue.
    rest = [number for number in numbers if number not in known]
    if rest:
        ended, why = _accounted(rest)
        trouble += [why] if why else []
        known = {**ended, **known}
    return known, "; ".join(trouble), queue.returncode == 0


def _accounted(numbers: list[str]) -> tuple[dict[str, Json], str]:
    done = _call(
        ["sacct", "-n", "-P", "-X", "-D", "-j", ",".join(numbers), "-o", "jobid,state,exitcode,nodelist"]
    )
    if done.returncode == 0:
        ended = {}
        for line in done.stdout.splitlines():
            number, state, code, nodes = ([*line.split("|", 3), "", "", ""])[:4]
            ended[number] = {"state": state, "exit": code, "reason": nodes, "queued": False}
        return ended, ""
    if _NO_SLURMDBD not in done.stderr:
        return {}, "sacct: " + _one_line(done.stderr)
    ended = {}
    for number in numbers:
        shown = _call(["scontrol", "show", "job", "--oneliner", number])
        for line in shown.stdout.splitlines():
            fields = dict(re.findall(r"(\w+)=(\S*)", line))
            key = number
            if "ArrayTaskId" in fields:
                key = "{}_{}".format(fields.get("ArrayJobId", number), fields["ArrayTaskId"])
            ended[key] = {
                "state": fields.get("JobState", ""),
                "exit": fields.get("ExitCode", ""),
                "reason": fields.get("Reason", ""),
                "queued": False,
            }
        if shown.returncode and "Invalid job id" not in shown.stderr:
            return ended, "scontrol: " + _one_line(shown.stderr)
    return ended, ""


def _by_name(job_name: str) -> str | None:
    """The id of a job of that name, from the queue, else from accounting, else None.

    Raises Failure if neither can be asked: then it is not known that there is none.
    """
    me = getpass.getuser()
    queue = _call(["squeue", "--noheader", "--user", me, "--name", job_name, "--format=%F"])
    if queue.returncode:
        raise Failure("squeue: " + _one_line(queue.stderr))
    numbers = _numbers(queue.stdout)
    if not numbers:
        past = _call(
            ["sacct", "-n", "-P", "-X", "-u", me, "--name", job_name, "-S", "now-30days", "-o", "jobid"]
        )
        if past.returncode and _NO_SLURMDBD not in past.stderr:
            raise Failure("sacct: " + _one_line(past.stderr))
        numbers = _numbers(past.stdout) if not past.returncode else []
    return numbers[-1] if numbers else None


def _numbers(said: str) -> list[str]:
    """The ids of jobs, one on a line and without array tasks; a site's own commands may greet before them."""
    return re.findall(r"^(\d+)(?:_\S*)?$", said, re.MULTILINE)


def _is_of(key: str, number: str | None) -> bool:
    return number is not None and key.split("_")[0] == number


def _job_name(folder: str) -> str:
    """What Slurm calls an attempt: the header of its script has it from ``cluster``."""
    return ".".join(folder.split("/")[-2:])


def _forget_secrets(folder: str) -> None:
    """Remove what a job has not read that never started."""
    for name in os.listdir(folder):
        if name.startswith(SECRETS.partition(".")[0]):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))


def _is_there(path: str) -> bool:
    """Whether a path is there, and if it was unpacked, whole: sites remove files that are not used for weeks."""
    names = _read(path, FILES).split("\n") if os.path.isdir(path) else []
    return os.path.exists(path) and all(os.path.exists(os.path.join(path, name)) for name in names)


def _is_outage(said: str) -> bool:
    """Whether a refusal is one for now: slurm_errno.c, and a full queue (``QOSMaxSubmitJobPerUserLimit``, …)."""
    return bool(
        re.search(
            r"(?i)unable to contact|timed out|connection|communication|zero bytes|message (send|receive)|temporar"
            r"|standby|munge|protocol authentication|MaxSubmitJob",
            said,
        )
    )


def _of_task(name: str, task: int | None) -> str:
    """A file's name for one task of an array: ``result-3.json``."""
    return name if task is None else f"-{task}.".join(name.rsplit(".", 1))


def _result(folder: str, task: int | None = None) -> Json | None:
    """What the node wrote, once it is complete."""
    return _json(folder, _of_task(RESULT, task))


def _json(folder: str, name: str) -> Json | None:
    text = _read(folder, name)
    try:
        return json.loads(text) if text else None
    except ValueError:  # not all of it is here yet; the other jobs are looked at all the same
        return None


def _log(folder: str, offset: int, task: int | None, is_over: bool) -> tuple[str, int]:
    """The log from an offset on, at most so much of it; and the offset to go on from.

    Whole lines only, but for the last one of a job that was over before.
    """
    try:
        with open(os.path.join(folder, _of_task(LOG, task)), "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            start = max(offset, size - _LOG_BYTES)
            stream.seek(start)
            block = stream.read(_LOG_BYTES)
    except OSError:
        return "", offset
    end = block.rfind(b"\n") + 1
    if is_over or (not end and len(block) == _LOG_BYTES):
        end = len(block)
    return block[:end].decode(errors="replace"), start + end


def _read(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except FileNotFoundError:
        return ""


def _write(folder: str, name: str, text: str, mode: int = 0o644) -> str:
    """Write a file whole or not at all."""
    path = os.path.join(folder, name)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(temporary, path)
    return path


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[tuple[int, ...]]:
    """Hold an attempt's lock; where a file system has none, one's own name in the queue has to do."""
    with open(os.path.join(folder, LOCK), "wb") as lock:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Failure(f"{folder}: is being submitted by somebody else for too long") from None
                time.sleep(0.1)
            except OSError:
                break
        yield (lock.fileno(),)


def _call(
    argv: list[str],
    env: dict[str, str] | None = None,
    pass_fds: tuple[int, ...] = (),
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, **(env or {})},
            timeout=_SLURM_SECONDS,
            pass_fds=pass_fds,
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError:
        raise Failure(f"{argv[0]}: no such command on this host", "rejected") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"{argv[0]}: no answer within {_SLURM_SECONDS} s") from None


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(lines)[-500:]


_DO: dict[str, Callable[..., Json]] = {
    "submit": submit,
    "look": look,
    "history": history,
    "missing": missing,
    "mark": mark,
    "cancel": cancel,
    "unpack": unpack,
    "files": files,
}


def main(request: bytes) -> None:
    """Answer one request, ``{"do": name, **arguments}``."""
    arguments = json.loads(request)
    try:
        answer: Json = {"ok": _DO[arguments.pop("do")](**arguments)}
    except Failure as failure:
        answer = {"error": str(failure), "kind": failure.kind}
    except OSError as error:
        kind = "rejected" if error.errno in _PERMANENT else "failed"
        answer = {"error": "{}: {}".format(error.filename or "", error.strerror), "kind": kind}
    # On a line of its own, whatever a .bashrc has printed before.
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


if __name__ == "agent":
    main(REQUEST)  # type: ignore[name-defined]  # noqa: F821 (from BOOT)
