"""One real Airflow for all end-to-end tests, with benchmarks of its own: one that works, one judged, one torn."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_folder import cluster_folder, needs
from demo import packages
from demo.cluster import Cluster
from demo.engine import Engine
from demo.standalone import ROOT, Airflow
from receivers import Webhook, webhook
from whole_dag import QUICK

BENCHMARKS = {
    "good": "name: good\ndescription: four sums\nsource: {path: good.jsonl}\nprompt: tiny/arithmetic\n"
    "grader: math\nsamples: 1\ngeneration: {tokens_to_generate: 48}\n",
    "judged": "name: judged\ndescription: good, judged\nsource: {path: good.jsonl}\nprompt: tiny/arithmetic\n"
    "grader: math\njudge: true\nsamples: 1\ngeneration: {tokens_to_generate: 48}\n",
    "torn": "name: torn\ndescription: a file that ends within a row\nsource: {path: torn.jsonl}\n"
    "prompt: tiny/arithmetic\ngrader: math\nsamples: 1\n",
}
ROW = (
    '{"id": "%d", "problem": "Sam has %d pens. Sam finds 4 more. How many pens does Sam have now?",'
    ' "expected_answer": "%d"}\n'
)


@pytest.fixture(scope="package")
def hook() -> Iterator[Webhook]:
    with webhook() as running:
        yield running


@pytest.fixture
def alerted(hook: Webhook) -> Webhook:
    """What the Connection ``e2e_alerts`` sends to; empty."""
    hook.received.clear()
    hook.answers.clear()
    return hook


# For this folder's tests: a whole Airflow beside other tests would make them slow.
@pytest.fixture(scope="package")
def airflow(tmp_path_factory: pytest.TempPathFactory, hook: Webhook) -> Iterator[Airflow]:
    folder = tmp_path_factory.mktemp("e2e")
    benchmarks = folder / "include" / "benchmarks"
    benchmarks.mkdir(parents=True)
    for name, text in BENCHMARKS.items():
        (benchmarks / f"{name}.yaml").write_text(text)
    rows = "".join(ROW % (n, n, n + 4) for n in (10, 20, 30, 40))
    (benchmarks / "good.jsonl").write_text(rows)
    (benchmarks / "torn.jsonl").write_text(rows[:-30])
    settings = {
        "EVALCORE_INCLUDE": str(folder / "include"),
        "EVALCORE_HISTORY": f"sqlite:///{folder / 'history.sqlite'}",
        # Of runs that say nothing of it, as those that a DAG starts.
        "EVALCORE_RESULTS": str(folder / "results"),
        # No night begins while tests are at it that make nights of their own.
        "EVALCORE_NIGHTLY": "0 0 29 2 *",
        "AIRFLOW_CONN_E2E_ALERTS": json.dumps(
            {"conn_type": "apprise", "extra": {"config": {"path": hook.url}}}
        ),
        "WANDB_MODE": "offline",
        **QUICK,
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    }
    with Airflow(folder / "airflow", settings=settings) as running:
        yield running


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Path]:
    """A file: while it is there a generation (``whole_dag.held``) or a command (``waiting.while_there``) is held.

    Among the test's results, which jobs see in containers too.
    """
    file = tmp_path / "results" / "hold"
    file.parent.mkdir()
    file.touch()
    yield file
    file.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The late one, which knows most of its sums."""
    return sorted((ROOT / "include" / "tiny" / "checkpoints").glob("step-*"))[1]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real Slurm with two nodes and accounting; a test leaves it as it found it, without jobs."""
    with cluster_folder() as folder, Cluster(folder) as running:
        yield running


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A real Docker engine without a bridge; a test leaves no container on it."""
    needs(packages.missing_for_docker())
    # Its layers are no files of tests, and overlays do not go on overlays.
    folder = Path(tempfile.mkdtemp(prefix="engine-", dir="/var/tmp"))
    try:
        with Engine(folder) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def base(engine: Engine) -> str:
    """An image of Debian with Python that is made here: no hub is asked."""
    archive = Path.home() / ".cache" / "evalcore-tests" / "base-bookworm.tar"  # it takes a minute to make
    engine.load_base(archive, "base:bookworm")
    return "base:bookworm"


@pytest.fixture(scope="session")
def image(engine: Engine, base: str) -> str:
    """The image of the project's own Dockerfile in which jobs run."""
    # By name, since this builder would make the stages before the last one, too.
    engine.build(ROOT, "evalcore:test", base=base, target="jobs")
    return "evalcore:test"
