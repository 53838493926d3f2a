from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from evalcore import client as client_module
from evalcore.client import Reply, Request, UnansweredError, ask, backoff, get_json, retry_after
from evalcore.config import Client, Sampling
from evalcore.errors import ServerError
from evalcore.serving.embedded import running

CHECKPOINT = sorted((Path(__file__).parents[2] / "include/tiny/checkpoints").iterdir())[1]
CHAT = Sampling(tokens_to_generate=24, temperature=1.5, top_p=1.0)
GREEDY = CHAT.model_copy(update={"temperature": 0.0})

Answer = Callable[[dict[str, Any], int], web.StreamResponse | dict[str, Any]]


@contextmanager
def scripted(answer: Answer) -> Iterator[str]:
    """A real HTTP server that answers the i-th request (from 0) with ``answer(body, i)``."""
    count = iter(range(1_000_000))

    async def handle(request: web.Request) -> web.StreamResponse:
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
    assert ready.wait(10)
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


def collect(
    address: str, *requests: Request, client: Client | None = None, model: str = CHECKPOINT.name
) -> list[Reply]:
    replies: list[Reply] = []
    ask(requests, replies.append, address=address, model=model, client=client or Client(concurrency=16))
    return sorted(replies, key=lambda reply: str(reply.request.key))


def texts(replies: list[Reply]) -> list[list[str]]:
    return [[choice.text for choice in reply.choices] for reply in replies]


def request(key: object = "a", problem: str = "Mia has 17 pens. Mia finds 25 more.", **rest: Any) -> Request:
    return Request(key, [{"role": "user", "content": problem}], rest.pop("sampling", CHAT), **rest)


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_FIRST_BACKOFF", 0.005)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running(CHECKPOINT) as address:
        yield address


def test_group_and_singles_agree(server: str) -> None:
    [group] = collect(server, request(n=4, seed=10))
    singles = collect(server, *(request(i, seed=10 + i) for i in range(4)))

    assert [c.text for c in group.choices] == [s.choices[0].text for s in singles]
    assert len({c.text for c in group.choices}) > 1


def test_tokens_of_a_group_sum_to_what_the_server_counted(server: str) -> None:
    [group] = collect(server, request(n=4, seed=10))
    singles = collect(server, *(request(i, seed=10 + i) for i in range(4)))

    counted = [s.choices[0].num_tokens or 0 for s in singles]
    assert sum(c.num_tokens or 0 for c in group.choices) == sum(counted) > 40


def test_answer_cut_at_its_limit_has_all_its_tokens(server: str) -> None:
    short = CHAT.model_copy(update={"tokens_to_generate": 5})
    [reply] = collect(server, request(n=3, seed=1, sampling=short))

    assert [(c.finish_reason, c.num_tokens) for c in reply.choices] == [("length", 5)] * 3


def test_text_prompt_goes_to_completions(server: str) -> None:
    text = Request(
        "a",
        "<|begin|><|user|>1 + 1<|end|><|assistant|>",
        GREEDY.model_copy(update={"endpoint": "completions"}),
    )
    [reply] = collect(server, text)

    assert reply.choices[0].text
    assert reply.error is None


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


@pytest.mark.slow
def test_hang_ends_at_the_deadline() -> None:
    with running(CHECKPOINT, faults="hang:first=1") as address:
        started = time.monotonic()
        [reply] = collect(address, request(), client=Client(request_timeout=1.5))

    assert reply.choices
    assert time.monotonic() - started > 1.5


def test_server_that_only_hangs_is_given_up_after_two_deadlines() -> None:
    with (
        running(CHECKPOINT, faults="hang") as address,
        pytest.raises(ServerError, match=r"no answer in 2 attempts: no answer within 0.3 s"),
    ):
        collect(address, *map(request, range(4)), client=Client(request_timeout=0.3))


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


