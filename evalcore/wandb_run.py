"""A checkpoint's W&B run, as ``track`` makes it: where it is, and alerts on it.

>>> run = find(checkpoint, Wandb(project="my-evals"))
>>> run.url
'https://wandb.ai/my-team/my-evals/runs/0a1b…'
>>> run.alert("llama-8b/step-1500: worse on gsm8k", "…")
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from evalcore.checkpoints import Checkpoint
from evalcore.errors import EvalError
from evalcore.settings import Wandb
from evalcore.track import import_wandb, quiet_settings, run_id

_ANSWER_SECONDS = 30.0
_TITLE = 63  # characters that W&B takes
# As wandb's own client sends it. Its Run.alert does not tell whether W&B has taken it, and needs the run to be
# resumed, which changes it.
_ALERT = """
mutation NotifyScriptableRunAlert(
  $entityName: String!, $projectName: String!, $runName: String!, $title: String!, $text: String!,
  $severity: AlertSeverity = INFO
) {
  notifyScriptableRunAlert(
    input: {
      entityName: $entityName, projectName: $projectName, runName: $runName, title: $title, text: $text,
      severity: $severity
    }
  ) { success }
}
"""


@dataclass(frozen=True)
class WandbRun:
    """One that is there. url: its page."""

    url: str
    entity: str
    project: str
    id: str
    server: str
    key: str = field(repr=False)

    def alert(self, title: str, text: str) -> None:
        """Have W&B tell those who asked for it (user settings, Slack or e-mail). EvalError if it does not."""
        import requests  # here: it comes with wandb

        names = {"entityName": self.entity, "projectName": self.project, "runName": self.id}
        said = {"title": title[:_TITLE], "text": text, "severity": "ERROR"}
        body: dict[str, Any] = {"query": _ALERT, "variables": {**names, **said}}
        try:
            # Followed, a POST becomes a GET, and whatever page answers that is none that has taken the alert.
            response = requests.post(
                f"{self.server}/graphql",
                json=body,
                auth=("api", self.key),
                timeout=_ANSWER_SECONDS,
                allow_redirects=False,
            )
            if response.status_code != HTTPStatus.OK:
                elsewhere = response.headers.get("Location")
                hint = f", it is at {elsewhere}: set WANDB_BASE_URL accordingly" if elsewhere else ""
                raise EvalError(f"W&B did not take the alert: {response.status_code} {response.reason}{hint}")
            answer = response.json()
        except requests.RequestException as error:
            raise EvalError(f"W&B cannot be asked for an alert: {error or type(error).__name__}") from None
        if not _is_success(answer):
            raise EvalError(f"W&B did not take the alert: {' '.join(str(answer).split())[:300]}")


def find(checkpoint: Checkpoint, settings: Wandb) -> WandbRun | None:
    """The run that ``track`` made of a checkpoint; None where there is none, or nothing is sent to W&B.

    Raises:
        EvalError: W&B cannot be asked.
    """
    mode = settings.mode or os.environ.get("WANDB_MODE") or "online"
    wandb = import_wandb() if mode == "online" else None
    if wandb is None:
        return None
    try:
        # As many tries as fit into the 19 s for which wandb waits. With its own 20 its process tries on for minutes,
        # and this one cannot end before that does.
        quiet_settings(wandb, x_graphql_retry_max=2)
        if not wandb.login(prompt=False, verify=False):
            return None
        api = wandb.Api()
        entity = settings.entity or api.default_entity
        id_ = run_id(checkpoint)
        try:
            url = api.run(f"{entity}/{settings.project}/{id_}").url
        except wandb.errors.CommError as error:
            if "Could not find run" in str(error):
                return None
            raise
    except (wandb.Error, ValueError, OSError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise EvalError(f"W&B cannot be asked for the run of {checkpoint.name}: {said[:300]}") from None
    if api.api_key is None:
        return None
    server = str(api.settings["base_url"])
    return WandbRun(url, str(entity), settings.project, id_, server, str(api.api_key))


def _is_success(answer: Any) -> bool:
    try:
        return answer["data"]["notifyScriptableRunAlert"]["success"] is True
    except (KeyError, TypeError):
        return False
