"""The web application of this project, below ``/evalcore`` of Airflow's API server."""

from __future__ import annotations

from web import artifacts
from web.job_log import app

app.include_router(artifacts.router)

__all__ = ["app"]