def test_ignored_n_falls_back_to_singles_and_says_so_once(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    requests = [request(i, n=3, seed=i) for i in range(5)]
    with running(CHECKPOINT, faults="ignore_n") as address:
        replies = collect(address, *requests, client=Client(concurrency=3))

    assert texts(replies) == texts(collect(server, *requests))
    assert [len(r.choices) for r in replies] == [3] * 5
    assert sum("asking for them one by one" in message for message in caplog.messages) == 1


def test_greedy_samples_are_asked_one_by_one() -> None:
    bodies: list[dict[str, Any]] = []

    def answer(body: dict[str, Any], i: int) -> dict[str, Any]:
        bodies.append(body)
        return completion("x")

    with scripted(answer) as address:
        [reply] = collect(address, request(sampling=GREEDY, n=3, seed=5))

    assert len(reply.choices) == 3
    assert [sorted(body) for body in bodies] == [["max_tokens", "messages", "model", "temperature"]] * 3


def test_settings_are_sent_as_asked() -> None:
    seen: list[dict[str, Any]] = []
    sampling = Sampling(
        temperature=0.6, top_p=0.9, top_k=20, tokens_to_generate=7, stop=("\n\n",), endpoint="completions"
    )

    def answer(body: dict[str, Any], i: int) -> dict[str, Any]:
        seen.append(body)
        return {"choices": [{"index": 1, "text": "b"}, {"index": 0, "text": "a"}]}

    with scripted(answer) as address:
        [reply] = collect(address, Request("k", "2 + 2 =", sampling, n=2, seed=3), model="m")

    assert seen == [
        {
            "model": "m", "prompt": "2 + 2 =", "max_tokens": 7, "temperature": 0.6, "top_p": 0.9, "top_k": 20,
            "stop": ["\n\n"], "seed": 3, "n": 2,
        }
    ]  # fmt: skip
    # In the order of the seeds, and nothing made up where the server says nothing.
    assert reply.choices == [("a", None, None), ("b", None, None)]


def test_context_overflow_is_this_requests_own(server: str) -> None:
    replies = collect(server, request(0), request(1, "pens " * 3000), request(2))

    assert [bool(r.choices) for r in replies] == [True, False, True]
    assert "context" in str(replies[1].error)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens",
        "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
        "The sum of prompt length (600.0) and max_tokens should not exceed max_num_tokens (512)",
        "the request exceeds the available context size, try increasing it",
    ],
)
def test_overflow_in_the_words_of_other_servers(message: str) -> None:
    with scripted(lambda body, i: refusal(400, message)) as address:
        [reply] = collect(address, request())

    assert reply == (reply.request, [], f"400 {message}")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, r"401 no \*\*\* here; put the server's key in TEST_KEY"),
        (403, r"put the server's key in TEST_KEY"),
        (404, rf"404 no \*\*\* here; check the address and the model's name '{CHECKPOINT.name}'"),
        (302, r"302 no \*\*\* here; check the address"),
        (400, r"refuses the request: 400 no \*\*\* here; change the setting"),
    ],
)
def test_what_concerns_everything_ends_the_run(
    status: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    with (
        scripted(lambda body, i: refusal(status, "no sk-secret here")) as address,
        pytest.raises(ServerError, match=expected) as caught,
    ):
        ask(
            [request()],
            print,
            address=address,
            model=CHECKPOINT.name,
            client=Client(),
            api_key_env="TEST_KEY",
        )

    assert address in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refusal_after_the_same_settings_were_accepted_is_this_requests_own() -> None:
    def answer(body: dict[str, Any], i: int) -> web.StreamResponse | dict[str, Any]:
        bad = body["messages"][0]["content"] == "bad"
        return refusal(400, "flagged") if bad else completion("fine")

    with scripted(answer) as address:
        replies = collect(address, request(0, "bad"), *map(request, range(1, 5)))

    assert [r.error for r in replies] == ["400 flagged", None, None, None, None]


def test_setting_that_only_samples_have_is_not_laid_at_their_prompts_door() -> None:
    def answer(body: dict[str, Any], i: int) -> web.StreamResponse | dict[str, Any]:
        return refusal(400, "seed is not supported") if "seed" in body else completion("fine")

    with scripted(answer) as address, pytest.raises(ServerError, match="seed is not supported"):
        collect(address, request(0, sampling=GREEDY), request(1, seed=1))


def test_newer_name_of_max_tokens() -> None:
    def answer(body: dict[str, Any], i: int) -> web.StreamResponse | dict[str, Any]:
        if "max_tokens" in body:
            return refusal(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return completion(str(body["max_completion_tokens"]))

    with scripted(answer) as address:
        replies = collect(address, *map(request, range(3)))

    assert [r.choices[0].text for r in replies] == ["24"] * 3


def test_request_that_always_fails_does_not_stop_the_others() -> None:
    def answer(body: dict[str, Any], i: int) -> web.StreamResponse | dict[str, Any]:
        time.sleep(0.002)  # the others take longer than the retries of the bad one
        bad = body["messages"][0]["content"] == "bad"
        return refusal(500, "worker lost") if bad else completion("fine")

    replies: list[Reply] = []
    with (
        scripted(answer) as address,
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
        scripted(lambda body, i: refusal(429, "quota", {"Retry-After": "86400"})) as address,
        pytest.raises(ServerError, match="asks to come back in 86,400 s"),
    ):
        collect(address, request())


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


def test_unknown_finish_reason_missing_usage_and_no_content_are_taken() -> None:
    answer = completion("x", finish_reason="abort")
    answer["choices"][0]["message"]["content"] = None
    with scripted(lambda body, i: answer) as address:
        [reply] = collect(address, request())

    assert reply.choices == [("", "abort", None)]


def test_concurrency_counts_samples() -> None:
    # One thread, so a plain counter is safe; the most that were in flight at once.
    flight = Counter[str]()

    async def slow(body: dict[str, Any]) -> None:
        flight["now"] += body.get("n", 1)
        flight["most"] = max(flight["most"], flight["now"])
        await asyncio.sleep(random.uniform(0, 0.02))
        flight["now"] -= body.get("n", 1)

    class Slow(web.Response):
        def __init__(self, body: dict[str, Any]) -> None:
            answer = web.json_response(completion(*["x"] * body.get("n", 1)))
            super().__init__(body=answer.body, content_type="application/json")
            self.asked = body

        async def prepare(self, request: web.BaseRequest) -> Any:
            await slow(self.asked)
            return await super().prepare(request)

    requests = [request(i, n=1 + i % 5, seed=0) for i in range(60)]
    with scripted(lambda body, i: Slow(body)) as address:
        replies = collect(address, *requests, client=Client(concurrency=10))

    assert len(replies) == 60
    assert 8 <= flight["most"] <= 10


def test_request_larger_than_the_concurrency_is_asked_alone(server: str) -> None:
    [reply] = collect(server, request(n=6, seed=0), client=Client(concurrency=4))

    assert len(reply.choices) == 6


def test_requests_are_taken_only_when_there_is_room(server: str) -> None:
    taken = done = ahead = 0

    def requests() -> Iterator[Request]:
        nonlocal taken, ahead
        for i in range(50):
            taken += 1
            ahead = max(ahead, taken - done)
            yield request(i)

    def handle(reply: Reply) -> None:
        nonlocal done
        done += 1

    ask(requests(), handle, address=server, model=CHECKPOINT.name, client=Client(concurrency=4))

    assert done == 50
    assert ahead <= 5


def test_what_handle_or_the_iterator_raises_ends_the_run(server: str) -> None:
    def full(reply: Reply) -> None:
        raise OSError("disk full")

    def broken() -> Iterator[Request]:
        yield request()
        raise LookupError("no such field")

    with pytest.raises(OSError, match="disk full"):
        ask(map(request, range(100)), full, address=server, model=CHECKPOINT.name, client=Client())
    with pytest.raises(LookupError, match="no such field"):
        ask(broken(), print, address=server, model=CHECKPOINT.name, client=Client())


def test_nobody_there() -> None:
    with pytest.raises(ServerError, match=r"http://127.0.0.1:9/v1: no answer in 3 attempts: Cannot connect"):
        collect("http://127.0.0.1:9/v1", *map(request, range(5)), client=Client(max_retries=2))


@pytest.mark.parametrize("address", ["localhost:8000/v1", "ftp://host/v1", "http://"])
def test_bad_address(address: str) -> None:
    with pytest.raises(ServerError, match="expected something like http://host:8000/v1"):
        collect(address, request())


async def test_works_where_a_loop_runs_already(server: str) -> None:
    # As in a notebook.
    [reply] = collect(server, request())

    assert reply.choices
    assert get_json(f"{server}/models")["data"][0]["id"] == CHECKPOINT.name


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
