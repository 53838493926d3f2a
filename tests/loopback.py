"""An HTTP server on this machine for as long as a test wants it.

class Hello(Handler):
    def do_GET(self) -> None:
        self.reply(200, {"said": "hello"})

with serving(Hello) as address:
    urllib.request.urlopen(f"http://{address}/")
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """One that is quiet, and answers in JSON."""

    def log_message(self, *_: Any) -> None:
        return

    def reply(self, status: int, content: Any, **headers: str) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port until the end of the block; host and port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()
