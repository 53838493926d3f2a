from __future__ import annotations

from pathlib import Path

import pytest

from evalcore.slurm.cluster import Cluster
from fake_slurm import FakeSlurm, cluster_on


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A Slurm in PATH."""
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", str(fake.bin), prepend=":")
    return fake


@pytest.fixture
def cluster(slurm: FakeSlurm, tmp_path: Path) -> Cluster:
    return cluster_on(tmp_path)
