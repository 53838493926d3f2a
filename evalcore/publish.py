"""Ask Airflow to evaluate a checkpoint: what training calls when it has written one.

    $ export EVALCORE_AIRFLOW_URL=https://airflow.example.com EVALCORE_AIRFLOW_TOKEN=…
    $ evalcore publish /lustre/ckpt/llama-8b/step-1500 --run llama-8b --step 1500
    llama-8b/step-1500: run ckpt__llama-8b__step-1500__5f0c… is made

The run is the one that discovery would start, so that it does not matter which of them comes first, or how
often. Credentials come from the environment: EVALCORE_AIRFLOW_TOKEN, or EVALCORE_AIRFLOW_USER and
EVALCORE_AIRFLOW_PASSWORD.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from evalcore.discovery import at_path, missing, request
from evalcore.errors import CheckpointError, ConfigError, EvalError
from evalcore.settings import validated
from evalcore.tracked import Tracked, followed

log = logging.getLogger(__name__)

DAG_ID = "evaluate_checkpoint"
_ENVIRONMENT = "EVALCORE_AIRFLOW_"
_ANSWER_SECONDS = 60.0
_LONGEST_PAUSE = 30.0
_AWAY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
_VALUE = re.compile(r"[\x21-\x7e]+")


class PublishError(EvalError):
    """Airflow refuses a run, or cannot be asked."""


class Published(NamedTuple):
    """run_id: the run of Airflow that evaluates the checkpoint. is_new: there was none before."""

    run_id: str
    is_new: bool


def publish(
    path: str,
    training_run: str,
    *,
    step: int | None = None,
    suite: str | None = None,
    cluster: str | None = None,
    patience: float = 600.0,
) -> Published:
    """Have the checkpoint at a path evaluated, once.

    Args:
        step: by default the one in its name.
        suite, cluster: by default as the tracked file of the training run says.
        patience: seconds for which an Airflow that is away is asked again.

    Raises:
        CheckpointError: it is not complete, or cannot be named.
        ConfigError: nobody says which suite, or where Airflow is.
        PublishError: Airflow refuses, or is away for longer.
    """
    tracked = _tracked(training_run, path, suite, cluster)
    found = at_path(path)
    if reason := missing(Path(found.checkpoint), converted=tracked.converted):
        raise CheckpointError(reason)
    if step is not None:
        found = found.model_copy(update={"step": step})
    asked = request(tracked, found)
    body = {"dag_run_id": asked["trigger_run_id"], "logical_date": None, "conf": asked["conf"]}
    return Published(asked["trigger_run_id"], _Api.from_environment(patience).create_run(DAG_ID, body))


def _tracked(training_run: str, path: str, suite: str | None, cluster: str | None) -> Tracked:
    said = {key: value for key, value in (("suite", suite), ("cluster", cluster)) if value}
    files = list(followed())
    for tracked in files:
        if isinstance(tracked, Tracked) and tracked.training_run == training_run:
            return tracked.model_copy(update=said)
    if not suite:
        unread = "".join(f"; {error}" for error in files if isinstance(error, ConfigError))
        raise ConfigError(
            f"training run {training_run!r} has no file in tracked/ (EVALCORE_INCLUDE): give --suite, and "
            f"--cluster if it is not local, as they stand where Airflow follows it{unread}"
        )
    place = {"path": os.path.dirname(os.path.abspath(path))}
    return validated(Tracked, {"training_run": training_run, "source": place, **said}, "publish")


class _Api:
    """Airflow's REST API, asked again while it is away."""

    def __init__(self, url: str, patience: float) -> None:
        self.url = url.rstrip("/")
        self.deadline = time.monotonic() + patience

    @classmethod
    def from_environment(cls, patience: float) -> _Api:
        url = os.environ.get(f"{_ENVIRONMENT}URL", "")
        try:
            parts = urlsplit(url)
            is_whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # a port that is no number, half an IPv6 address
            is_whole = False
        if not is_whole or not _VALUE.fullmatch(url):
            raise ConfigError(f"{_ENVIRONMENT}URL: set it to the address of Airflow, as https://airflow:8080")
        if parts.username or parts.password:
            raise ConfigError(f"{_ENVIRONMENT}URL has credentials in it; set {_ENVIRONMENT}TOKEN instead")
        return cls(url, patience)

    def create_run(self, dag_id: str, body: dict[str, Any]) -> bool:
        """Whether a run was made; not if one of its id is there."""
        status, answer = self._post(f"/api/v2/dags/{dag_id}/dagRuns", body, self._token())
        if status == HTTPStatus.CONFLICT:
            return False
        if status != HTTPStatus.OK:
            raise PublishError(f"{self.url}: run of {dag_id}: {status} {_detail(answer)}")
        if not _names(answer, body["dag_run_id"]):
            # A proxy's page, a login: whoever it was, no run was made.
            raise PublishError(f"{self.url}: run of {dag_id}: what answers there is not Airflow")
        return True

    def _token(self) -> str:
        token, user, password = (os.environ.get(f"{_ENVIRONMENT}{n}") for n in ("TOKEN", "USER", "PASSWORD"))
        if token:
            if not _VALUE.fullmatch(token):
                raise ConfigError(
                    f"{_ENVIRONMENT}TOKEN is no token: a space, a line's end or the like is in it"
                )
            return token
        if not user or not password:
            raise ConfigError(f"set {_ENVIRONMENT}TOKEN, or {_ENVIRONMENT}USER and {_ENVIRONMENT}PASSWORD")
        status, answer = self._post("/auth/token", {"username": user, "password": password})
        try:
            if status not in (HTTPStatus.OK, HTTPStatus.CREATED):
                raise PublishError(f"{self.url}: login as {user}: {status} {_detail(answer)}")
            return str(json.loads(answer)["access_token"])
        except (ValueError, KeyError, TypeError):
            raise PublishError(f"{self.url}: login as {user}: no token in the answer") from None

    def _post(self, path: str, body: dict[str, Any], token: str = "") -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        asked = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        pause = 1.0
        while True:
            try:
                with _OPENER.open(asked, timeout=_ANSWER_SECONDS) as response:
                    return response.status, response.read()
            except urllib.error.HTTPError as error:
                answer = error.read()
                if elsewhere := 300 <= error.code < 400 and error.headers.get("Location"):
                    raise PublishError(
                        f"{self.url}: {error.code}, it is at {elsewhere}: set {_ENVIRONMENT}URL accordingly"
                    ) from None
                if error.code < 500 and error.code not in _AWAY:
                    return error.code, answer
                why = f"{error.code} {_detail(answer)}"
            except (OSError, HTTPException) as error:
                why = str(getattr(error, "reason", "") or error) or type(error).__name__
            # An answer that was lost is no harm: the run is there, then, and not made again.
            if time.monotonic() + pause > self.deadline:
                raise PublishError(f"{self.url} cannot be asked: {why}")
            log.warning("%s: %s; asking again in %.0f s", self.url, why, pause)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Followed, a POST would become a GET that makes no run, and the token go to whatever host is named."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def _names(answer: bytes, run_id: str) -> bool:
    try:
        return bool(json.loads(answer)["dag_run_id"] == run_id)
    except (ValueError, KeyError, TypeError):
        return False


def _detail(answer: bytes) -> str:
    try:
        text = str(json.loads(answer)["detail"])
    except (ValueError, KeyError, TypeError):
        text = answer.decode(errors="replace")
    return " ".join(text.split())[:300]
