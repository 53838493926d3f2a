"""One Slurm cluster: jobs that are submitted once, found again by name, and looked at all together.

>>> cluster = Cluster(load_profiles().get("cluster"), Here())
>>> job = cluster.ensure("evaluate_checkpoint-generate-1f0a", ["evalcore", "generate", …], {"HF_TOKEN": …})
>>> cluster.look({job: 0})[job].status.state
<State.RUNNING: 'running'>

A ``backends.Backend``: a job is a folder below ``remote_job_dir``, an attempt a numbered folder in it.
"""

from __future__ import annotations

import hashlib
import shlex
import uuid
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from evalcore.backends import Look, Unreachable
from evalcore.errors import ConfigError, JobError
from evalcore.jobs import MAX_ATTEMPTS as MAX_KILLED
from evalcore.jobs import State
from evalcore.profiles import SlurmProfile
from evalcore.slurm import agent, images, script
from evalcore.slurm.shell import Shell
from evalcore.slurm.shipping import archive, source
from evalcore.slurm.states import UNKNOWN, decide, decide_tasks
from evalcore.terminal import without_controls

MAX_ATTEMPTS = 10
"""How often a job that the cluster stopped (time limit, preemption, lost node) goes on before that is a failure.

One whose command a signal killed, which nothing on a cluster excuses, is tried ``jobs.MAX_ATTEMPTS`` times.
"""

_BROUGHT = ("manifest.json", "scorecard.json", "counts.json", "grades/*.jsonl", "judgements/*.jsonl")
_SECONDS = 150.0  # for one request: some commands of Slurm's, each of which may wait for its controller


