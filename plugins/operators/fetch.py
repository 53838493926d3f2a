"""``evalcore fetch`` as a task: a checkpoint that lies elsewhere is brought to where the run's jobs can read it.

A path is one already, and the task is skipped. Of an address the worker finds out what is there now, and whether the
rest of the request is right, before a job is started that may take hours. From an object store the worker fetches
itself: its Connection is Airflow's, and no job's. For a cluster a job there does, with the credentials it has.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.utils.skipmixin import SkipMixin
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from evalcore.backends import Backend, Unreachable
from evalcore.checkpoints import is_remote
from evalcore.errors import EvalError
from evalcore.slurm.cluster import Cluster
from hooks.backends import backend
from operators.job import XCOM_FAILURE, JobOperator
from operators.plan import config_from_params

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from evalcore.config import EvalConfig
    from evalcore.fetch import Outlook

XCOM_ASKED = "asked"
"""Where the task notes what its job is, and what it returns: one that was deferred has forgotten it."""

_SECONDS = 120.0
# It needs a network and a disk.
_RESOURCES = {"nodes": 1, "gpus_per_node": None, "gres": None, "exclusive": False}


class FetchOperator(JobOperator, SkipMixin):
    """Returns ``{checkpoint, training_run, step}``: the folder that the checkpoint is in then, and what it is of.

    With the param ``dry_run`` it prints what would be fetched and the commands that would follow, and everything
    downstream is skipped. What is there already is not fetched again.
    """

    # So that Airflow keeps tasks skipped when they are cleared alone.
    inherits_from_skipmixin = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(argv=[], jobs_folder="", **kwargs)

    def execute(self, context: Context) -> Any:
        if not is_remote((context["params"]["checkpoint"] or "").strip()):
            raise AirflowSkipException("The checkpoint is a path, or none: nothing to fetch")
        try:
            return self._fetch(context)
        except EvalError as error:
            from evalcore.sources.remote import Unavailable  # here: as in _fetch

            context["ti"].xcom_push(XCOM_FAILURE, str(error))
            if isinstance(error, Unavailable):
                raise AirflowException(str(error)) from error
            raise AirflowFailException(str(error)) from None
        except Unreachable as error:
            context["ti"].xcom_push(XCOM_FAILURE, f"cluster {self.cluster}: {error}")
            raise AirflowException(f"cluster {self.cluster}: {error}") from error

    def resume(self, context: Context, event: dict[str, Any]) -> Any:
        self._recall(context)
        return super().resume(context, event)

    def resume_prepared(self, context: Context, event: dict[str, Any]) -> Any:
        self._recall(context)
        return super().resume_prepared(context, event)

    def _recall(self, context: Context) -> None:
        asked = context["ti"].xcom_pull(task_ids=self.task_id, key=XCOM_ASKED)
        self.argv, self.jobs_folder, self.returns = asked["argv"], asked["jobs_folder"], asked["returns"]

    def _fetch(self, context: Context) -> Any:
        from evalcore import fetch  # here: it imports what reading a DAG, and most runs, need not wait for
        from hooks.places import remote_at

        params = context["params"]
        config = config_from_params(params)
        here = Path(config.results).expanduser().absolute()
        self.jobs_folder = str(here / ".jobs")
        runs_at = self._backend()
        results = runs_at.profile.results if isinstance(runs_at, Cluster) else str(here)
        remote = remote_at(params["checkpoint"].strip())
        self.log.info("%s: %s, revision %s", remote.url, fetch.describe(remote), remote.revision)
        config = config.model_copy(update={"results": results})
        config = fetch.placed(config, remote, fetch.folder_of(remote, results))
        outlook = self._outlook(config, runs_at)
        self.returns = {
            "checkpoint": config.checkpoint,
            "training_run": config.training_run,
            "step": config.step,
        }
        self.argv = fetch.command(remote.url, remote.revision, results)
        if outlook.is_here:
            self.log.info("It is there already: %s", config.checkpoint)
            return self.returns
        if params["dry_run"]:
            self._print(context, outlook)
        if fetch.is_stored(remote.url) and not isinstance(runs_at, Cluster):
            fetch.fetch(remote, results)
            return self.returns
        asked = {"argv": self.argv, "jobs_folder": self.jobs_folder, "returns": self.returns}
        context["ti"].xcom_push(XCOM_ASKED, asked)
        return self._run(context)

    def _outlook(self, config: EvalConfig, runs_at: Backend) -> Outlook:
        """What is to be done, as the cluster says where there is one."""
        from evalcore.fetch import Outlook, outlook

        if not isinstance(runs_at, Cluster):
            return outlook(config)
        asked = config.model_dump_json(exclude_unset=True).encode()
        return Outlook.from_json(runs_at.run("evalcore.fetch", stdin=asked, timeout=_SECONDS))

    def _print(self, context: Context, outlook: Outlook) -> None:
        for line in (shlex.join(self.argv), *outlook.commands.splitlines()):
            self.log.info("%s", line)
        self.log.info("Dry run: nothing of this is started")
        self.skip(ti=context["ti"], tasks=context["task"].get_flat_relatives(upstream=False))

    def _new_backend(self) -> Backend:
        found = backend(self.cluster, self.jobs_folder)
        return found.with_resources(_RESOURCES) if isinstance(found, Cluster) else found
