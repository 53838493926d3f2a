"""What the engine's words and a job's result come to; tests/e2e/test_docker.py has both from a real engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from docker.errors import APIError, NotFound

from evalcore.errors import JobError
from evalcore.jobs import State
from evalcore.profiles import DockerProfile
from hooks.docker import _ids, _remove, _repository, _status

DONE = {"exit_code": 0, "signal": None, "terminated": False}
FAILED = {"exit_code": 3, "signal": None, "terminated": False}
KILLED = {"exit_code": None, "signal": 9, "terminated": False}
STOPPED = {"exit_code": 143, "signal": None, "terminated": True}


def status(tmp_path: Path, engine: dict[str, Any] | None, result: dict[str, Any] | None, *marks: str) -> str:
    text = json.dumps(result).ljust(511) + "\n" if result else " " * 512
    (tmp_path / "result.json").write_text(text)
    for mark in marks:
        (tmp_path / mark).touch()
    found = _status(tmp_path, {"State": engine} if engine is not None else None)
    return str(found)


def ended(code: int, **more: Any) -> dict[str, Any]:
    return {"Status": "exited", "ExitCode": code, "OOMKilled": False, **more}


@pytest.mark.parametrize(
    ("engine", "result", "said"),
    [
        # While it is there it runs, whatever it has written.
        ({"Status": "running"}, None, "running"),
        ({"Status": "running"}, FAILED, "running"),
        ({"Status": "paused"}, None, "running"),
        ({"Status": "restarting"}, None, "running"),
        ({"Status": "created"}, None, "running"),
        # The job's own word, also of one whose container is gone.
        (ended(0), DONE, "succeeded"),
        (None, DONE, "succeeded"),
        (ended(0, OOMKilled=True), DONE, "succeeded"),
        (None, FAILED, "failed with exit code 3"),
        (ended(137), KILLED, "killed by SIGKILL"),
        (ended(143), STOPPED, "killed by SIGTERM"),
        # What only the engine knows.
        (ended(137, OOMKilled=True), KILLED, "failed (out of memory)"),
        (ended(1, OOMKilled=True), {**FAILED, "exit_code": 137}, "failed (exit code 137, out of memory)"),
        (ended(137, OOMKilled=True), None, "failed (out of memory)"),
        (ended(137), None, "killed by SIGKILL"),
        (ended(127), None, "failed (its container ended with exit code 127)"),
        (ended(0), None, "lost"),
        (ended(255), None, "lost"),
        ({"Status": "dead", "ExitCode": 0}, None, "lost"),
        (None, None, "lost"),
    ],
)
def test_where_a_job_stands(
    tmp_path: Path, engine: dict[str, Any] | None, result: dict[str, Any] | None, said: str
) -> None:
    assert status(tmp_path, engine, result) == said


@pytest.mark.parametrize("engine", [None, ended(143), ended(137, OOMKilled=True), {"Status": "created"}])
@pytest.mark.parametrize("result", [None, STOPPED, FAILED])
def test_what_was_cancelled_is_cancelled_once_it_has_ended(
    tmp_path: Path, engine: dict[str, Any] | None, result: dict[str, Any] | None
) -> None:
    assert status(tmp_path, engine, result, "cancelled") == State.CANCELLED
    assert status(tmp_path, {"Status": "running"}, result) == State.RUNNING
    assert status(tmp_path, engine, DONE) == State.SUCCEEDED


class Busy:
    """An engine on which somebody else is removing a container, which ``wait`` sees gone or finds gone already."""

    def __init__(self, code: int, removed: Exception | None) -> None:
        self.code, self.removed = code, removed
        self.waited: list[object] = []

    def remove_container(self, name: str, **_: object) -> None:
        response = requests.Response()
        response.status_code = self.code
        raise APIError("removal of container is already in progress", response)

    def wait(self, name: str, *, timeout: float, condition: str) -> None:
        self.waited.append((name, condition))
        if self.removed:
            raise self.removed


@pytest.mark.parametrize("removed", [None, NotFound("gone")])
def test_a_container_that_somebody_else_removes_is_gone_afterwards(removed: Exception | None) -> None:
    engine: Any = Busy(409, removed)
    _remove(engine, "c")
    assert engine.waited == [("c", "removed")]
    engine = Busy(500, removed)
    with pytest.raises(APIError):
        _remove(engine, "c")
    assert engine.waited == []


@pytest.mark.parametrize(
    ("image", "asked"),
    [
        ("evalcore", ("evalcore", "latest")),
        ("evalcore:1", ("evalcore:1", None)),
        ("registry:5000/evalcore", ("registry:5000/evalcore", "latest")),
        ("registry:5000/evalcore:1", ("registry:5000/evalcore:1", None)),
        ("evalcore@sha256:0123", ("evalcore@sha256:0123", None)),
    ],
)
def test_one_tag_is_pulled(image: str, asked: tuple[str, str | None]) -> None:
    assert _repository(image) == asked


def test_who_runs_in_a_container() -> None:
    def ids(user: str) -> tuple[int, int]:
        return _ids(DockerProfile(name="d", executor="docker", container_image="i", user=user))

    assert (ids("1000:1001"), ids("1000")) == ((1000, 1001), (1000, 0))
    for user in ("me", "1000:staff"):
        with pytest.raises(JobError, match="docker profile d: write user as numbers"):
            ids(user)
