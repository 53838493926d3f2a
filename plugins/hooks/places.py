"""The places of ``tracked`` files: a folder here or on a cluster, an object store, W&B, the Hugging Face hub; and
what is at an address in one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from evalcore.backends import Unreachable
from evalcore.discovery import ClusterFolder, Folder, Found, Listing, Place, is_finished, listing_of, missing
from evalcore.errors import CheckpointError, ConfigError, EvalError
from evalcore.fetch import is_stored, resolve
from evalcore.slurm.cluster import Cluster
from evalcore.sources.hub import Revisions
from evalcore.sources.object_store import stored, without_connection
from evalcore.sources.remote import Remote, asked
from evalcore.sources.wandb import Artifacts
from evalcore.tracked import Tracked, followed
from hooks.backends import backend

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath


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
        return ObjectStore(source.object)
    if source.wandb:
        return Artifacts(source.wandb)
    assert source.path, "a source is one of these"
    runs_at = backend(tracked.cluster, "")
    return ClusterFolder(source.path, runs_at) if isinstance(runs_at, Cluster) else Folder(source.path)


def remote_at(url: str) -> Remote:
    """What is at an address now; in an object store as Airflow reads it, with the Connection in the address.

    Raises:
        ConfigError, CheckpointError: as ``evalcore.fetch.resolve``.
    """
    from airflow.sdk import ObjectStoragePath

    if not is_stored(url):
        return resolve(url)
    address = without_connection(url)
    # There may be no such Connection, or no library for it.
    with asked(address, Exception, final=(Exception,)):
        path = ObjectStoragePath(url)
        files = path.fs
    return stored(address, files, path.path)


class ObjectStore:
    """A prefix of an object store, as Airflow's object storage reads it, with a folder for each checkpoint."""

    def __init__(self, url: str) -> None:
        self.url = url

    def list(self) -> Listing:
        with self._asked() as path:
            if not path.is_dir():
                raise CheckpointError(f"{self.url}: no such folder")
            folders = (f for f in path.iterdir() if is_finished(f.name) and f.is_dir())
            return listing_of((f.name, str(f), str(f)) for f in folders)

    def missing(self, found: Sequence[Found]) -> Sequence[str]:
        with self._asked() as path:
            # They have of a path what is asked of one.
            return [missing(cast(Path, path / f.name)) for f in found]

    @contextmanager
    def _asked(self) -> Iterator[ObjectStoragePath]:
        from airflow.sdk import ObjectStoragePath

        try:
            yield ObjectStoragePath(self.url)
        except EvalError:
            raise
        # Each store's library has errors of its own; and a Connection may not be there.
        except Exception as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise CheckpointError(f"{self.url}: {said[:300]}") from error