class Cluster:
    """A cluster as its profile describes it, reached through a shell.

    array: jobs are arrays of these tasks, each of which finds its number in SLURM_ARRAY_TASK_ID.
    """

    def __init__(self, profile: SlurmProfile, shell: Shell, array: Sequence[int] = ()) -> None:
        self.profile = profile
        self.shell = shell
        self.array = tuple(array)
        self.poll_interval = profile.poll_interval

    def with_resources(
        self, resources: Mapping[str, Any], dependency: str = "", array: Sequence[int] = ()
    ) -> Cluster:
        """This cluster for jobs that differ from its profile in some keys.

        dependency: as ``sbatch --dependency``. array: numbers of the tasks of each job.

        Raises:
            ConfigError: a key that is none of the profile's, or a value that cannot be used.
        """
        keys = self.profile.model_dump() | dict(resources)
        if dependency:
            keys["extra_sbatch"] = [*keys["extra_sbatch"], f"--dependency={dependency}"]
        try:
            return Cluster(SlurmProfile.model_validate(keys), self.shell, array)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "resources"
            message = first["msg"].removeprefix("Value error, ")
            raise ConfigError(f"cluster {self.profile.name}: {where}: {message}") from None

    def folder(self, name: str) -> str:
        return f"{self.profile.remote_job_dir}/jobs/{name}"

    def newest(self, name: str) -> str | None:
        found = self._ask("history", folder=self.folder(name), limit=1, needs="")
        return next(iter(found["jobs"]), None)

    def prepare(self, anew: str = "") -> str | None:
        """The job that makes the container's squashfs file of a Docker reference; None if it needs no making.

        Whoever wants a job waits for this one first and asks again. A ``--dependency`` would do with one wait
        less, but a job whose dependency failed or was preempted hangs, or is cancelled without a reason, and
        ``afterok`` of an id that Slurm has forgotten starts it at once. This way the import is a job like any
        other: submitted once, found again, resumed, and its own last words are the error.

        Args:
            anew: makes it although it is there, once for each such text, as the id of a DAG run. Not for each
                call: a run's later tasks must not replace what its first ones run in.

        Raises:
            JobError: as ``ensure``.
        """
        image = self.profile.container_image
        if not image or images.is_file(image):
            return None
        file = self._image(image)
        stamp = hashlib.sha256(anew.encode()).hexdigest()[:12] if anew else ""
        wanted = [file, f"{file}.{stamp}.made"] if anew else [file]
        if not self._ask("missing", paths=wanted)["missing"]:
            return None
        code = self._code()
        name = "-".join(filter(None, ["squash", Path(file).stem, stamp]))
        argv = ["python3", f"{code}/evalcore/slurm/squash.py", images.enroot_uri(image), *wanted]
        resources = {"nodes": 1, "gpus_per_node": None, "gres": None, "exclusive": False}
        profile = self.profile.model_copy(update=resources)
        return self._ensure(name, {"argv": argv, "env": profile.plain_env}, {}, code, profile)

    def ensure(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> str:
        """The job of that name: the attempt still of use, or a new one; returns its folder.

        Of use is one that runs or whose result nobody consumed. One that was stopped or killed is followed by
        the next, up to MAX_ATTEMPTS; a job of that name with another command is cancelled first.

        Args:
            argv: ``evalcore …`` is run by this version of evalcore, sent there if it is not there yet.
            env: beside the profile's; in no script, and in no file for longer than until the job starts.

        Raises:
            JobError: it was stopped too often, or Slurm refuses it.
        """
        code = self._code() if argv[0] == "evalcore" else ""
        return self._ensure(name, self._command(argv, code), env, code, self.profile, self.array)

    def _ensure(
        self,
        name: str,
        command: dict[str, Any],
        env: Mapping[str, str],
        code: str,
        profile: SlurmProfile,
        array: Sequence[int] = (),
    ) -> str:
        root = self.folder(name)
        found = self._ask("history", folder=root, limit=MAX_ATTEMPTS + 1, needs=code)
        listed = list(found["jobs"].items())
        fresh = list(takewhile(lambda item: not item[1]["consumed"], listed))
        number = int(listed[0][0].rpartition("/")[2]) + 1 if listed else 1
        if fresh:
            folder, facts = fresh[0]
            status = decide(facts)
            is_other = facts["command"] and facts["command"]["argv"] != command["argv"]
            if is_other or (facts["cancelled"] and not facts["id"]):
                self.cancel([folder])
                if facts["id"] and not status.state.is_over:
                    raise Unreachable(f"job {folder} is told to stop, and has not yet")
            elif not facts["id"]:
                number -= 1  # whoever submitted it was cut off
            elif not status.state.is_resumable:
                return str(folder)
            else:
                # Of older ones Slurm may have forgotten why they ended; what we cancelled is nobody's fault.
                states = [decide(attempt).state for _, attempt in fresh]
                tried = len(states) - states.count(State.CANCELLED)
                if tried >= MAX_ATTEMPTS or states.count(State.KILLED) >= MAX_KILLED:
                    self.consume(folder)
                    raise JobError(f"job {name}: {status}, {tried} times in a row. Log: {folder}/log.txt")
        if array:
            # Tasks that are done are not done again, unless all were and somebody wants them so.
            newest = decide_tasks(listed[0][1]) if listed else {}
            rest = [task for task, status in newest.items() if status.state is not State.SUCCEEDED]
            command["tasks"] = rest or list(array)
        if found["missing"]:
            self._ship(code)
        folder = f"{root}/{number}"
        self._ask(
            "submit",
            folder=folder,
            script=script.render(profile, f"{name}.{number}", folder, command.get("tasks", ())),
            supervisor=source(agent.SUPERVISOR),
            command=command,
            secrets=dict(env),
        )
        return folder

    def look(self, offsets: Mapping[str, int]) -> dict[str, Look]:
        found = self._ask("look", jobs=dict(offsets))
        jobs = {}
        for folder, facts in found["jobs"].items():
            status = decide(facts)
            lines = [without_controls(line)[:2000] for line in facts["log"].splitlines()]
            # Nobody knows it because nobody could be asked: that says nothing.
            unknown = status.detail.startswith(UNKNOWN) and not found["trouble"]
            jobs[folder] = Look(status, lines, facts["offset"], unknown, facts["id"], found["trouble"])
        return jobs

    def log(self, job: str) -> Iterator[str]:
        lines = self.look({job: 0})[job].log
        return iter([f"(the end of {job}/log.txt)\n", *(f"{line}\n" for line in lines)])

    def cancel(self, jobs: Sequence[str]) -> None:
        self._ask("cancel", folders=list(jobs))

    def give_up(self, job: str) -> None:
        self.cancel([job])  # should it come to light after all
        self._ask("mark", folder=job, name="lost")

    def consume(self, job: str) -> None:
        self._ask("mark", folder=job, name="consumed")

    def fetch(self, folder: str, into: Path) -> None:
        """Bring a benchmark's folder here but for its generations; each file whole or not at all."""
        there = self._ask("files", folder=folder, patterns=_BROUGHT)["files"]
        for name, expected in there.items():
            file = into / name
            if _digest(file) == expected["sha256"]:
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
            try:
                self.shell.get(f"{folder}/{name}", str(temporary))
                if _digest(temporary) != expected["sha256"]:
                    raise Unreachable(f"{name} has changed on its way here")
                temporary.replace(file)
            finally:
                temporary.unlink(missing_ok=True)

    def run(self, module: str, *, stdin: bytes, timeout: float) -> bytes:
        """The output of a module of evalcore, run on the login node with this version of it.

        Raises:
            JobError: it failed; with its last error.
        """
        code = self._code()
        if self._ask("missing", paths=[code])["missing"]:
            self._ship(code)
        environment = [f"{name}={value}" for name, value in self._environment(code).items()]
        # On lines of its own, whatever a .bashrc has printed before.
        command = "echo; " + shlex.join(["env", *environment, self.profile.login_python, "-P", "-m", module])
        done = self.shell.run(command, stdin, timeout=timeout)
        if done.code:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.code}"]
            raise JobError(without_controls(lines[-1]).removeprefix("evalcore: error: "))
        return done.stdout

    def _command(self, argv: Sequence[str], code: str) -> dict[str, Any]:
        env = self.profile.plain_env
        if code:
            # Not what lies in the working folder, of an image for instance, goes before PYTHONPATH.
            argv = [self.profile.python, "-P", "-m", "evalcore.cli", *argv[1:]]
            env = self._environment(code)
        image = self.profile.container_image
        if not image:
            return {"argv": list(argv), "env": env}
        file = image if images.is_file(image) else self._image(image)
        return {"argv": script.in_container(self.profile, argv, file, env), "env": env, "step": True}

    def _image(self, reference: str) -> str:
        return f"{self.profile.remote_job_dir}/containers/{images.file_name(reference)}"

    def _code(self) -> str:
        """Where this version of evalcore lies on the cluster, once it is sent."""
        return f"{self.profile.remote_job_dir}/evalcore/{archive().digest[:16]}"

    def _environment(self, code: str) -> dict[str, str]:
        data = f"{self.profile.remote_job_dir}/data"
        # What env.toml says was planned with; another one there, in a home for instance, has no say.
        ours = {"EVALCORE_DATA": data, "EVALCORE_ENV_TOML": "/dev/null"}
        return {**ours, **self.profile.plain_env, "PYTHONPATH": code}

    def _ship(self, folder: str) -> None:
        sent = archive()
        # A container's python is not on the login node.
        is_here = not self.profile.container_image
        check = [self.profile.python, "-c", "import evalcore.cli, evalcore.plan"] if is_here else []
        self._ask("unpack", folder=folder, digest=sent.digest, archive=sent.data.hex(), check=check)

    def _ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """One request to the agent: one command over the connection."""
        request = source("agent.py").encode() + b"\0" + orjson.dumps({"do": do, **arguments})
        command = shlex.join(["python3", "-c", agent.BOOT])
        done = self.shell.run(command, request, timeout=_SECONDS)
        try:
            answer = orjson.loads(done.stdout.splitlines()[-1])
        except (IndexError, orjson.JSONDecodeError):
            said = done.stderr.decode(errors="replace").strip().splitlines()
            why = without_controls(f"exit code {done.code}: {said[-1] if said else 'no answer'}")
            if done.code == 127:
                raise JobError(f"cluster {self.profile.name}: no python3 on its login node ({why})") from None
            raise Unreachable(why) from None
        if "error" in answer:
            error = without_controls(str(answer["error"]))
            if answer["kind"] == "rejected":
                raise JobError(f"cluster {self.profile.name}: {error}")
            raise Unreachable(error)
        return dict(answer["ok"])


def _digest(file: Path) -> str | None:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return None
