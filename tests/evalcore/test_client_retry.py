"""Failures that may pass: what is tried again, how often, how long it waits, and when it is given up."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from evalcore import client as client_module
from evalcore.client import Reply, UnansweredError, ask, backoff, retry_after
from evalcore.config import Client
from evalcore.errors import ServerError
from evalcore.serving.embedded import running
from scripted_server import CHECKPOINT, collect, completion, refusal, request, scripted

# They wait, as clients do.
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_FIRST_BACKOFF", 0.005)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running(CHECKPOINT) as address:
        yield address


@pytest.mark.parametrize(
    "faults",
    [
        "429:first=8:retry_after=0.01",
        "500:every=3",
        "503:every=4:retry_after=0.01",
        "drop:every=3",
        "truncate:every=3",
        "drop:0.1,truncate:0.1,500:0.1,429:0.1:retry_after=0.01",
    ],
)
def test_what_passes_is_tried_again(server: str, faults: str) -> None:
    requests = [request(i, f"Mia has {i} pens. Mia finds {i + 3} more.", n=2, seed=i) for i in range(12)]
    with running(CHECKPOINT, faults=faults) as bad_server:
        replies = collect(bad_server, *requests)

    assert replies == collect(server, *requests)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529, 599])
def test_statuses_that_may_pass(status: int) -> None:
    # More often than a refusal is looked at again.
    with scripted(lambda body, i: completion("fine") if i == 3 else refusal(status, "not now")) as address:
        [reply] = collect(address, request(), client=Client(max_retries=3))

    assert [c.text for c in reply.choices] == ["fine"]


@pytest.mark.slow
def test_hang_ends_at_the_deadline() -> None:
    with running(CHECKPOINT, faults="hang:first=1") as address:
        started = time.monotonic()
        [reply] = collect(address, request(), client=Client(request_timeout=3))

    assert reply.choices
    assert time.monotonic() - started > 3


@pytest.mark.slow
def test_server_that_only_hangs_is_given_up_after_two_deadlines() -> None:
    with (
        running(CHECKPOINT, faults="hang") as address,
        pytest.raises(ServerError, match=r"no answer in 2 attempts: no answer within 0.3 s"),
    ):
        collect(address, *map(request, range(4)), client=Client(request_timeout=0.3))


@pytest.mark.slow
def test_one_request_that_always_times_out_is_given_up_alone() -> None:
    class Late(web.Response):
        async def prepare(self, request: web.BaseRequest) -> Any:
            await asyncio.sleep(3)
            return await super().prepare(request)

    asked = Counter[str]()

    def answer(body: dict[str, Any], i: int) -> web.StreamResponse | dict[str, Any]:
        time.sleep(0.005)
        asked[body["messages"][0]["content"]] += 1
        return Late() if body["messages"][0]["content"] == "bad" else completion("fine")

    replies: list[Reply] = []
    with (
        scripted(answer) as address,
        pytest.raises(
            UnansweredError, match=r"not answered in 3 attempts: 1, the last with: no answer within"
        ),
    ):
        ask(
            [request(0, "bad"), *map(request, range(1, 80))],
            replies.append,
            address=address,
            model="m",
            client=Client(max_retries=2, concurrency=2, request_timeout=2),
        )

    assert len(replies) == 79
    assert asked["bad"] == 3


def test_server_that_dies_half_way_keeps_what_came_before() -> None:
    replies: list[Reply] = []
    with running(CHECKPOINT, faults="die:after=10") as address, pytest.raises(ServerError, match=address):
        ask(
            map(request, range(1000)),
            replies.append,
            address=address,
            model=CHECKPOINT.name,
            client=Client(concurrency=2, max_retries=3),
        )

    assert 8 <= len(replies) <= 10


def test_request_that_always_fails_does_not_stop_the_others() -> None:
    def answer(body: dict[str, Any], i: int) -> web.StreamResponse | dict[str, Any]:
        time.sleep(0.002)  # the others take longer than the retries of the bad one
        bad = body["messages"][0]["content"] == "bad"
        return refusal(500, "worker lost") if bad else completion("fine")

    replies: list[Reply] = []
    seen: list[web.Request] = []
    with (
        scripted(answer, seen) as address,
        pytest.raises(UnansweredError, match=r"not answered in 3 attempts: 1, .*500 worker lost"),
    ):
        ask(
            [request(0, "bad"), *map(request, range(1, 60))],
            replies.append,
            address=address,
            model="m",
            client=Client(max_retries=2, concurrency=4),
        )

    assert {r.request.key for r in replies} == set(range(1, 60))
    assert len(seen) == 59 + 3


@pytest.mark.parametrize("as_date", [False, True])
@pytest.mark.slow
def test_retry_after_is_the_least_it_waits(as_date: bool) -> None:
    times: list[float] = []

    def answer(body: dict[str, Any], i: int) -> web.StreamResponse | dict[str, Any]:
        times.append(time.monotonic())
        if i:
            return completion("x")
        later = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        return refusal(429, "slow down", {"Retry-After": later if as_date else "1"})

    with scripted(answer) as address:
        collect(address, request())

    assert times[1] - times[0] >= 0.99


def test_retry_after_hours_ends_the_run() -> None:
    with (
        scripted(lambda body, i: refusal(429, "quota", {"Retry-After": "3601"})) as address,
        pytest.raises(ServerError, match="asks to come back in 3,601 s"),
    ):
        collect(address, request())


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the client said; the server in this process logs too, where logging is set up."""
    return [record.getMessage() for record in caplog.records if record.name == client_module.__name__]


