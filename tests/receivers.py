"""Those who receive alerts, on loopback: a webhook, and a real mail server.

with webhook() as hook:
    hook.url  # for Apprise: json://127.0.0.1:8123/a-secret
    hook.received
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from typing import Any

from aiosmtpd.controller import Controller

from loopback import Handler, serving

SECRET = "a-secret-that-nothing-may-print"


@dataclass(slots=True)
class Webhook:
    """received: what was posted. answers: the statuses of the next requests, 200 after them; path: the last one's.

    go_on: answers wait until it is set. A redirect is to its own page, which anybody may GET.
    """

    url: str = ""
    path: str = ""
    received: list[dict[str, Any]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.go_on.set()


@contextmanager
def webhook() -> Iterator[Webhook]:
    hook = Webhook()

    class Hook(Handler):
        def do_GET(self) -> None:
            self.reply(200, None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = hook.answers.pop(0) if hook.answers else 200
            if status == 200:
                hook.received.append(json.loads(body))
            hook.path = self.path
            hook.go_on.wait(60)
            elsewhere = {"Location": f"http://{address}/login"} if 300 <= status < 400 else {}
            self.reply(status, {"asked": self.path}, **elsewhere)

    with serving(Hook) as address:
        hook.url = f"json://{address}/{SECRET}"
        yield hook


@dataclass
class Mailbox:
    url: str = ""
    received: list[EmailMessage] = field(default_factory=list)


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    box = Mailbox()

    class Inbox:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            box.received.append(BytesParser(EmailMessage, policy=default).parsebytes(envelope.content))
            return "250 taken"

    # The controller knocks at the port that it was given, which 0 is not; and a port that is let go is anybody's.
    kept = socket.socket()
    kept.bind(("127.0.0.1", 0))
    port = kept.getsockname()[1]

    class OnSocket(Controller):
        def _create_server(self) -> Any:
            return self.loop.create_server(self._factory_invoker, sock=kept)

    controller = OnSocket(Inbox(), hostname="127.0.0.1", port=port, ready_timeout=60)
    controller.start()
    try:
        box.url = f"mailto://127.0.0.1:{port}?from=evals@example.com&to=team@example.com&pass={SECRET}"
        yield box
    finally:
        controller.stop()
