"""What this project adds to Airflow itself: the page behind *Job log*, see ``web.job_log``, what W&B tells of a new
checkpoint, see ``web.artifacts``, and the end of a job whose task is marked, see ``listeners.job``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin

import listeners.job

Message = MutableMapping[str, Any]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """The web application, imported at the first request: every task loads plugins, and none needs FastAPI."""
    from web.app import app as web_app

    await web_app(scope, receive, send)


class EvalcorePlugin(AirflowPlugin):
    """Registers them."""

    name = "evalcore"
    fastapi_apps = [{"app": app, "url_prefix": "/evalcore", "name": "evalcore"}]
    listeners = [listeners.job]
