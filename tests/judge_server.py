"""A judge of our own over HTTP, whose answers depend on the question."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from evalcore.records import Row


class JudgeServer:
    """Says yes where 7 is asked about, nothing clear of "vague", and refuses "endless" as too long."""

    def __init__(self) -> None:
        self.questions: list[str] = []
        self.requests: list[Row] = []
        self.failures = 0
        self.dead_for: str | None = None
        self.address = ""

    async def answer(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        self.requests.append(body)
        (asked,) = re.findall(r"Student's answer:\n(.*)\n\nExplain", body["messages"][-1]["content"])
        if self.failures:
            self.failures -= 1
            return web.Response(status=500, text="overloaded")
        if asked == self.dead_for:
            return web.Response(status=401, text="who are you?")
        self.questions.append(asked)
        if asked == "endless":
            return web.json_response({"error": {"message": "maximum context length is 8"}}, status=400)
        words = {"vague": "I cannot tell."}.get(
            asked, f"Well. **Judgement**: {'yes' if '7' in asked else 'no'}."
        )
        choice = {"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"completion_tokens": 5}})


@contextmanager
def running_judge() -> Iterator[JudgeServer]:
    """Serve a judge on a free port in a thread; ``address`` is where."""
    server = JudgeServer()
    loop = asyncio.new_event_loop()
    started, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", server.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.address = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(60)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
