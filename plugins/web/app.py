"""The web application of this project, below ``/evalcore`` of Airflow's API server."""

from __future__ import annotations

from fastapi import FastAPI

from web import artifacts, job_log

app = FastAPI(title="evalcore", docs_url=None, redoc_url=None, openapi_url=None)
for part in (artifacts, job_log):
    app.include_router(part.router)
