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
from waiting import LONG

ROOT = Path(__file__).parents[2]


def demo(tmp: Path, state: str, plan: list[str] | None, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the demo on a stand-in for Airflow, with a home and results of its own."""
    shutil.copytree(ROOT / "include" / "demo", tmp / "include" / "demo")
    (tmp / "include" / "tiny").symlink_to(ROOT / "include" / "tiny")
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "fake_airflow"), "FAKE_STATE": state, **more}
    if plan is not None:
        env["FAKE_PLAN"] = json.dumps(plan)
    command = [sys.executable, str(tmp / "include" / "demo" / "demo.py")]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=LONG, check=False)


def planned(tmp_path: Path) -> list[str]:
    folder = write(tmp_path / "results" / "toy", manifest(1, 1), [Sample("a", 0, "1", True)])
    summarize(folder)
    return [str(folder)]


@pytest.mark.slow
def test_the_verdict_is_the_last_line(tmp_path: Path) -> None:
    folder = planned(tmp_path)
    done = demo(tmp_path, "success", folder, FAKE_WORSE="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("pass@1[1]       | 1           | 100.00%") == 3
    assert done.stdout.count(f"Results  {folder[0]}") == 3
    assert done.stdout.count(": success ===") == 3
    assert "=== alert on the channel demo_alerts ===\n\nworse\n\nby 26.5 points\n" in done.stdout
    assert done.stdout.splitlines()[-1] == (
        "tiny/step-002200 against tiny/step-001800: regressed; confirmed on fresh seeds, and told"
    )


@pytest.mark.slow
def test_a_checkpoint_that_is_not_found_worse(tmp_path: Path) -> None:
    done = demo(tmp_path, "success", planned(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: the last checkpoint should have looked worse: tiny/step-002200")


@pytest.mark.slow
@pytest.mark.parametrize("is_planned", [True, False])
def test_a_run_that_fails(tmp_path: Path, is_planned: bool) -> None:
    done = demo(tmp_path, "failed", ["/nowhere/toy"] if is_planned else None)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the evaluation of step-000900 failed: http://127.0.0.1:")
    assert done.stdout.count(": failed ===") == 1
    assert done.stdout.count("FAILED plan: no such suite") == 1
    assert done.stdout.count("Results  /nowhere/toy") == (1 if is_planned else 0)


@pytest.mark.slow
def test_an_airflow_that_does_not_start(tmp_path: Path) -> None:
    (tmp_path / ".airflow" / "logs").mkdir(parents=True)
    (tmp_path / ".airflow" / "passwords.json").mkdir()  # which the API server cannot write
    done = demo(tmp_path, "success", [])
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: api-server ended with 1: IsADirectoryError")
