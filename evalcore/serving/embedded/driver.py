"""Steps the engine beside an event loop and hands each answer to whoever awaits it.

    driver = Driver(engine)
    await driver.start()
    answered = await driver.answer(Request(prompt=[1, 4, 90], max_tokens=50))
    answered.result()[0].tokens

Short steps run in the event loop's own thread: with a second thread the two take the interpreter's lock
from one another at every array operation, which costs a sixth of the throughput of a tiny model. A model
whose steps are long gets a thread, so that ``/health`` is answered meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time

from evalcore.errors import ServerError
from evalcore.serving.embedded.batch import Pending, Request
from evalcore.serving.embedded.engine import Engine

log = logging.getLogger(__name__)

_SHORT_STEP = 0.05  # seconds


class Driver:
    """Owns the engine while it runs; ``failure`` is what the engine died of."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.failure: Exception | None = None
        self._waiters: dict[Pending, asyncio.Future[Pending]] = {}
        self._work = asyncio.Event()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Step no more; what is not answered yet fails with ServerError."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self._fail("the server is shutting down")

    async def answer(self, request: Request) -> Pending:
        """The request with its samples; cancelling this frees the slots they hold.

        Raises:
            ServerError: the engine died or stopped.
        """
        if self._task.done():
            raise ServerError(
                f"the engine died: {self.failure!r}" if self.failure else "the server is shutting down"
            )
        pending = self.engine.submit(request)
        waiter: asyncio.Future[Pending] = asyncio.get_running_loop().create_future()
        self._waiters[pending] = waiter
        self._work.set()
        try:
            return await waiter
        finally:
            if pending.missing:
                self.engine.cancel(pending)
            self._waiters.pop(pending, None)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        short = False  # the first step, not known yet, may be a long one
        try:
            while True:
                if not self.engine.busy:
                    self._work.clear()
                    await self._work.wait()
                start = time.perf_counter()
                step = self.engine.step
                finished = step() if short else await loop.run_in_executor(None, step)
                short = time.perf_counter() - start < _SHORT_STEP
                for pending in finished:
                    waiter = self._waiters.get(pending)
                    if waiter is not None and not waiter.done():
                        waiter.set_result(pending)
                # One turn of the loop sends these answers, the next reads what clients sent meanwhile.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        except Exception as error:  # a bug or out of memory: nobody may wait for an answer for ever
            log.exception("the engine died")
            self.failure = error
            self._fail(f"the engine died: {error!r}")

    def _fail(self, reason: str) -> None:
        for waiter in self._waiters.values():
            if not waiter.done():
                waiter.set_exception(ServerError(reason))
