from __future__ import annotations

import pytest

from evalcore.backends import Unreachable
from evalcore.slurm.shell import Here


def test_commands_here_do_not_have_what_airflow_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """sbatch would export it to the job, and Slurm would keep it in a file of its own."""
    hidden = {
        "AIRFLOW_CONN_DB": "hidden",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "hidden",
        "_AIRFLOW_PROCESS": "hidden",
        "OPENAI_API_KEY": "hidden",
        "DB_PASSWORD": "hidden",
        "SLURM_ARRAY_TASK_ID": "hidden",
    }
    for name, value in (hidden | {"SLURM_CONF": "seen", "MODULEPATH": "seen"}).items():
        monkeypatch.setenv(name, value)
    said = Here().run("env", b"", timeout=60).stdout.decode().splitlines()
    assert {"SLURM_CONF=seen", "MODULEPATH=seen"} <= set(said)
    assert not [line for line in said if line.endswith("=hidden")]


def test_a_host_that_takes_too_long_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="no answer within 0 s"):
        Here().run("sleep 60", b"", timeout=0.1)
