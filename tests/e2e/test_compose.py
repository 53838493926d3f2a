"""docker-compose.yaml as a team first runs it: our own Dockerfile, a real engine, a real PostgreSQL."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster_folder import needs
from demo import packages
from demo.engine import Engine
from demo.standalone import ROOT, Airflow, free_port
from waiting import LONG, until
from whole_dag import held

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DAG = "evaluate_checkpoint"
OVERRIDE = (
    "services: {migrate: {build: {network: host}}}\n"  # this engine has no other way to the package index
)
SERVICES = {"postgres", "api-server", "scheduler", "dag-processor", "triggerer"}
PROFILE = (
    '[far]\nexecutor = "slurm"\ntunnel = "local"\nremote_job_dir = "/far"\naccount = "a"\npartition = "p"\n'
)


@dataclass
class Compose:
    """Runs ``docker compose`` on an engine, with a home that has nothing in it."""

    engine: Engine
    folder: Path
    secrets: dict[str, str]

    def run(self, *argv: str) -> str:
        done = self.try_to(*argv)
        assert done.returncode == 0, f"docker compose {argv}: {done.stdout[-1000:]} {done.stderr[-3000:]}"
        return done.stdout

    def try_to(self, *argv: str) -> subprocess.CompletedProcess[str]:
        files = ["--env-file", f"{self.folder}/.env", "-f", f"{ROOT}/docker-compose.yaml"]
        return subprocess.run(
            ["docker", "compose", "-p", "evalcore", *files, "-f", f"{self.folder}/override.yaml", *argv],
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "DOCKER_HOST": self.engine.url},
            capture_output=True,
            text=True,
            errors="replace",  # some of what is kept is no text
            timeout=LONG,
            check=False,
        )

    def scheduler(self, command: str) -> str:
        return self.run("exec", "-T", "scheduler", "sh", "-c", command)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """An .env as ``make .env`` completes it, a config folder and a folder of checkpoints."""
    folder = tmp_path_factory.mktemp("compose")
    shutil.copytree(checkpoint, folder / "ckpt" / "run-1" / checkpoint.name)
    (folder / "config").mkdir()
    (folder / "config" / "env.toml").write_text(PROFILE)
    (folder / "override.yaml").write_text(OVERRIDE)
    subprocess.run(["make", "-s", "-f", ROOT / "Makefile", ".env"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def compose(engine: Engine, base: str, folder: Path) -> Iterator[Compose]:
    needs(packages.missing_for_compose())
    engine.build(Path(__file__).parent / "postgres_image", "postgres:test", base=base, target="")
    env = folder / ".env"
    compose = Compose(engine, folder, dict(line.split("=", 1) for line in env.read_text().splitlines()))
    with env.open("a") as file:
        file.write(
            f"BASE={base}\nPOSTGRES_IMAGE=postgres:test\nAIRFLOW_PORT=127.0.0.1:{free_port(0)}\n"
            f"EVALCORE_CONFIG={folder}/config\nEVALCORE_CHECKPOINTS={folder}/ckpt\n"
        )
    try:
        compose.run("up", "--detach", "--build", "--wait")
        yield compose
    finally:
        compose.run("down", "--volumes", "--timeout=10")
    assert engine.run("volume", "ls", "-q") == ""


@pytest.fixture(scope="module")
def airflow(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A client of what runs there."""
    home = tmp_path_factory.mktemp("client")
    (home / "passwords.json").write_text(json.dumps({"admin": compose.secrets["ADMIN_PASSWORD"]}))
    port = compose.run("port", "api-server", "8080").strip().rpartition(":")[2]
    client = Airflow(home, port=int(port))
    yield client
    client.stop()


def test_an_evaluation_outlives_a_restart_of_the_scheduler(
    compose: Compose, airflow: Airflow, checkpoint: Path
) -> None:
    shown = [json.loads(line) for line in compose.run("ps", "--format", "json").splitlines()]
    assert {service["Service"]: service["Health"] for service in shown} == dict.fromkeys(SERVICES, "healthy")
    airflow.wait_until_ready()  # a DAG processor is healthy before it has read the DAGs
    assert airflow.request("GET", "/importErrors")["import_errors"] == []
    found = {dag["dag_id"] for dag in airflow.request("GET", "/dags")["dags"]}
    assert found == {file.stem for file in (ROOT / "dags").glob("*.py")}
    params = airflow.request("GET", f"/dags/{DAG}/details")["params"]
    assert params["cluster"]["schema"]["enum"] == ["local", "far"]

    place = compose.folder / "ckpt" / "run-1" / checkpoint.name
    hold = Path("/results/hold")
    compose.scheduler(f"touch {hold}")
    overrides = ["wandb.mode=offline", *held(hold)]
    conf = {"checkpoint": str(place), "suite": "tiny", "max_problems": 10, "overrides": overrides}
    run = airflow.trigger(DAG, conf)
    rows = "cat /results/run-1/*/*/generations/*.jsonl 2>/dev/null || true"
    before = until(lambda: compose.scheduler(rows).splitlines(), "some rows", LONG)
    compose.run("restart", "--timeout=3", "scheduler")
    compose.scheduler(f"rm {hold}")
    assert airflow.wait(DAG, run) == "success"
    assert compose.scheduler("ls /results/.jobs/*generate*").split() == ["1", "2"], "it ended in the restart"
    after = compose.scheduler(rows).splitlines()
    assert len(after) == 90
    assert before[0] in after
    assert "tiny-arithmetic" in airflow.log(DAG, run, "report")

    select = (
        "SELECT run, name, benchmark FROM evalcore_evaluations e JOIN evalcore_checkpoints c"
        " ON c.id = e.checkpoint_id"
    )
    psql = ("exec", "-T", "postgres", "psql", "-U", "evalcore", "-d", "evalcore", "-Atc")
    assert compose.run(*psql, select).split() == [f"run-1|{checkpoint.name}|tiny-arithmetic"]
    assert "tiny-arithmetic" in compose.scheduler("evalcore history run-1")
    kept = compose.scheduler("find /opt/airflow/logs /results -type f -exec cat {} +")
    said = kept + compose.run("logs", "--no-color")
    assert not [name for name, value in compose.secrets.items() if value in said]
