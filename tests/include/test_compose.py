"""What docker-compose.yaml needs before and beside its containers; those themselves are in e2e/."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from cluster_folder import cannot
from compose import healthy
from demo import packages
from loopback import Handler, serving

ROOT = Path(__file__).parents[2]
SECRETS = ["ADMIN_PASSWORD", "POSTGRES_PASSWORD", "API_SECRET_KEY", "JWT_SECRET", "FERNET_KEY"]


def make_env(folder: Path) -> dict[str, str]:
    subprocess.run(["make", "-s", "-f", ROOT / "Makefile", ".env"], cwd=folder, check=True)
    return dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())


def test_secrets_are_made_up_once_and_only_those_that_are_missing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("EVALCORE_RESULTS=/data\nPOSTGRES_PASSWORD=own\nJWT_SECRET=\n")
    made = make_env(tmp_path)
    assert made["POSTGRES_PASSWORD"] == "own"
    assert set(made) == {"EVALCORE_RESULTS", *SECRETS}
    assert all(made.values())


def test_secrets_are_private_and_of_use(tmp_path: Path) -> None:
    made = make_env(tmp_path)
    assert list(made) == SECRETS
    assert len(set(made.values())) == len(SECRETS)
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    Fernet(made["FERNET_KEY"])
    assert make_env(tmp_path) == made


@pytest.mark.slow
@pytest.mark.parametrize("missing", SECRETS)
def test_a_secret_that_is_missing_is_named_with_what_makes_it(tmp_path: Path, missing: str) -> None:
    if packages.missing_for_docker() or packages.missing_for_compose():
        cannot(packages.how_to_install(packages.missing_for_docker() + packages.missing_for_compose()))
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)} | dict.fromkeys(SECRETS, "x")
    command = [
        "docker",
        "compose",
        "--env-file=/dev/null",
        "-f",
        ROOT / "docker-compose.yaml",
        "config",
        "-q",
    ]
    assert subprocess.run(command, env=env, check=False).returncode == 0
    del env[missing]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode
    assert f"{missing} is missing a value: `make .env` makes one up" in done.stderr


@pytest.mark.parametrize(
    ("status", "said"), [("healthy", None), ("unhealthy", "triggerer: {'status': 'unhealthy'}")]
)
def test_a_part_is_healthy_if_airflow_says_so(
    monkeypatch: pytest.MonkeyPatch, status: str, said: str | None
) -> None:
    class Health(Handler):
        def do_GET(self) -> None:
            self.reply(200, {"triggerer": {"status": status}})

    with serving(Health) as address:
        monkeypatch.setattr(healthy, "HEALTH", f"http://{address}/")
        assert healthy.main("triggerer") == said
