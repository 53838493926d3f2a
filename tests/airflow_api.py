"""A loopback stand-in for Airflow's REST API: runs that are made once, and a login.

with running() as server:
    subprocess.run(["evalcore", "publish", …], env={"EVALCORE_AIRFLOW_URL": server.url, …})
    server.runs["evaluate_checkpoint"]
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loopback import Handler, serving

TOKEN = "a-token-that-nothing-may-print"
USER, PASSWORD = "trainer", "a-password-that-nothing-may-print"


class Server:
    """runs: the bodies of what was made, by DAG and run id. faults: answered first, one a request.

    A fault is a status; 0 takes the request, does it, and hangs up without an answer. elsewhere: where to
    redirect all requests. gets: the authorization of each GET, which Airflow would answer with a list.
    """

    def __init__(self) -> None:
        self.url = ""
        self.runs: dict[str, dict[str, Any]] = {"evaluate_checkpoint": {}}
        self.faults: list[int] = []
        self.asked: list[str] = []
        self.elsewhere = ""
        self.gets: list[str | None] = []

    def answer(self, path: str, authorization: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path == "/auth/token":
            if (body["username"], body["password"]) != (USER, PASSWORD):
                return 401, {"detail": "Invalid credentials"}
            return 201, {"access_token": TOKEN}
        if authorization != f"Bearer {TOKEN}":
            return 401, {"detail": "Invalid auth token: Signature verification failed"}
        dag_id = path.split("/")[4]
        if dag_id not in self.runs:
            return 404, {"detail": f"Dag with dag_id: '{dag_id}' not found"}
        if body["dag_run_id"] in self.runs[dag_id]:
            return 409, {"detail": {"reason": "Unique constraint violation"}}
        if "suite" not in body["conf"]:
            return 400, {"detail": "Invalid input for param suite"}
        self.runs[dag_id][body["dag_run_id"]] = body
        return 200, body


@contextmanager
def running() -> Iterator[Server]:
    """Serve on a free loopback port until the end of the block."""
    server = Server()

    class Api(Handler):
        def do_GET(self) -> None:
            server.gets.append(self.headers.get("Authorization"))
            self.reply(200, {"dag_runs": [], "total_entries": 0})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append(self.path)
            if server.elsewhere:
                return self.reply(302, {}, Location=server.elsewhere + self.path)
            fault = server.faults.pop(0) if server.faults else None
            if fault:
                return self.reply(fault, {"detail": "away"})
            status, answer = server.answer(self.path, self.headers.get("Authorization") or "", body)
            if fault is None:
                self.reply(status, answer)
            else:
                self.close_connection = True
            return None

    with serving(Api) as address:
        server.url = f"http://{address}"
        yield server
