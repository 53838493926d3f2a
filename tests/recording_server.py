"""An OpenAI-compatible server that gives one answer to everything and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class RecordingServer(ThreadingHTTPServer):
    """requests: the bodies, the first of them the probe. on_request: called before each is answered.

    status: of every answer; not 200 is a refusal.
    """

    daemon_threads = True

    def __init__(self, text: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.text = text
        self.requests: list[dict[str, Any]] = []
        self.on_request: Callable[[], object] = lambda: None
        self.status = 200
        self.settings = {
            "type": "openai",
            "address": f"http://127.0.0.1:{self.server_address[1]}/v1",
            "model": "m",
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RecordingServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        self.server.on_request()
        text = self.server.text
        said = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
        choices = [{"index": i, "finish_reason": "stop", **said} for i in range(body.get("n", 1))]
        self._answer(
            self.server.status, {"choices": choices, "usage": {"completion_tokens": 5 * len(choices)}}
        )

    def do_GET(self) -> None:
        self._answer(404, {})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def recording(text: str = r"\boxed{4}") -> Iterator[RecordingServer]:
    """Serve on a free port in a thread."""
    with RecordingServer(text) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
