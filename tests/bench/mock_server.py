"""A server that answers like an OpenAI-compatible one and costs almost nothing, to measure clients with.

It has a number of slots, as an inference server has: each sample holds one for a time drawn from an
exponential distribution (mean ``--delay`` seconds), and waits for one while all are busy. ``GET /stats``
tells how much slot time was used since the last call::

    python tests/bench/mock_server.py --slots 512 --delay 0.5
    http://127.0.0.1:43121/v1
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections import deque

_ANSWER = "17 + 25 = 42. The answer is \\boxed{42}. " * 8


class Slots:
    """The server's slots, and how much of their time was used."""

    def __init__(self, slots: int, delay: float) -> None:
        self.slots = slots
        self.delay = delay
        self.free = slots
        self.waiting: deque[tuple[Connection, int]] = deque()
        self.random = random.Random(0)
        self.reset()

    def reset(self) -> None:
        self.served = 0
        self.busy = 0.0
        self.first = self.last = 0.0

    def stats(self) -> dict[str, float]:
        """samples served, seconds from the first request to the last answer, share of slot time used."""
        wall = self.last - self.first
        used = self.busy / (wall * self.slots) if wall else 0.0
        result = {"samples": self.served, "wall_s": wall, "slot_share": used}
        self.reset()
        return result

    def take(self, connection: Connection, n: int) -> None:
        now = asyncio.get_running_loop().time()
        self.first = self.first or now
        connection.pending, connection.n = n, n
        for _ in range(n):
            if self.free:
                self._start(connection)
            else:
                self.waiting.append((connection, 1))

    def _start(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        if not self.delay:
            self._count(0.0, loop.time())
            connection.sample_done()
            return
        self.free -= 1
        seconds = self.random.expovariate(1 / self.delay)
        loop.call_later(seconds, self._end, connection, seconds)

    def _end(self, connection: Connection, seconds: float) -> None:
        self._count(seconds, asyncio.get_running_loop().time())
        self.free += 1
        if self.waiting:
            self._start(self.waiting.popleft()[0])
        connection.sample_done()

    def _count(self, seconds: float, now: float) -> None:
        self.served += 1
        self.busy += seconds
        self.last = now


class Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection; requests on it come one after the other."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.buffer = b""
        self.pending = self.n = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            length = 0
            if (at := head.find(b"content-length:")) >= 0:
                length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"get /stats"):
            self._send(self.slots.stats())
        elif head.startswith(b"get "):
            self._send({"object": "list", "data": [{"id": "mock", "object": "model", "owned_by": "bench"}]})
        else:
            self.chat = b"/chat/" in head.split(b"\r\n", 1)[0]
            self.slots.take(self, int(json.loads(body).get("n") or 1))

    def sample_done(self) -> None:
        self.pending -= 1
        if self.pending == 0:
            self._send(completion(self.n, self.chat))

    def _send(self, content: object) -> None:
        payload = json.dumps(content).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(head % len(payload) + payload)


def completion(n: int, chat: bool) -> dict[str, object]:
    """An answer of n choices, of the size of a short solution."""
    said = {"message": {"role": "assistant", "content": _ANSWER}} if chat else {"text": _ANSWER}
    return {
        "id": "cmpl-1",
        "object": "chat.completion" if chat else "text_completion",
        "created": 1700000000,
        "model": "mock",
        "choices": [{"index": i, "finish_reason": "stop", "logprobs": None, **said} for i in range(n)],
        "usage": {"prompt_tokens": 40, "completion_tokens": 96 * n, "total_tokens": 40 + 96 * n},
    }


async def serve(host: str, port: int, slots: int, delay: float) -> None:
    state = Slots(slots, delay)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(state), host, port, backlog=4096)
    print(f"http://{host}:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--slots", type=int, default=512)
    parser.add_argument("--delay", type=float, default=0.0, help="mean seconds a sample takes")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.host, arguments.port, arguments.slots, arguments.delay))
