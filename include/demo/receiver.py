"""A webhook on this machine, for the demo: keeps what alerts it gets.

>>> with Receiver() as receiver:
...     settings = {"AIRFLOW_CONN_DEMO": receiver.connection}
...     receiver.alerts()
['tiny/step-002200 got worse …']
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Receiver(ThreadingHTTPServer):
    """Serves on a free loopback port while its context lasts."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._alerts: list[str] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def connection(self) -> str:
        """The Airflow Connection of this channel."""
        config = {"path": f"json://127.0.0.1:{self.server_port}/", "tag": "alerts"}
        return json.dumps({"conn_type": "apprise", "extra": {"config": config}})

    def alerts(self) -> list[str]:
        """What was received so far, as text."""
        return list(self._alerts)

    def take(self, body: dict[str, Any]) -> None:
        self._alerts.append(f"{body['title']}\n\n{body['message']}")


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.take(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        return
