"""``python -m airflow`` for tests of what starts it: every component of it runs, and its one run ends at once.

    PYTHONPATH=tests/fake_airflow FAKE_STATE=failed python include/demo/demo.py

FAKE_STATE: how every run ends, ``success`` or ``failed``. FAKE_PLAN: the folders that plan has returned, as JSON;
without it plan has failed, too. FAKE_WORSE: whether the last checkpoint is worse, which is confirmed and told.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen


def answer(method: str, path: str, body: Any) -> Any:
    """What the API answers, in the shape of Airflow 3's; None for 404."""
    state, plan = os.environ["FAKE_STATE"], os.environ.get("FAKE_PLAN")
    last = path.rpartition("/")[2]
    if last == "token":
        return {"access_token": "t"}
    if last == "health":
        return {part: {"status": "healthy"} for part in ("scheduler", "triggerer", "dag_processor")}
    if last == "importErrors":
        return {"import_errors": []}
    if last == "dags":
        return {"total_entries": 100}
    if last == "dagRuns":
        return {"dag_run_id": body["dag_run_id"]} if method == "POST" else {"dag_runs": []}
    if last == "taskInstances":
        task = {"map_index": -1, "duration": 1.0, "rendered_map_index": None}
        states = {"plan": "success" if plan else "failed", "compare": "success", "report": state}
        if "/confirm_regression/" in path:
            states = {"alert": "success"}
            tell(os.environ["AIRFLOW_CONN_DEMO_ALERTS"])
        return {"task_instances": [{"task_id": name, "state": it, **task} for name, it in states.items()]}
    if last == "failures":
        return {"value": ["plan: no such suite"] if state == "failed" else []}
    if last == "compared":
        return {"value": {"sentence": "tiny/step-002200 against tiny/step-001800: regressed"}}
    if "/compare/xcomEntries/" in path:
        return {"value": [{"trigger_run_id": "confirm__1"}] if os.environ.get("FAKE_WORSE") else []}
    if "/plan/xcomEntries/" in path:
        return {"value": [{"brings": [folder, folder]} for folder in json.loads(plan)]} if plan else None
    return {"state": state}  # a run's


def tell(connection: str) -> None:
    """What the alert's channel is sent."""
    channel = json.loads(connection)["extra"]["config"]["path"]
    body = json.dumps({"title": "worse", "message": "by 26.5 points"}).encode()
    urlopen(Request(channel.replace("json://", "http://"), body), timeout=10).close()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = answer(self.command, urlsplit(self.path).path, json.loads(content) if content else None)
        text = json.dumps(found or {"detail": "not found"}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET


def main() -> None:
    if sys.argv[1] == "api-server":
        Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]).write_text('{"admin": "x"}')
        port = int(os.environ["AIRFLOW__API__PORT"])
        ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
    elif sys.argv[1] != "db":
        signal.pause()


if __name__ == "__main__":
    main()
