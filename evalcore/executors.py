"""What a profile may say: one model for each executor, whose fields are the keys of ``env.toml``.

>>> SlurmProfile(name="cluster", executor="slurm", remote_job_dir="/lustre/me", mem=0).results
'/lustre/me/results'

Values come out as they may stand in an ``#SBATCH`` line: one word each. Secrets never get in.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from evalcore.errors import ConfigError
from evalcore.settings import Settings

SECRET_NAME = re.compile(
    r"(.*_)?(api_?key|key|token|secret|credentials?)|.*(password|passwd|passphrase)", re.IGNORECASE
)
TAKEN_FROM = re.compile(r"oc\.env:\s*(\w+)")
_REFERENCE = re.compile(r"""\$\{oc\.env:\s*([A-Za-z_]\w*)\s*(,\s*(''|""|null)?\s*)?\}""")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def walltime_seconds(text: str) -> int:
    """The seconds of a Slurm time limit: ``30`` (minutes), ``4:00:00`` or ``1-12:00:00``.

    Forms: sbatch(1), ``--time``.

    Raises:
        ConfigError: another form, or no time at all. ``UNLIMITED`` and 0 are refused: a generation has to
            know when to stop.
    """
    found = re.fullmatch(r"(?:(\d{1,4})-)?(\d{1,7})(?::(\d{1,7}))?(?::(\d{1,7}))?", text.strip(), re.ASCII)
    if not found:
        raise ConfigError(_walltime_message(text))
    days, *rest = found.groups()
    numbers = [int(part) for part in rest if part is not None]
    # After days come hours; without days, one or two numbers begin with minutes.
    units = (3600, 60, 1) if days is not None or len(numbers) == 3 else (60, 1)
    seconds = int(days or 0) * 86400 + sum(n * unit for n, unit in zip(numbers, units, strict=False))
    if not seconds:
        raise ConfigError(_walltime_message(text))
    return seconds


def _walltime_message(text: str) -> str:
    return (
        f"{text!r} is no time limit; write minutes, minutes:seconds, hours:minutes:seconds, days-hours, "
        "days-hours:minutes or days-hours:minutes:seconds, as in 4:00:00 or 1-12:00:00"
    )


def _matching(pattern: str, expected: str, value: str) -> str:
    if not re.fullmatch(pattern, value):
        raise ValueError(f"expected {expected}")
    return value


def _walltime(value: str) -> str:
    try:
        walltime_seconds(value)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return value.strip()


def _text_of_number(value: object) -> object:
    """``mem = 0``, ``time = 30`` and ``OMP_NUM_THREADS = 4`` are written without quotes, too."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _environment(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an environment variable")
        if not text.isprintable():
            raise ValueError(f"{name} has a newline or another control character in it")
        if is_secret(name, text) and not _REFERENCE.fullmatch(text):
            raise ValueError(secret_message(name))
    return value


def is_secret(name: str, text: str) -> bool:
    """Whether a variable has to be kept from scripts and logs, by its name or the one that it is taken from."""
    names = [name, *TAKEN_FROM.findall(text)]
    return is_indirect(text) or any(map(SECRET_NAME.fullmatch, names))


def is_indirect(text: str) -> bool:
    """Whether a text takes a variable whose name it does not show, as ``${oc.env:${other}}`` does."""
    return text.count("oc.env") != len(TAKEN_FROM.findall(text))


def secret_message(name: str) -> str:
    return (
        f"{name} is a secret and does not belong into a file: export it where Airflow runs, or put it into an "
        f'Airflow Connection; to pass it on write env.{name} = "${{oc.env:{name}}}"'
    )


# Options of a job's own header (slurm/script.py), or that take it from where it is looked for; and where to say
# what they say. --exclusive is none of them: with a value, it has no key.
_BY_KEY = (
    "account",
    "partition",
    "qos",
    "time",
    "nodes",
    "gpus-per-node",
    "cpus-per-task",
    "mem",
    "gres",
    "constraint",
)
_INSTEAD = {
    **{option: f"the key {option.replace('-', '_')}" for option in _BY_KEY},
    **dict.fromkeys(("export", "export-file", "get-user-env"), "the key env"),
    **dict.fromkeys(
        ("container", "container-image", "container-mounts"), "the keys container_image and mounts"
    ),
    "array": "the argument array of SlurmSubmitOperator",
    "chdir": "cd in the script",
    "clusters": "a profile for each cluster",
}
_OURS = (
    "job-name",
    "output",
    "error",
    "open-mode",
    "signal",
    "requeue",
    "no-requeue",
    "wait",
    "test-only",
    "parsable",
    "wrap",
    "uid",
)


