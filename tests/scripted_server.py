"""A server whose every answer a test chooses, and the requests that tests of the client ask with."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from evalcore.client import Reply, Request, ask
from evalcore.config import Client, Sampling

CHECKPOINT = sorted((Path(__file__).parents[1] / "include/tiny/checkpoints").iterdir())[1]
CHAT = Sampling(tokens_to_generate=24, temperature=1.5, top_p=1.0)
GREEDY = CHAT.model_copy(update={"temperature": 0.0})

Answer = Callable[[dict[str, Any], int], web.StreamResponse | dict[str, Any]]


@contextmanager
def scripted(answer: Answer, seen: list[web.Request] | None = None) -> Iterator[str]:
    """A real HTTP server that answers the i-th request (from 0) with ``answer(body, i)``.

    seen: gets every request as it came.
    """
    count = iter(range(1_000_000))

    async def handle(request: web.Request) -> web.StreamResponse:
        if seen is not None:
            seen.append(request)
        said = answer(await request.json(), next(count))
        return web.json_response(said) if isinstance(said, dict) else said

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", handle)
        app.router.add_post("/v1/completions", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address.append(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
        ready.set()
        await asyncio.to_thread(stop.wait)
        await runner.cleanup()

    address: list[str] = []
    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield address[0]
    finally:
        stop.set()
        thread.join()


def completion(*texts: str, finish_reason: str = "stop", **rest: Any) -> dict[str, Any]:
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
        for i, text in enumerate(texts)
    ]
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, **rest}


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status, headers=headers)


def request(key: object = "a", problem: str = "Mia has 17 pens. Mia finds 25 more.", **rest: Any) -> Request:
    return Request(key, [{"role": "user", "content": problem}], rest.pop("sampling", CHAT), **rest)


def collect(
    address: str, *requests: Request, client: Client | None = None, model: str = CHECKPOINT.name
) -> list[Reply]:
    """Every reply, in the order of the requests' keys."""
    replies: list[Reply] = []
    ask(requests, replies.append, address=address, model=model, client=client or Client(concurrency=16))
    return sorted(replies, key=lambda reply: str(reply.request.key))
