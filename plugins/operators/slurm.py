"""Any command or script as a Slurm job, deferred, on the cluster of a profile.

    SlurmSubmitOperator(
        task_id="train",
        cluster="cluster",
        script="srun python train.py --epochs 3",
        options={"nodes": 2, "gpus_per_node": 8, "time": "12:00:00"},
    )

It is submitted once, whatever dies meanwhile; goes on in another job after a time limit, a preemption or a lost
node (the command has to know how to); is cancelled with its task; and fails at once, with the last lines of its
log, for what would fail again. ``{{ ti.xcom_pull(task_ids="train", key="slurm") }}`` is ``{"id": "4711", "state":
"succeeded", "exit_code": 0}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from evalcore.backends import Backend, Look
from evalcore.errors import ConfigError
from evalcore.slurm.cluster import Cluster
from hooks.backends import backend, environment
from operators.job import JobOperator

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

XCOM_SLURM = "slurm"


class SlurmSubmitOperator(JobOperator):
    """Submits a job and waits for it deferred.

    :param cluster: name of a cluster profile whose executor is slurm.
    :param command: the command, as a list of its words; or
    :param script: lines of bash.
    :param options: keys of the profile that this job has otherwise: ``partition``, ``time``, ``nodes``,
        ``gpus_per_node``, ``mem``, ``container_image``, ``extra_sbatch``, …
    :param array: a number of tasks, or their numbers; each task finds its own in ``SLURM_ARRAY_TASK_ID``. A new
        attempt, or a retry, runs those alone that have not succeeded.
    :param dependency: as ``sbatch --dependency``: ``afterok:4711``. One on a job that Slurm has forgotten is met.
    :param env: variables of the job; secrets may be among them, if they come from a Connection.
    """

    template_fields: Sequence[str] = (*JobOperator.template_fields, "options", "array", "dependency", "env")

    def __init__(
        self,
        *,
        cluster: str,
        command: Sequence[str] = (),
        script: str = "",
        options: Mapping[str, Any] | None = None,
        array: int | str | Sequence[int] = (),
        dependency: str = "",
        env: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        if bool(command) == bool(script):
            raise ValueError("SlurmSubmitOperator: give a command or a script, and not both")
        if isinstance(command, str):
            raise ValueError("SlurmSubmitOperator: command is a list of words; give lines of bash as script")
        # bash takes what sshd has left in the environment for a reason to read .bashrc, with these options.
        argv = list(command) or ["bash", "--norc", "-euo", "pipefail", "-c", script]
        super().__init__(argv=argv, jobs_folder="", cluster=cluster, **kwargs)
        self.options = options
        self.array = array
        self.dependency = dependency
        self.env = env

    def execute(self, context: Context) -> Any:
        try:
            self._backend()
            self._environment()
        except ConfigError as error:
            raise AirflowFailException(str(error)) from None
        return super().execute(context)

    def _run(self, context: Context) -> Any:
        # A number or a path is a word, too.
        self.argv = [str(word) for word in self.argv]
        return super()._run(context)

    def _new_backend(self) -> Backend:
        found = backend(self.cluster, self.jobs_folder)
        if not isinstance(found, Cluster):
            raise ConfigError(f"profile {self.cluster}: its executor is not slurm")
        return found.with_resources(dict(self.options or {}), self.dependency, _tasks(self.array))

    def _environment(self) -> dict[str, str]:
        given = dict(self.env or {})
        if none := [name for name, value in given.items() if value is None]:
            raise ConfigError(f"env: {none[0]} has no value")
        return environment(self.cluster) | {name: str(value) for name, value in given.items()}

    def _ended(self, context: Context, look: Look) -> None:
        status = look.status
        told = {"id": look.id, "state": str(status.state), "exit_code": status.exit_code}
        context["ti"].xcom_push(XCOM_SLURM, told)


def _tasks(array: int | str | Sequence[int]) -> Sequence[int]:
    """The numbers of an array's tasks. A template renders a number of tasks as text."""
    if isinstance(array, str) and not array.isdecimal():
        raise ConfigError(f"array: expected a number of tasks, or their numbers, and not {array!r}")
    if not isinstance(array, int | str):
        return array
    if int(array) < 1:
        raise ConfigError(f"array: expected at least one task, and not {array}")
    return range(int(array))