@pytest.mark.slow
def test_a_long_wait_says_so_once_a_minute_for_all_requests_together(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client_module, "_SILENCE", 0.15)  # a minute
    monkeypatch.setattr(client_module, "_LONGEST_BACKOFF", 0.01)
    refused = 40

    def answer(body: dict[str, Any], i: int) -> web.StreamResponse | dict[str, Any]:
        return completion("x") if i >= refused else refusal(429, "slow down", {"Retry-After": "0.04"})

    with scripted(answer) as address:
        started = time.monotonic()
        collect(address, *map(request, range(4)), client=Client(max_retries=50))
        minutes = (time.monotonic() - started) / 0.15

    warnings = told(caplog)
    # The first is told before its minute is over.
    assert 2 <= len(warnings) <= minutes + 1
    for message in warnings:
        assert re.fullmatch(
            re.escape(address)
            + r": no answer for 0:00:0[1-9], attempt \d+ of 51: 429 slow down; trying again in 0:00:0[1-9]",
            message,
        )


@pytest.mark.slow
def test_a_wait_that_will_be_long_is_told_before_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client_module, "_SILENCE", 4)

    def answer(body: dict[str, Any], i: int) -> web.StreamResponse | dict[str, Any]:
        seconds = ["0.05", "4"]
        return completion("x") if i == 2 else refusal(503, "loading", {"Retry-After": seconds[i]})

    with scripted(answer) as address:
        collect(address, request())

    [said] = told(caplog)
    assert re.search(r": no answer for 0:00:0\d, attempt 2 of 9: 503 loading;", said)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [{"message": "text"}]},
        {"choices": [{"message": {"content": 7}}]},
        completion("one", "too many"),
        {"object": "error", "message": "engine dead"},
    ],
)
def test_200_that_is_no_completion_is_tried_again(body: dict[str, Any]) -> None:
    with scripted(lambda _, i: completion("good") if i else body) as address:
        [reply] = collect(address, request())

    assert [c.text for c in reply.choices] == ["good"]


def test_backoff_grows_with_full_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_FIRST_BACKOFF", 0.5)
    means = [sum(backoff(attempt) for _ in range(2000)) / 2000 for attempt in (1, 2, 3, 20)]

    assert means == pytest.approx([0.5, 1.0, 2.0, 30.0], rel=0.1)


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, 0), ("", 0), ("7", 7), ("0.5", 0.5), ("-3", 0), ("soon", 0), ("nan", 0)]
)
def test_retry_after(header: str | None, seconds: float) -> None:
    assert retry_after(header) == seconds


def test_retry_after_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)

    assert 97 < retry_after(date) <= 100
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
