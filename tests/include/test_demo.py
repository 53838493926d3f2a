"""``make demo`` tells by its exit code whether the evaluations succeeded; the real one runs in CI as it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evalcore.summarize import summarize
from synthetic_results import Sample, manifest, write

ROOT = Path(__file__).parents[2]


def demo(tmp: Path, state: str, plan: list[str] | None) -> subprocess.CompletedProcess[str]:
    """Run the demo on a stand-in for Airflow, with a home and results of its own."""
    shutil.copytree(ROOT / "include" / "demo", tmp / "include" / "demo")
    (tmp / "include" / "tiny").symlink_to(ROOT / "include" / "tiny")
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "fake_airflow"), "FAKE_STATE": state}
    if plan is not None:
        env["FAKE_PLAN"] = json.dumps(plan)
    command = [sys.executable, str(tmp / "include" / "demo" / "demo.py")]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_runs_that_succeed(tmp_path: Path) -> None:
    folder = write(tmp_path / "results" / "toy", manifest(1, 1), [Sample("a", 0, "1", True)])
    summarize(folder)
    done = demo(tmp_path, "success", [str(folder)])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("pass@1[1]       | 1           | 100.00%") == 2
    assert done.stdout.count(f"Results  {folder}") == 2
    assert done.stdout.count(": success ===") == 2


@pytest.mark.slow
@pytest.mark.parametrize("planned", [True, False])
def test_runs_that_fail(tmp_path: Path, planned: bool) -> None:
    done = demo(tmp_path, "failed", ["/nowhere/toy"] if planned else None)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count(": failed ===") == 2
    assert done.stdout.count("FAILED plan: no such suite") == 2
    assert done.stdout.count("Results  /nowhere/toy") == (2 if planned else 0)


@pytest.mark.slow
def test_an_airflow_that_does_not_start(tmp_path: Path) -> None:
    (tmp_path / ".airflow" / "logs").mkdir(parents=True)
    (tmp_path / ".airflow" / "passwords.json").mkdir()  # which the API server cannot write
    done = demo(tmp_path, "success", [])
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: api-server ended with 1: IsADirectoryError")
