"""Where a test may start a Slurm cluster: the job user must reach it, which pytest's own folders forbid."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo import packages


@contextmanager
def cluster_folder() -> Iterator[Path]:
    """An empty folder, removed afterwards. Where no cluster can be started the test is skipped; on CI it fails."""
    if missing := packages.missing() + packages.missing_for_tests():
        _cannot(packages.how_to_install(missing))
    if os.geteuid() != 0:
        _cannot("a Slurm cluster needs root")
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _cannot(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
