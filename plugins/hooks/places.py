"""The places of ``tracked`` files: a folder here or on a cluster, an object store, W&B, the Hugging Face hub; and
what is at an address in one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from evalcore.backends import Unreachable
from evalcore.discovery import ClusterFolder, Folder, Place
from evalcore.errors import ConfigError, EvalError
from evalcore.fetch import is_stored, resolve
from evalcore.slurm.cluster import Cluster
from evalcore.sources.hub import Revisions
from evalcore.sources.object_store import Prefix, stored, without_connection
from evalcore.sources.remote import Remote, asked
from evalcore.sources.wandb import Artifacts
from evalcore.tracked import Tracked, followed
from hooks.backends import backend

_T = TypeVar("_T")


def at_each(look: Callable[[Tracked, Place], _T], failures: list[str]) -> Iterator[tuple[Tracked, _T]]:
    """Each training run that is followed, with what a look at its place finds.

    failures: gets what cannot be used or read, in place of which the others go on.
    """
    for tracked in followed():
        if isinstance(tracked, ConfigError):
            failures.append(str(tracked))
            continue
        try:
            found = look(tracked, place_of(tracked))
        except (EvalError, Unreachable, OSError) as error:
            failures.append(f"{tracked.training_run}: {error}")
            continue
        yield tracked, found


def place_of(tracked: Tracked) -> Place:
    """Where a training run's checkpoints appear.

    Raises:
        ConfigError: its cluster cannot be used.
    """
    source = tracked.source
    if source.hub:
        return Revisions(source.hub)
    if source.object:
        return Prefix(source.object, partial(_opened, source.object))
    if source.wandb:
        return Artifacts(source.wandb)
    assert source.path, "a source is one of these"
    runs_at = backend(tracked.cluster, "")
    converted = tracked.converted
    if isinstance(runs_at, Cluster):
        return ClusterFolder(source.path, runs_at, converted=converted)
    return Folder(source.path, converted=converted)


def remote_at(url: str) -> Remote:
    """What is at an address now; in an object store as Airflow reads it, with the Connection in the address.

    Raises:
        ConfigError, CheckpointError: as ``evalcore.fetch.resolve``.
    """
    return stored(without_connection(url), *_opened(url)) if is_stored(url) else resolve(url)


def _opened(url: str) -> tuple[Any, str]:
    """The file system of an address in an object store, as Airflow's object storage makes it, and the path in it.

    Raises:
        ConfigError: Airflow has no provider for this kind of store.
        CheckpointError: there is no such Connection, or no library for it.
    """
    from airflow.sdk import Connection, ObjectStoragePath

    address = without_connection(url)
    with asked(address, Exception, final=(Exception,)):
        path = ObjectStoragePath(url)
        if path.conn_id:
            # Amazon's provider does without one that is not there, as anybody.
            Connection.get(path.conn_id)
        try:
            # Asked for here: what the path itself does is done without the Connection if that cannot be used.
            return path.fs, path.path
        except ValueError as error:
            hint = "it comes with the store's provider, as apache-airflow-providers-amazon[s3fs]"
            raise ConfigError(f"{address}: {error}; {hint}") from error
