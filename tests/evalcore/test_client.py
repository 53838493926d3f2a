"""What is asked and what is made of the answers; refusals, retries and connections have files of their own."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from evalcore.client import Reply, Request, ask
from evalcore.config import Client, Sampling
from evalcore.serving.embedded import running
from scripted_server import CHECKPOINT, GREEDY, collect, completion, refusal, request, scripted


def texts(replies: list[Reply]) -> list[list[str]]:
    return [[choice.text for choice in reply.choices] for reply in replies]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running(CHECKPOINT) as address:
        yield address


def test_group_and_singles_agree(server: str) -> None:
    [group] = collect(server, request(n=4, seed=10))
    singles = collect(server, *(request(i, seed=10 + i) for i in range(4)))

    assert [c.text for c in group.choices] == [s.choices[0].text for s in singles]
    assert len({c.text for c in group.choices}) > 1


def test_tokens_of_a_group_are_counted_for_each_answer(server: str) -> None:
    [group] = collect(server, request(n=8, seed=10))
    singles = collect(server, *(request(i, seed=10 + i) for i in range(8)))

    counted = [s.choices[0].num_tokens for s in singles]
    assert [c.num_tokens for c in group.choices] == counted
    assert len(set(counted)) > 1


def test_where_only_the_sum_is_told_it_is_shared_out_by_length() -> None:
    def answer(body: dict[str, Any], i: int) -> dict[str, Any]:
        return completion("a" * 79, "b" * 19, "c" * 9, usage={"completion_tokens": 55})

    with scripted(answer) as address:
        [reply] = collect(address, request(n=3, seed=0))

    assert [c.num_tokens for c in reply.choices] == [40, 10, 5]


@pytest.mark.parametrize(("status", "message"), [(400, "Unrecognized request argument: {}"), (422, "{}?")])
def test_a_server_that_refuses_to_give_token_ids_is_asked_without(status: int, message: str) -> None:
    bodies: list[dict[str, Any]] = []

    def answer(body: dict[str, Any], i: int) -> web.StreamResponse | dict[str, Any]:
        bodies.append(body)
        if "return_token_ids" in body:
            return refusal(status, message.format("return_token_ids"))
        return completion("x", "y", usage={"completion_tokens": 4})

    with scripted(answer) as address:
        replies = collect(address, *(request(i, n=2, seed=i) for i in range(9)), client=Client(concurrency=6))

    assert [[c.num_tokens for c in reply.choices] for reply in replies] == [[2, 2]] * 9
    # The three that were under way when the first refusal came, and then none.
    assert ["return_token_ids" in body for body in bodies].count(True) == 3


def test_answer_cut_at_its_limit_has_all_its_tokens() -> None:
    cut = completion("a very long answer", "b", "c", usage={"completion_tokens": 40})
    cut["choices"][1]["finish_reason"] = "length"
    with scripted(lambda body, i: cut) as address:
        [reply] = collect(address, request(n=3, seed=1))

    assert [c.num_tokens for c in reply.choices] == [14, 24, 2]


def test_text_prompt_goes_to_completions(server: str) -> None:
    text = Request(
        "a",
        "<|begin|><|user|>1 + 1<|end|><|assistant|>",
        GREEDY.model_copy(update={"endpoint": "completions"}),
    )
    [reply] = collect(server, text)

    assert reply.choices[0].text
    assert reply.error is None


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
            "stop": ["\n\n"], "seed": 3, "n": 2, "return_token_ids": True,
        }
    ]  # fmt: skip
    # In the order of the seeds, and nothing made up where the server says nothing.
    assert reply.choices == [("a", None, None), ("b", None, None)]


def test_unknown_finish_reason_missing_usage_and_no_content_are_taken() -> None:
    answer = completion("x", finish_reason="abort")
    answer["choices"][0]["message"]["content"] = None
    with scripted(lambda body, i: answer) as address:
        [reply] = collect(address, request())

    assert reply.choices == [("", "abort", None)]


def test_concurrency_counts_samples() -> None:
    # One thread, so a plain counter is safe; the most that were in flight at once.
    flight = Counter[str]()
    full = asyncio.Event()

    async def slow(body: dict[str, Any]) -> None:
        flight["now"] += body.get("n", 1)
        flight["most"] = max(flight["most"], flight["now"])
        if flight["most"] >= 8:
            full.set()
        # However late they come, the first are answered when there is room for no more.
        await asyncio.wait_for(full.wait(), 60)
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
    assert flight["most"] <= 10


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