def _not_ours(value: str) -> str:
    name = value.removeprefix("--").partition("=")[0]
    # sbatch takes the beginning of an option for the option, unless it is one itself, as --gpus is.
    option = next((o for o in (*_INSTEAD, *_OURS) if o.startswith(name)), "") if name != "gpus" else ""
    if option in _INSTEAD:
        raise ValueError(f"--{option} cannot be set here; use {_INSTEAD[option]}")
    if option:
        raise ValueError(
            f"--{option} cannot be set: jobs are found again, stopped and resumed by what we set"
        )
    return value


def _checked(pattern: str, expected: str) -> AfterValidator:
    return AfterValidator(partial(_matching, pattern, expected))


# Values end up in #SBATCH lines, where a space ends a value and # starts a comment, and in command lines.
_PLAIN = r"""[^\s"'`\\$#\x00-\x1f\x7f]+"""
_FOLDER = r"/[\w@+=./-]*"
Word = Annotated[
    str,
    BeforeValidator(_text_of_number),
    _checked(rf"(?!-){_PLAIN}", "one word without spaces, quotes, $, # and a leading -"),
]
Login = Annotated[str, _checked(r"[A-Za-z0-9_][\w.:-]*", "a name of letters, digits and . _ - :")]
Image = Annotated[
    str, _checked(rf"(?!-)({_PLAIN}|#)+", "an image or a .sqsh file, without spaces, quotes and $")
]
Folder = Annotated[str, _checked(_FOLDER, "an absolute path of letters, digits and . _ - + = @ /")]
Mount = Annotated[
    str, _checked(rf"{_FOLDER}(:{_FOLDER}(:[\w+=-]+)?)?", "/there:/here or /there:/here:ro, both absolute")
]
DockerMount = Annotated[
    str, _checked(rf"{_FOLDER}(:{_FOLDER}(:r[ow])?)?", "/there:/here or /there:/here:ro, both absolute")
]
Walltime = Annotated[str, BeforeValidator(_text_of_number), AfterValidator(_walltime)]
Memory = Annotated[
    str, BeforeValidator(_text_of_number), _checked(r"\d+[KMGTkmgt]?", "a whole number and K, M, G or T: 64G")
]
DockerMemory = Annotated[
    str, BeforeValidator(_text_of_number), _checked(r"\d+[bkmgBKMG]?", "a whole number and b, k, m or g: 16g")
]
Sbatch = Annotated[
    str,
    _checked(rf"--[a-z][a-z-]*(={_PLAIN})?", "--option or --option=value"),
    AfterValidator(_not_ours),
]
Environment = Annotated[
    dict[str, Annotated[str, BeforeValidator(_text_of_number)]], AfterValidator(_environment)
]


class _Profile(Settings):
    """What all profiles have.

    name: the section's.
    env: variables of the job; a secret is only a reference here, ``HF_TOKEN = "${oc.env:HF_TOKEN}"``.
    """

    # An error's text must not show what somebody wrote into env.
    model_config = ConfigDict(hide_input_in_errors=True)
    # Another name for a key that counts where the key itself is missing, and one that goes before it.
    fallbacks: ClassVar[dict[str, str]] = {}
    preferred: ClassVar[dict[str, str]] = {}

    name: Login
    env: Environment = {}

    @property
    def plain_env(self) -> dict[str, str]:
        """The variables that may be seen in a job script."""
        return {name: text for name, text in self.env.items() if not is_secret(name, text)}

    @property
    def secret_env(self) -> dict[str, str]:
        """The variables that may not, each with the variable here that has its value."""
        found = {name: _REFERENCE.fullmatch(text) for name, text in self.env.items() if is_secret(name, text)}
        return {name: reference[1] for name, reference in found.items() if reference}


class LocalProfile(_Profile):
    """Processes on this machine."""

    executor: Literal["local"] = "local"


