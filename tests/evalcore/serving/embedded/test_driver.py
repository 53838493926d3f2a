from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from evalcore.errors import ServerError
from evalcore.serving.embedded.batch import Request
from evalcore.serving.embedded.driver import Driver
from evalcore.serving.embedded.server import load_service


@pytest.fixture
def driver(checkpoint: Path) -> Driver:
    return load_service(checkpoint, None, 2, None, "").driver


def request(max_tokens: int = 100, n: int = 1) -> Request:
    return Request([1, 2, 3], max_tokens=max_tokens, n=n, seed=1)


async def test_answers_come_as_they_finish(driver: Driver) -> None:
    await driver.start()
    order: list[int] = []

    async def ask(max_tokens: int) -> None:
        answered = await driver.answer(request(max_tokens))
        assert len(answered.result()[0].tokens) == max_tokens
        order.append(max_tokens)

    await asyncio.gather(ask(30), ask(5), ask(40))
    assert order == [5, 30, 40]
    await driver.answer(request(1))  # and it wakes up again after a rest
    await driver.stop()


@pytest.mark.slow
async def test_the_loop_goes_on_during_long_steps(driver: Driver) -> None:
    step, turned = driver.engine.step, threading.Event()

    def slow():  # type: ignore[no-untyped-def]
        time.sleep(0.2)  # what takes no time is done in the loop itself
        turned.clear()
        assert turned.wait(60), "only a loop that goes on says so"
        return step()

    driver.engine.step = slow  # type: ignore[method-assign]
    await driver.start()
    asked = asyncio.ensure_future(driver.answer(request(4)))
    while not asked.done():
        await asyncio.sleep(0.005)
        turned.set()
    assert (await asked).result()
    await driver.stop()


async def test_cancelling_frees_the_slots(driver: Driver) -> None:
    await driver.start()
    given_up = asyncio.ensure_future(driver.answer(request(n=1000)))
    await asyncio.sleep(0.05)
    given_up.cancel()
    await driver.answer(request(1))
    with pytest.raises(asyncio.CancelledError):
        await given_up
    await driver.stop()
    assert not driver.engine.busy


async def test_an_engine_that_dies_fails_everybody(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise MemoryError("no room")

    driver.engine.step = broken  # type: ignore[assignment,method-assign]
    await driver.start()
    answers = await asyncio.gather(*(driver.answer(request()) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ServerError] * 3
    with pytest.raises(ServerError, match="no room"):
        await driver.answer(request())
    assert "the engine died" in caplog.text
    assert isinstance(driver.failure, MemoryError)
    await driver.stop()


async def test_stopping_fails_what_is_not_finished(driver: Driver) -> None:
    await driver.start()
    waiting = asyncio.ensure_future(driver.answer(request(n=1000)))
    await asyncio.sleep(0.02)
    await driver.stop()
    with pytest.raises(ServerError, match="shutting down"):
        await waiting
    with pytest.raises(ServerError, match="shutting down"):
        await driver.answer(request())
