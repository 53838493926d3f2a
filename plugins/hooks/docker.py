"""Jobs as containers of a Docker engine, found again by their job's folder.

>>> docker = Docker(load_profiles().get("docker"), Path("results/.jobs"), hook)
>>> job = docker.ensure("evaluate_checkpoint-grade-0", ["evalcore", "grade", "results/…"], {"HF_TOKEN": …})
>>> docker.look({job: 0})[job].status.state
<State.RUNNING: 'running'>

A ``backends.Backend``. An attempt is a folder, as in ``evalcore.jobs``, and a container labelled with it. Both
this machine and the engine's must have the folder under the same path. Result and log are files in it, so that
they outlive the container; what only the engine knows (out of memory, killed, gone) is asked of it.

Of the image only the dependencies of evalcore are used: evalcore itself, with its include folders, is this
version's, mounted read-only.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import logging
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow.providers.docker.hooks.docker import DockerHook
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
from docker.api.client import APIClient
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import DeviceRequest, Mount
from requests.exceptions import RequestException

from evalcore import jobs
from evalcore.backends import Folders, Look, Unreachable, end_of_log
from evalcore.cache import cache_folder
from evalcore.errors import JobError
from evalcore.jobs import State, Status
from evalcore.prepare import data_folder
from evalcore.profiles import DockerProfile
from evalcore.records import write_file
from evalcore.slurm import agent
from evalcore.slurm.shipping import archive, source

log = logging.getLogger(__name__)

LABEL = "evalcore.job"
LABEL_ATTEMPT = "evalcore.attempt"
LABEL_FOLDER = "evalcore.folder"
"""The folder of all attempts of a job: its name alone may be another Airflow's on the same engine."""

_CODE = "/evalcore"  # in the container
_CODES = ".evalcore"
_CONTAINER = "container"
_LOCK = "ensure.lock"
_REMOVAL_SECONDS = 60
# Whatever the image starts by default, and however verbose: what it prints is the job's log.
_BOOT = f'exec python3 "$0/{agent.SUPERVISOR}" "$0" >> "$0/{jobs.LOG}" 2>&1'


