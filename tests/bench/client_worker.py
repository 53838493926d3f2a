"""One client asking the mock server; prints one line of JSON. Started by ``client.py``, in either venv."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any

MESSAGES = [{"role": "user", "content": "What is 17 + 25? Put the answer inside \\boxed{}. " * 5}]
LIMIT = 96


def ours(address: str, requests: int, concurrency: int, n: int = 1) -> int:
    from evalcore.client import Reply, Request, ask
    from evalcore.config import Client, Sampling

    answers = 0

    def count(reply: Reply) -> None:
        nonlocal answers
        answers += len(reply.choices)

    sampling = Sampling(tokens_to_generate=LIMIT)
    todo = (Request(i, MESSAGES, sampling, n=n, seed=i) for i in range(requests // n))
    ask(todo, count, address=address, model="mock", client=Client(concurrency=concurrency))
    return answers


def ours_n4(address: str, requests: int, concurrency: int) -> int:
    return ours(address, requests, concurrency, n=4)


def aiohttp_alone(address: str, requests: int, concurrency: int) -> int:
    import aiohttp

    async def run() -> int:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def one(i: int) -> None:
                body = {"model": "mock", "messages": MESSAGES, "max_tokens": LIMIT, "seed": i}
                async with session.post(f"{address}/chat/completions", json=body) as response:
                    assert (await response.json())["choices"]

            return await _workers(one, requests, concurrency)

    return asyncio.run(run())


def openai_default(address: str, requests: int, concurrency: int) -> int:
    return _openai(address, requests, concurrency)


def openai_aiohttp(address: str, requests: int, concurrency: int) -> int:
    from openai import DefaultAioHttpClient

    return _openai(address, requests, concurrency, http_client=DefaultAioHttpClient())


def _openai(address: str, requests: int, concurrency: int, **options: Any) -> int:
    from openai import AsyncOpenAI

    async def run() -> int:
        async with AsyncOpenAI(base_url=address, api_key="EMPTY", timeout=600, **options) as client:

            async def one(i: int) -> None:
                answer = await client.chat.completions.create(
                    model="mock", messages=MESSAGES, max_tokens=LIMIT, seed=i  # type: ignore[arg-type]
                )  # fmt: skip
                assert answer.choices

            return await _workers(one, requests, concurrency)

    return asyncio.run(run())


async def _workers(one: Callable[[int], Awaitable[None]], requests: int, concurrency: int) -> int:
    todo = iter(range(requests))

    async def work() -> None:
        for i in todo:
            await one(i)

    await asyncio.gather(*(work() for _ in range(concurrency)))
    return requests


def lm_eval(address: str, requests: int, concurrency: int) -> int:
    from lm_eval.api.instance import Instance
    from lm_eval.models.api_models import JsonChatStr
    from lm_eval.models.openai_completions import LocalChatCompletion

    model = LocalChatCompletion(
        base_url=f"{address}/chat/completions", model="mock", num_concurrent=concurrency, eos_string="</s>"
    )
    settings = {"max_gen_toks": LIMIT, "until": ["</s>"]}
    prompt = json.dumps(MESSAGES)
    todo = [Instance("generate_until", {}, (JsonChatStr(prompt), dict(settings)), i) for i in range(requests)]
    return len(model.generate_until(todo, disable_tqdm=True))


CLIENTS = {
    "ours": ours,
    "ours, n=4": ours_n4,
    "aiohttp alone": aiohttp_alone,
    "AsyncOpenAI, aiohttp transport": openai_aiohttp,
    "AsyncOpenAI": openai_default,
    "lm-eval": lm_eval,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("address")
    parser.add_argument("requests", type=int)
    parser.add_argument("concurrency", type=int)
    arguments = parser.parse_args()
    client = CLIENTS[arguments.client]
    client(arguments.address, 8, 8)  # imports and first-time work are not what is measured
    urllib.request.urlopen(arguments.address.removesuffix("/v1") + "/stats").close()  # which starts its count
    started, cpu = time.perf_counter(), time.process_time()
    answers = client(arguments.address, arguments.requests, arguments.concurrency)
    result = {
        "answers": answers,
        "wall_s": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
