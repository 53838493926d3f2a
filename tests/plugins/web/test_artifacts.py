"""A webhook ends in the run that discovery would start; that a token is asked for is tested in tests/e2e."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
from airflow.api.common.trigger_dag import trigger_dag
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api import security
from airflow.api_fastapi.core_api.security import get_user
from airflow.exceptions import DagRunAlreadyExists
from fastapi import FastAPI
from fastapi.testclient import TestClient

from evalcore.discovery import Found, Listing, request
from evalcore.errors import CheckpointError
from evalcore.tracked import load_tracked
from web import artifacts

COLLECTION = "team/llama/checkpoints"


class Places:
    """In place of W&B: the version that an alias is at. lacks: what it lacks; away: W&B cannot be asked."""

    def __init__(self) -> None:
        self.lacks = ""
        self.away = False

    def __call__(self, artifact: str) -> Places:
        assert artifact in (f"{COLLECTION}:v12", f"{COLLECTION}:nightly")
        return self

    def list(self) -> Listing:
        if self.away:
            raise CheckpointError("wandb://team: timed out")
        return Listing([FOUND], [])

    def missing(self, found: Sequence[Found]) -> Sequence[str]:
        return [self.lacks] * len(found)


PLACE = f"wandb://{COLLECTION}:v12"
FOUND = Found(name="checkpoints-v12", step=1200, place=PLACE, checkpoint=PLACE)


class User:
    def get_name(self) -> str:
        return "wandb"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    made: dict[str, dict[str, Any]] = {}

    def trigger(dag_id: str, *, run_id: str, conf: dict[str, Any], **how: Any) -> None:
        assert (dag_id, how["triggering_user_name"]) == ("evaluate_checkpoint", "wandb")
        if run_id in made:
            raise DagRunAlreadyExists(type("Run", (), {"dag_id": dag_id, "run_id": run_id})())
        made[run_id] = conf

    # Airflow refuses arguments that it does not know, or misses.
    monkeypatch.setattr(artifacts, "trigger_dag", create_autospec(trigger_dag, side_effect=trigger))
    return made


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    (tmp_path / "tracked").mkdir()
    (tmp_path / "tracked" / "a.yaml").write_text("source: {path: /ckpt}\nsuite: tiny\n")
    (tmp_path / "tracked" / "llama.yaml").write_text(
        f"source: {{wandb: '{COLLECTION}:nightly', from_step: 1000}}\nsuite: tiny\n"
    )
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path))
    places = Places()
    monkeypatch.setattr(artifacts, "Artifacts", places)
    return places


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    app.include_router(artifacts.router)
    app.dependency_overrides[artifacts.router.routes[0].dependencies[0].dependency] = lambda: None
    app.dependency_overrides[get_user] = User
    return TestClient(app)


def test_it_is_the_run_that_discovery_would_start(
    client: TestClient, runs: dict[str, dict[str, Any]], places: Places
) -> None:
    asked = request(load_tracked("llama"), FOUND)
    for alias, is_new in (("v12", True), ("v12", False), ("nightly", False)):
        answer = client.post("/artifacts", json={"artifact": f"{COLLECTION}:{alias}"})
        assert (answer.status_code, answer.json()) == (
            200,
            {"dag_run_id": asked["trigger_run_id"], "is_new": is_new},
        )
    assert runs == {asked["trigger_run_id"]: asked["conf"]}


def test_it_is_for_those_who_may_start_that_run(
    runs: dict[str, Any], places: Places, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    class AuthManager:
        def is_authorized_dag(self, **what: Any) -> bool:
            asked.append({name: value for name, value in what.items() if name != "user"})
            return len(asked) > 1

    monkeypatch.setattr(security, "get_auth_manager", AuthManager)
    monkeypatch.setattr(security.DagModel, "get_team_name", lambda _: None)
    client.app.dependency_overrides.pop(artifacts.router.routes[0].dependencies[0].dependency)
    body = {"artifact": f"{COLLECTION}:v12"}
    assert client.post("/artifacts", json=body).status_code == 403
    assert not runs
    assert client.post("/artifacts", json=body).status_code == 200
    details = DagDetails(id="evaluate_checkpoint", team_name=None)
    assert asked == [{"method": "POST", "access_entity": DagAccessEntity.RUN, "details": details}] * 2


def test_a_file_that_cannot_be_used_is_not_the_end_of_the_others(
    client: TestClient, runs: dict[str, Any], places: Places, tmp_path: Path
) -> None:
    (tmp_path / "tracked" / "a-torn.yaml").write_text("suite: tiny\n")
    assert client.post("/artifacts", json={"artifact": f"{COLLECTION}:v12"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (
            {"artifact": "team/llama/other:v1"},
            404,
            "No training run in tracked/ has checkpoints in team/llama/other",
        ),
        ({"artifact": COLLECTION}, 422, "Of which version"),
        ({"artifact": "../../etc/passwd:v1"}, 422, "pattern"),
        ({"artifact": 12}, 422, "string"),
        ({}, 422, "required"),
    ],
)
def test_what_is_no_version_of_a_followed_artifact(
    client: TestClient, runs: dict[str, Any], places: Places, body: dict[str, Any], status: int, said: str
) -> None:
    answer = client.post("/artifacts", json=body)
    assert answer.status_code == status
    assert said in answer.text
    assert not runs


def test_one_that_is_not_complete_and_a_wandb_that_is_away(
    client: TestClient, runs: dict[str, Any], places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"artifact": f"{COLLECTION}:v12"}
    places.lacks = "no config.json"
    answer = client.post("/artifacts", json=body)
    assert (answer.status_code, answer.json()) == (409, {"detail": "no config.json"})
    places.lacks, places.away = "", True
    assert client.post("/artifacts", json=body).status_code == 503
    places.away = False
    early = FOUND.model_copy(update={"step": 999})
    monkeypatch.setattr(Places, "list", lambda self: Listing([early], []))
    answer = client.post("/artifacts", json=body)
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        f"{COLLECTION}:v12 is before the step that llama begins at",
    )
    assert not runs
