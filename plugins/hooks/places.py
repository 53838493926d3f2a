"""The places of ``tracked`` files: a folder here or on a cluster, an object store, W&B, the Hugging Face hub."""

from __future__ import annotations

from evalcore.discovery import ClusterFolder, Folder, Place
from evalcore.slurm.cluster import Cluster
from evalcore.tracked import Tracked
from hooks.backends import backend


def place_of(tracked: Tracked) -> Place:
    """Where a training run's checkpoints appear.

    Raises:
        ConfigError: its cluster cannot be used.
    """
    source = tracked.source
    assert source.path
    runs_at = backend(tracked.cluster, "")
    return ClusterFolder(source.path, runs_at) if isinstance(runs_at, Cluster) else Folder(source.path)
