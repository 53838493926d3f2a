"""Where a test may start a Slurm cluster: the job user must reach it, which pytest's own folders forbid."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo import packages


@contextmanager
def cluster_folder() -> Iterator[Path]:
    """An empty folder, removed afterwards. Where no cluster can be started the test is skipped; on CI it fails."""
    needs(packages.missing() + packages.missing_for_tests())
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def needs(missing: Sequence[str]) -> None:
    """Skip a test for which packages are missing, or a user who may start daemons; on CI it fails."""
    if missing:
        cannot(packages.how_to_install(list(missing)))
    if os.geteuid() != 0:
        cannot("it needs root")


def cannot(reason: str) -> None:
    """Skip a test, and say why; on CI it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