class Docker(Folders):
    """An engine as a profile describes it. root: the folder of all jobs; its parent is that of the results."""

    poll_interval = 5.0

    def __init__(self, profile: DockerProfile, root: Path, hook: DockerHook) -> None:
        super().__init__(root)
        self.profile = profile
        self.hook = hook

    def ensure(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> str:
        """The job of that name: the attempt still of use, or a new one; returns its folder.

        As ``jobs.ensure``. env: beside the profile's; no ``docker inspect`` shows it, and no file has it for
        longer than until the command starts.

        Raises:
            JobError: it was killed or lost too often, or the engine refuses it.
        """
        root, command = self.root / name, self._command(argv)
        with self._asking() as client, _locked(root):
            listed = list(jobs.attempts(root))
            fresh = list(itertools.takewhile(lambda f: not (f / jobs.CONSUMED).exists(), listed))
            number = int(listed[0].name) + 1 if listed else 1
            if fresh:
                newest = fresh[0]
                found = _inspect(client, newest)
                status = _status(newest, found)
                if status.state is State.LOST and not (newest / _CONTAINER).exists():
                    number -= 1  # whoever was about to make its container was cut off
                elif jobs.command(newest) != command["argv"]:
                    self._stop(client, [newest])
                elif not status.state.is_resumable:
                    if found and found["State"]["Status"] == "created":
                        # Whoever could not start it has taken its secrets back.
                        self._prepare(newest, command, env)
                        self._start(client, newest)
                    return str(newest)
                else:
                    states = [_status(f, _inspect(client, f)).state for f in fresh]
                    lost = sum(state in (State.KILLED, State.LOST) for state in states)
                    if lost >= jobs.MAX_ATTEMPTS:
                        self.consume(str(newest))
                        raise JobError(
                            f"job {name}: {status}, {lost} times in a row. Log: {newest / jobs.LOG}"
                        )
            folder = root / str(number)
            _remove_others(client, root)
            self._prepare(folder, command, env)
            try:
                self._create(client, folder)
                self._start(client, folder)
            except BaseException:
                _forget_secrets(folder)  # nobody reads them
                raise
        return str(folder)

    def look(self, offsets: Mapping[str, int]) -> dict[str, Look]:
        looks = {}
        with self._asking() as client:
            for job, offset in offsets.items():
                folder = Path(job)
                found = _inspect(client, folder)
                try:
                    status = _status(folder, found)
                    lines, end = end_of_log(folder, offset, status)
                except (OSError, JobError) as error:
                    # A look that failed says nothing of the job, of which files may be away for a while.
                    raise Unreachable(str(error)) from error
                looks[job] = Look(status, lines, end, id=found["Id"][:12] if found else "")
        return looks

    def cancel(self, jobs_: Sequence[str]) -> None:
        with self._asking() as client:
            self._stop(client, [Path(job) for job in jobs_])

    def give_up(self, job: str) -> None:
        self.cancel([job])

    def consume(self, job: str) -> None:
        """Note that the outcome was reported, and remove the container."""
        jobs.consume(Path(job))
        with self._asking() as client:
            _remove(client, _container_name(Path(job)))

    def _prepare(self, folder: Path, command: Mapping[str, Any], env: Mapping[str, str]) -> None:
        """Write what the command needs; done again, over what somebody who was cut off has written."""
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            write_file(folder / jobs.COMMAND, json.dumps(command) + "\n")
            write_file(folder / agent.SUPERVISOR, source(agent.SUPERVISOR))
            # So that the disk it fills cannot keep a command from having a result.
            (folder / jobs.RESULT).write_bytes(b" " * agent.RESULT_BYTES)
            (folder / jobs.LOG).touch()
            secrets = os.open(folder / agent.SECRETS, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(secrets, "w", encoding="utf-8") as stream:
                json.dump(dict(env), stream)
            uid, gid = _ids(self.profile)
            if (uid, gid) != (os.getuid(), os.getgid()):
                for file in [folder, *folder.iterdir()]:
                    os.chown(file, uid, gid)
        except OSError as error:
            raise JobError(f"{folder}: cannot be made for the container's user: {error.strerror}") from error

    def _command(self, argv: Sequence[str]) -> dict[str, Any]:
        if argv[0] != "evalcore":
            return {"argv": list(argv), "env": self.profile.plain_env}
        # What it finds in the container where it is here, too. A user without a home in the image would have
        # "/", where it may not write.
        kept = {name: str(folder) for name, folder in _kept().items()}
        # An env.toml there has no say: what ours says was planned with.
        ours = {"HOME": "/tmp", "EVALCORE_ENV_TOML": "/dev/null", **kept}
        env = {**ours, **self.profile.plain_env, "PYTHONPATH": _CODE}
        # Not what lies in the image's working folder goes before PYTHONPATH.
        return {"argv": ["python3", "-P", "-m", "evalcore.cli", *argv[1:]], "env": env}

    def _code(self) -> Path:
        """This version of evalcore, unpacked once."""
        sent = archive()
        folder = self.root / _CODES / sent.digest[:16]
        agent.unpack(str(folder), sent.digest, sent.data.hex(), [])
        return folder

    @property
    def _results(self) -> Path:
        return self.root.parent if self.root.name == ".jobs" else self.root

    def _create(self, client: APIClient, folder: Path) -> None:
        profile = self.profile
        kept = [path for name, path in _kept().items() if name not in profile.plain_env]
        for path in kept:
            path.mkdir(parents=True, exist_ok=True)
        gpus = [DeviceRequest(count=profile.gpus, capabilities=[["gpu"]])] if profile.gpus else None
        host = client.create_host_config(
            # The other jobs' folders, which may hold their secrets, are not in it.
            mounts=[
                *map(_mount, profile.mounts),
                *map(_mounted_as_here, (*kept, self._results)),
                Mount(str(self.root), None, type="tmpfs", tmpfs_size=1 << 16, tmpfs_mode=0o755),
                _mounted_as_here(folder),
                Mount(_CODE, str(self._code()), type="bind", read_only=True),
            ],
            device_requests=gpus,
            shm_size=profile.shm_size,
            mem_limit=profile.memory,
            memswap_limit=profile.memory,
            nano_cpus=int(profile.cpus * 1e9) if profile.cpus else None,
            network_mode=profile.network,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
        )
        settings = client.create_container_config(
            image=profile.container_image,
            entrypoint=["/bin/sh", "-c", _BOOT],
            command=[str(folder)],
            user=":".join(map(str, _ids(profile))),
            host_config=host,
            labels={
                LABEL: folder.parent.name,
                LABEL_ATTEMPT: folder.name,
                LABEL_FOLDER: str(folder.parent.resolve()),
            },
        )
        name = _container_name(folder)
        try:
            made = self._made(client, settings, name)
        except ImageNotFound:
            self._pull(client)
            made = self._made(client, settings, name)
        write_file(folder / _CONTAINER, f"{made}\n")

    def _made(self, client: APIClient, settings: Any, name: str) -> str:
        try:
            return str(client.create_container_from_config(settings, name)["Id"])
        except ImageNotFound:
            raise
        except APIError as error:
            if error.status_code == 409:
                return str(client.inspect_container(name)["Id"])  # somebody else's, of the same attempt
            # Whatever the code: the engine is there and does not want it, and would not if asked again.
            raise JobError(f"container {name} cannot be made: {error.explanation}") from error

    def _pull(self, client: APIClient) -> None:
        """Fetch the profile's image. JobError if there is none, Unreachable if its registry is away."""
        image = self.profile.container_image
        log.info("Pulling %s", image)
        repository, tag = _repository(image)
        try:
            # What goes wrong after the engine has begun is an answer like any other, not an exception. Read to its
            # end, or its connection stays open.
            said = list(client.pull(repository, tag, stream=True, decode=True))
            if errors := [event["error"] for event in said if "error" in event]:
                raise Unreachable(f"docker: pulling {image}: {errors[0]}")
        except APIError as error:
            kind = JobError if error.status_code == 404 else Unreachable
            raise kind(f"docker: pulling {image}: {error.explanation}") from error

    def _start(self, client: APIClient, folder: Path) -> None:
        name = _container_name(folder)
        if not (folder / jobs.CANCELLED).exists():
            try:
                client.start(name)
            except APIError as error:
                # A missing GPU driver, python3 or network: it would be so again. It is no attempt that was lost.
                _remove(client, name)
                jobs.consume(folder)
                raise JobError(f"container {name} does not start: {error.explanation}") from error
        if (folder / jobs.CANCELLED).exists():
            self._stop(client, [folder])

    def _stop(self, client: APIClient, folders: Sequence[Path]) -> None:
        """Stop and remove containers, all within one grace; what does not run is not started any more."""
        for folder in folders:
            jobs.request_cancel(folder)
            with contextlib.suppress(APIError):  # gone, or over
                client.kill(_container_name(folder), signal="SIGTERM")
        for folder in folders:
            with contextlib.suppress(NotFound):
                client.stop(_container_name(folder), timeout=int(jobs.GRACE))
            _remove(client, _container_name(folder))
            _forget_secrets(folder)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[APIClient]:
        try:
            yield self.hook.get_conn()
        except APIError as error:
            if error.status_code is not None and error.status_code < 500:
                raise JobError(f"docker profile {self.profile.name}: {error.explanation}") from error
            raise Unreachable(f"docker: {error.explanation}") from error
        except AirflowNotFoundException as error:
            raise JobError(f"docker profile {self.profile.name}: {error}") from error
        except (DockerException, RequestException, AirflowException) as error:
            raise Unreachable(f"docker: {error}") from error


def _status(folder: Path, found: Mapping[str, Any] | None) -> Status:
    """Where a job stands, from its result and from what the engine knows of its container.

    found: what it knew before the result is read here: a result is written before a container ends.
    """
    state = found["State"] if found else {}
    if state.get("Status") in ("running", "paused", "restarting"):
        # Also with a result: that it was out of memory is known only when it has ended.
        return Status(State.RUNNING)
    is_cancelled = (folder / jobs.CANCELLED).exists()
    result = jobs.read_json(folder / jobs.RESULT)
    if result and result["exit_code"] == 0:
        return Status(State.SUCCEEDED, exit_code=0)
    if is_cancelled:
        return Status(State.CANCELLED)
    if state.get("Status") == "created":
        return Status(State.RUNNING)
    code, number = (result["exit_code"], result["signal"]) if result else (None, None)
    if state.get("OOMKilled"):
        said = f"exit code {code}, " if code else ""
        return Status(State.FAILED, exit_code=code, signal=number, detail=f"{said}out of memory")
    if result:
        # A command that is told to stop may exit with a code of its own; that is no fault it found.
        if number or result["terminated"]:
            return Status(State.KILLED, signal=number or signal.SIGTERM)
        return Status(State.FAILED, exit_code=code)
    # Without a result the supervisor itself was killed, or could not run.
    ended = state.get("ExitCode", 0)
    if 128 < ended <= 128 + signal.SIGRTMAX:
        return Status(State.KILLED, signal=ended - 128)
    if 0 < ended < 128:
        return Status(State.FAILED, exit_code=ended, detail=f"its container ended with exit code {ended}")
    return Status(State.LOST)


def _mount(text: str) -> Mount:
    """A mount as a profile writes it. Of a source that is not there the engine says so, and makes no folder."""
    source, target, options = [*text.split(":"), "", ""][:3]
    return Mount(target or source, source, type="bind", read_only=options == "ro")


def _mounted_as_here(path: Path) -> Mount:
    return Mount(str(path), str(path), type="bind")


def _kept() -> dict[str, Path]:
    """The folders that outlive a container, by the variable that names each: this machine's own."""
    return {"EVALCORE_DATA": data_folder().absolute(), "EVALCORE_CACHE": cache_folder().absolute()}


def _forget_secrets(folder: Path) -> None:
    """Remove what a container has not read that never started."""
    (folder / agent.SECRETS).unlink(missing_ok=True)


def _inspect(client: APIClient, folder: Path) -> dict[str, Any] | None:
    try:
        return dict(client.inspect_container(_container_name(folder)))
    except NotFound:
        return None


def _remove(client: APIClient, name: str) -> None:
    with contextlib.suppress(NotFound):
        try:
            client.remove_container(name, force=True, v=True)
        except APIError as error:
            if error.status_code != 409:
                raise
            # Somebody else is about to: a marked task's job is cancelled by its trigger and by listeners.job.
            client.wait(name, timeout=_REMOVAL_SECONDS, condition="removed")


def _remove_others(client: APIClient, root: Path) -> None:
    """Remove all containers of a job: of attempts that are over, or whose folder somebody has deleted."""
    for found in client.containers(all=True, filters={"label": f"{LABEL_FOLDER}={root.resolve()}"}):
        _remove(client, found["Id"])


def _container_name(folder: Path) -> str:
    """The same for the same attempt and for no other, so that the engine refuses a second one."""
    # Whoever looks for it may know the folder by another path, around a link.
    return f"evalcore-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:24]}"


def _ids(profile: DockerProfile) -> tuple[int, int]:
    """Who runs in the container. By default who runs here, so that each can read what the other writes."""
    if profile.user is None:
        return os.getuid(), os.getgid()
    uid, _, gid = profile.user.partition(":")
    if not uid.isdecimal() or not (gid or "0").isdecimal():
        raise JobError(f"docker profile {profile.name}: write user as numbers, as in 1000:1000")
    return int(uid), int(gid or 0)


def _repository(image: str) -> tuple[str, str | None]:
    """An image and the tag to pull; without one the engine would fetch all."""
    return (image, None) if "@" in image or ":" in image.rpartition("/")[2] else (image, "latest")


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One at a time makes an attempt; the lock of one who dies is free."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / _LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
