"""What of a cluster needs no Slurm; the rest is in tests/e2e."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from evalcore.config import load_config
from evalcore.errors import JobError
from evalcore.plan import Plan
from evalcore.profiles import SlurmProfile
from evalcore.slurm.cluster import Cluster
from evalcore.slurm.shell import Here

CHECKPOINT = sorted((Path(__file__).parents[3] / "include" / "tiny" / "checkpoints").glob("step-*"))[1]


def test_a_run_is_planned_by_the_login_nodes_python(tmp_path: Path) -> None:
    """That of jobs is in a container, which the login node cannot look into."""
    keys = {
        "name": "c",
        "executor": "slurm",
        "remote_job_dir": str(tmp_path),
        "container_image": "/images/e.sqsh",
    }
    profile = SlurmProfile.model_validate({**keys, "python": "/opt/e/python", "login_python": sys.executable})
    config = load_config("tiny", checkpoint=str(CHECKPOINT), results=str(tmp_path / "results"))
    asked = config.model_dump_json().encode()
    said = Cluster(profile, Here()).run("evalcore.plan", stdin=asked, timeout=60)
    assert Plan.from_json(said).convert[:2] == ["evalcore", "convert"]
    without = SlurmProfile.model_validate({**keys, "python": "/opt/e/python"})
    with pytest.raises(JobError, match="/opt/e/python"):
        Cluster(without, Here()).run("evalcore.plan", stdin=asked, timeout=60)