class DockerProfile(_Profile):
    """Containers of a Docker daemon.

    container_image: the image, with what evalcore depends on in it, as that of our Dockerfile.
    mounts: ``/there:/here`` or ``/there:/here:ro``, both absolute.
    gpus: how many; -1 is all.
    shm_size: of ``/dev/shm``, as ``16g``; inference servers on several GPUs need it.
    memory: the limit, as ``64g``; over it a container is killed.
    cpus: the limit, as 8 or 0.5.
    network: the Docker network to join.
    user: who runs in the container, as ``1000:1000``; default: who runs Airflow, so that files fit.
    docker_conn_id: the Airflow Connection of the registry; the daemon is ``DOCKER_HOST``'s (with
        ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH``, as for the docker command), or the local one.
    """

    fallbacks = {"container": "container_image", "gpus_per_node": "gpus", "nproc_per_node": "gpus"}

    executor: Literal["docker"]
    container_image: Image
    mounts: tuple[DockerMount, ...] = ()
    gpus: int = Field(0, ge=-1)
    shm_size: DockerMemory | None = None
    memory: DockerMemory | None = None
    cpus: float | None = Field(None, gt=0)
    network: Word | None = None
    user: Login | None = None
    docker_conn_id: Word | None = None

    def has(self, path: Path) -> bool:
        """Whether a path of this machine is mounted, and under the same name."""
        mounts = [mount.split(":") for mount in self.mounts]
        return any(path.is_relative_to(source) for source, *rest in mounts if not rest or rest[0] == source)


def _results(data: dict[str, Any]) -> str:
    # Without a remote_job_dir, that is the error, and this is thrown away.
    return f"{data.get('remote_job_dir', '').rstrip('/')}/results"


def _python(data: dict[str, Any]) -> str:
    return str(data.get("python", ""))


class SlurmProfile(_Profile):
    """Jobs of a Slurm cluster.

    account: who pays.
    partition: where jobs wait; several with commas. ``batch_partition`` goes before it, as for Nemotron's --batch.
    qos: the quality of service.
    time: the time limit in one of Slurm's forms; see ``walltime_seconds``.
    nodes: of one job.
    gpus_per_node: GPUs on each.
    cpus_per_task: cores of the one task.
    mem: memory of a node, as ``64G``; 0 is all of it.
    gres: other generic resources, or GPUs where ``gpus_per_node`` is not used, as ``gpu:a100:4``.
    constraint: features that a node must have.
    exclusive: no other jobs on the node.
    extra_sbatch: more options, each as ``--option=value``; not those that have a key or that every job has.
    tunnel: ``ssh`` submits on ``host``, ``local`` here.
    host, port, user: the login node; default of the last two: those of the Connection, or of ssh.
    identity: the file of the private key; default: the Connection's, or ssh's.
    ssh_conn_id: the Airflow Connection of the login node, with its secret.
    remote_job_dir: an absolute folder that login node and compute nodes share; everything of ours is in it.
    results: where results lie on the cluster; default: ``results`` in remote_job_dir.
    python: the interpreter of jobs (in the container, if there is one), 3.11 or later, with evalcore's dependencies.
    login_python: the same on the login node, where runs are planned; default: ``python``.
    container_image: a Docker reference, which becomes a ``.sqsh`` file in remote_job_dir once, or an absolute path
        or ``.sqsh`` file; default: no container.
    mounts: ``/there:/here`` or ``/there:/here:ro``, both absolute.
    poll_interval: seconds between two looks at the queue.
    """

    fallbacks = {"container": "container_image"}
    preferred = {"batch_partition": "partition"}

    executor: Literal["slurm"]
    account: Word | None = None
    partition: Word | None = None
    qos: Word | None = None
    time: Walltime = "4:00:00"
    nodes: int = Field(1, ge=1)
    gpus_per_node: int | None = Field(None, ge=0)
    cpus_per_task: int | None = Field(None, ge=1)
    mem: Memory | None = None
    gres: Word | None = None
    constraint: Word | None = None
    exclusive: bool = False
    extra_sbatch: tuple[Sbatch, ...] = ()
    tunnel: Literal["ssh", "local"] = "local"
    host: Login | None = None
    port: int | None = Field(None, ge=1, le=65535)
    user: Login | None = None
    identity: Word | None = None
    ssh_conn_id: Word | None = None
    remote_job_dir: Folder
    results: Folder = Field(default_factory=_results)
    python: Word = "python3"
    login_python: Word = Field(default_factory=_python)
    container_image: Image | None = None
    mounts: tuple[Mount, ...] = ()
    poll_interval: float = Field(20, ge=1)

    @model_validator(mode="after")
    def _somewhere_to_submit(self) -> Self:
        where = self.host or self.ssh_conn_id
        if self.tunnel == "ssh" and not where:
            raise ValueError('tunnel = "ssh" needs a host or an ssh_conn_id')
        if where and "tunnel" not in self.model_fields_set:
            raise ValueError('say tunnel = "ssh" to submit on the host, or tunnel = "local" to submit here')
        return self


Profile = Annotated[LocalProfile | DockerProfile | SlurmProfile, Field(discriminator="executor")]
Kind = type[LocalProfile] | type[DockerProfile] | type[SlurmProfile]
KINDS: dict[str, Kind] = {"local": LocalProfile, "docker": DockerProfile, "slurm": SlurmProfile}
