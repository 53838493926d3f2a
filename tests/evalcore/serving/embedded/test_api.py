from __future__ import annotations

import asyncio
import math
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp.test_utils import TestServer

from evalcore import __version__
from evalcore.serving.embedded import running
from evalcore.serving.embedded.api import application
from evalcore.serving.embedded.server import load_service
from random_llama import write_llama

pytestmark = pytest.mark.slow

CHAT = [{"role": "user", "content": "1 + 1 = ?"}]
CHAT_PROMPT = "<|begin|><|user|>1 + 1 = ?<|end|><|assistant|>"
# Each byte is a token of the random model's, and each <|…|> is one.
CHAT_TOKENS = 4 + len("1 + 1 = ?")


@pytest.fixture(scope="module")
def base_url(checkpoint: Path) -> Iterator[str]:
    with running(checkpoint) as url:
        yield url


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=30) as client:
        yield client


async def test_health_after_the_engine_died(checkpoint: Path) -> None:
    service = load_service(checkpoint, None, 2, None, "")

    def broken() -> None:
        raise MemoryError("no room")

    service.driver.engine.step = broken  # type: ignore[assignment,method-assign]
    async with TestServer(application(service)) as server:
        url = f"http://127.0.0.1:{server.port}"
        assert (await get(f"{url}/health"))[0] == 200
        for _ in range(2):  # the one it died of, and one that comes later
            status, _, error = await post(f"{url}/v1", model=service.model_name)
            assert (status, error["error"]["message"]) == (503, "the engine died: MemoryError('no room')")
        status, error = await get(f"{url}/health")
        assert (status, error["error"]["type"]) == (503, "server_error")
        assert error["error"]["message"] == "the engine died: MemoryError('no room')"


def complete(client: openai.OpenAI, **fields: Any) -> openai.types.Completion:
    return client.completions.create(**({"model": "random-llama", "prompt": "2 + 2 ="} | fields))


def chat(client: openai.OpenAI, **fields: Any) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(**({"model": "random-llama", "messages": CHAT} | fields))


async def get(url: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        body = await response.read()
        return response.status, await response.json() if body else None


async def test_models_health_and_version(base_url: str) -> None:
    status, models = await get(f"{base_url}/models")
    assert status == 200
    assert [(m["id"], m["max_model_len"]) for m in models["data"]] == [("random-llama", 128)]
    root = base_url.removesuffix("/v1")
    assert await get(f"{root}/health") == (200, None)
    assert await get(f"{root}/version") == (200, {"version": __version__})
    status, error = await get(f"{base_url}/nothing")
    assert (status, error["error"]["type"]) == (404, "invalid_request_error")


def test_chat_equals_completion_of_the_rendered_template(client: openai.OpenAI) -> None:
    as_chat = chat(client, temperature=0, max_completion_tokens=12)
    as_text = complete(client, prompt=CHAT_PROMPT, temperature=0, max_tokens=12)
    assert as_chat.choices[0].message.content == as_text.choices[0].text
    assert as_chat.usage == as_text.usage
    assert as_chat.usage is not None
    assert (as_chat.usage.prompt_tokens, as_chat.usage.completion_tokens) == (CHAT_TOKENS, 12)
    assert as_chat.usage.total_tokens == CHAT_TOKENS + 12
    assert as_chat.choices[0].finish_reason == "length"


def test_chat_answers_up_to_the_context_by_default(client: openai.OpenAI) -> None:
    usages = [chat(client, seed=seed).usage for seed in range(3)]
    assert max(usage.total_tokens for usage in usages if usage) == 128


def test_completion_of_16_tokens_by_default(client: openai.OpenAI) -> None:
    usage = complete(client, temperature=0).usage
    assert usage is not None
    assert usage.completion_tokens == 16


def test_n_and_seed(client: openai.OpenAI) -> None:
    together = chat(client, n=5, seed=7, max_tokens=15).choices
    assert [choice.index for choice in together] == [0, 1, 2, 3, 4]
    alone = [chat(client, seed=7 + i, max_tokens=15).choices[0] for i in range(5)]
    assert [c.message.content for c in together] == [c.message.content for c in alone]
    assert len({c.message.content for c in together}) == 5
    unseeded = {chat(client, max_tokens=15).choices[0].message.content for _ in range(3)}
    assert len(unseeded) == 3


def test_two_servers_and_any_load_give_the_same_answers(checkpoint: Path, client: openai.OpenAI) -> None:
    def ask(client: openai.OpenAI, seed: int) -> str | None:
        return chat(client, seed=seed, temperature=seed % 2 * 0.9, max_tokens=25).choices[0].message.content

    expected = [ask(client, seed) for seed in range(12)]
    found: list[str | None] = [None] * 12
    with (
        running(checkpoint, max_batch=5) as url,
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as other,
    ):

        def work(seed: int) -> None:
            found[seed] = ask(other, seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == expected


def test_stop(client: openai.OpenAI) -> None:
    text = complete(client, temperature=0, max_tokens=40).choices[0].text
    for stop in (text[6:10], [text[20], text[6:10]]):
        choice = complete(client, temperature=0, max_tokens=40, stop=stop).choices[0]
        first = min(text.find(s) for s in ([stop] if isinstance(stop, str) else stop))
        assert choice.text == text[:first]
        assert choice.finish_reason == "stop"


def test_several_prompts_as_text_and_as_ids(client: openai.OpenAI) -> None:
    answered = complete(client, prompt=["abc", "xy"], n=2, seed=1, max_tokens=4)
    assert [choice.index for choice in answered.choices] == [0, 1, 2, 3]
    assert answered.usage is not None
    assert answered.usage.prompt_tokens == 5
    second = complete(client, prompt="xy", n=2, seed=1, max_tokens=4)
    assert [c.text for c in answered.choices[2:]] == [c.text for c in second.choices]
    ids = complete(client, prompt=[[64, 65], [64, 65]], temperature=0, max_tokens=4).choices
    (single,) = complete(client, prompt=[64, 65], temperature=0, max_tokens=4).choices
    assert [c.text for c in ids] == [single.text] * 2


def test_completion_log_probabilities_and_echo(client: openai.OpenAI) -> None:
    plain = complete(client, prompt="abc", temperature=0, max_tokens=5, logprobs=2).choices[0]
    assert plain.logprobs is not None
    assert plain.logprobs.tokens is not None
    assert len(plain.logprobs.tokens) == 5
    echoed = complete(client, prompt="abc", temperature=0, max_tokens=5, logprobs=2, echo=True).choices[0]
    assert echoed.text == "abc" + plain.text
    scores = echoed.logprobs
    assert scores is not None
    assert scores.tokens is not None
    assert scores.token_logprobs is not None
    assert scores.top_logprobs is not None
    assert scores.tokens == ["a", "b", "c", *plain.logprobs.tokens]
    assert scores.token_logprobs[0] is None
    assert all(value < 0 for value in scores.token_logprobs[1:] if value is not None)
    assert scores.text_offset is not None
    assert scores.text_offset[:4] == [0, 1, 2, 3]
    # Greedy: the chosen token is the likeliest, and it is among the alternatives.
    for token, value, top in zip(
        scores.tokens[3:], scores.token_logprobs[3:], scores.top_logprobs[3:], strict=True
    ):
        assert top is not None
        assert max(top.values()) == pytest.approx(value)
        assert token in top
    only = complete(client, prompt="abc", max_tokens=0, logprobs=0, echo=True)
    assert only.choices[0].text == "abc"
    assert only.choices[0].logprobs is not None
    assert only.choices[0].logprobs.token_logprobs == pytest.approx(scores.token_logprobs[:3], abs=1e-4)
    assert only.usage is not None
    assert only.usage.completion_tokens == 0
    unscored = complete(client, prompt="abc", max_tokens=0, echo=True)
    assert (unscored.choices[0].text, unscored.choices[0].logprobs) == ("abc", None)


def test_chat_log_probabilities(client: openai.OpenAI) -> None:
    choice = chat(client, temperature=0, max_tokens=5, logprobs=True, top_logprobs=3).choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert len(choice.logprobs.content) == 5
    for token in choice.logprobs.content:
        assert token.top_logprobs[0].token == token.token
        assert len(token.top_logprobs) == 3
        assert sum(math.exp(top.logprob) for top in token.top_logprobs) <= 1 + 1e-6
    assert chat(client, max_tokens=1).choices[0].logprobs is None


def test_special_tokens_are_added_on_request_only(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, processors

    folder = write_llama(tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", 256)]
    )
    tokenizer.enable_truncation(3)
    tokenizer.save(str(folder / "tokenizer.json"))
    with (
        running(folder, model_name="random-llama") as url,
        openai.OpenAI(base_url=url, api_key="x") as client,
    ):
        counts = [
            complete(client, prompt="abcdef", max_tokens=1, extra_body=extra).usage
            for extra in ({}, {"add_special_tokens": False})
        ]
        assert [usage.prompt_tokens for usage in counts if usage] == [7, 6]
        usage = chat(client, max_tokens=1).usage
        assert usage is not None
        assert usage.prompt_tokens == CHAT_TOKENS


@pytest.mark.parametrize(
    ("fields", "param", "code", "message"),
    [
        ({"stream": True}, "stream", "unsupported_parameter", "stream is not supported"),
        ({"extra_body": {"guided_regex": "a"}}, "guided_regex", None, "guided_regex is not a field"),
        ({"max_tokens": 128}, "prompt", "context_length_exceeded", "maximum context length is 128 tokens"),
        ({"prompt": "a" * 128}, "prompt", "context_length_exceeded", "128 tokens of prompt"),
        ({"prompt": [5, 260]}, "prompt", None, "token id 260 is not below 260"),
        ({"prompt": ""}, "prompt", None, "empty"),
        ({"max_tokens": 0}, "max_tokens", None, "unless echo"),
        ({"n": 0}, "n", None, "greater than or equal to 1"),
    ],
)
def test_refused(
    fields: dict[str, Any], param: str, code: str | None, message: str, client: openai.OpenAI
) -> None:
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        complete(client, **fields)
    assert (caught.value.param, caught.value.code) == (param, code)


def test_chat_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length is 128"):
        chat(client, messages=[{"role": "user", "content": "a" * 200}])
    with pytest.raises(openai.BadRequestError, match="top_logprobs: needs logprobs"):
        chat(client, top_logprobs=2)
    with pytest.raises(openai.NotFoundError, match="'gpt-9' is not served here; valid: random-llama"):
        chat(client, model="gpt-9")


def test_a_checkpoint_without_template_completes_but_does_not_chat(tmp_path: Path) -> None:
    folder = write_llama(tmp_path)
    (folder / "tokenizer_config.json").unlink()
    with (
        running(folder, model_name="random-llama") as url,
        openai.OpenAI(base_url=url, api_key="x") as client,
    ):
        assert complete(client, max_tokens=1).usage
        with pytest.raises(openai.BadRequestError, match=r"no chat template.*use /v1/completions"):
            chat(client)


async def test_a_client_that_goes_away_frees_its_slot(checkpoint: Path, base_url: str) -> None:
    body = {"model": "random-llama", "prompt": "abc", "max_tokens": 120, "n": 1000, "seed": 1}
    with running(checkpoint, max_batch=1) as url:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(TimeoutError):
                await session.post(f"{url}/completions", json=body, timeout=aiohttp.ClientTimeout(total=0.3))
            start = time.monotonic()
            async with session.post(f"{url}/completions", json=body | {"n": 1, "max_tokens": 1}) as response:
                assert response.status == 200
            # Nobody waited for its thousand answers, which take a minute.
            assert time.monotonic() - start < 30


# ---------------------------------------------------------------------------------------- faults


async def post(url: str, timeout: float = 60, **fields: Any) -> tuple[int, dict[str, str], Any]:
    body = {"model": "random-llama", "prompt": "abc", "max_tokens": 4} | fields
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{url}/completions", json=body, timeout=aiohttp.ClientTimeout(total=timeout)
        ) as response,
    ):
        return response.status, dict(response.headers), await response.json()


async def test_token_ids_of_each_answer(base_url: str) -> None:
    asked = {"n": 3, "seed": 1, "max_tokens": 30, "stop": "a", "temperature": 1.0}
    _, _, plain = await post(base_url, **asked)
    _, _, answer = await post(base_url, **asked, return_token_ids=True)
    assert [choice["token_ids"] for choice in plain["choices"]] == [None] * 3
    assert [choice["text"] for choice in answer["choices"]] == [choice["text"] for choice in plain["choices"]]
    lengths = [len(choice["token_ids"]) for choice in answer["choices"]]
    assert sum(lengths) == answer["usage"]["completion_tokens"]
    assert len(set(lengths)) > 1


@pytest.mark.parametrize("kind", ["429", "500", "503"])
async def test_refusals_come_and_go(kind: str, checkpoint: Path) -> None:
    with running(checkpoint, faults=f"{kind}:first=1") as url:
        assert (await get(f"{url}/models"))[0] == 200  # does not count
        status, headers, body = await post(url)
        assert status == int(kind)
        assert headers.get("Retry-After") == (None if kind == "500" else "1")
        assert kind in body["error"]["message"]
        assert (await post(url))[0] == 200


async def test_retry_after_of_openais_client(checkpoint: Path) -> None:
    with running(checkpoint, faults="429:first=1:retry_after=1.5") as url:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=1) as client:
            start = time.monotonic()
            await client.completions.create(model="random-llama", prompt="abc", max_tokens=1)
    assert time.monotonic() - start > 1.5  # left to itself, it waits half a second


async def test_hang_never_answers(checkpoint: Path) -> None:
    with running(checkpoint, faults="hang:first=1") as url:
        both = [asyncio.ensure_future(post(url)) for _ in range(2)]
        [answered], [waiting] = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        assert (await answered)[0] == 200
        await asyncio.wait([waiting], timeout=0.3)
        assert not waiting.done()
        start = time.monotonic()
    assert time.monotonic() - start < 60  # and does not keep the server from ending
    with pytest.raises(aiohttp.ClientError):
        await waiting


async def test_drop_closes_the_connection_without_an_answer(checkpoint: Path) -> None:
    with running(checkpoint, faults="drop:first=1") as url:
        with pytest.raises((aiohttp.ServerDisconnectedError, ConnectionResetError)):
            await post(url)
        assert (await post(url))[0] == 200


async def test_truncate_sends_half_of_the_body(checkpoint: Path) -> None:
    with running(checkpoint, faults="truncate:first=1") as url:
        with pytest.raises(aiohttp.ClientPayloadError):
            await post(url)
        assert (await post(url))[0] == 200


async def test_ignore_n(checkpoint: Path) -> None:
    with running(checkpoint, faults="ignore_n:every=2") as url:
        counts = [len((await post(url, n=3))[2]["choices"]) for _ in range(4)]
    assert counts == [3, 1, 3, 1]


async def test_delay(checkpoint: Path) -> None:
    with running(checkpoint, faults="delay:first=1:seconds=0.3") as url:
        start = time.monotonic()
        assert (await post(url))[0] == 200
        assert time.monotonic() - start > 0.3


async def test_hold_answers_when_the_file_is_gone(checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "hold"
    file.touch()
    with running(checkpoint, faults=f"hold:after=1:file={file}") as url:
        assert (await post(url))[0] == 200
        with pytest.raises(TimeoutError):
            await post(url, timeout=0.3)
        waiting = asyncio.ensure_future(post(url))
        await asyncio.wait([waiting], timeout=1)
        assert not waiting.done()
        file.unlink()
        assert (await waiting)[0] == 200


async def test_die_cuts_connections_and_closes_the_port(checkpoint: Path) -> None:
    with running(checkpoint, faults="hang:first=1,die:after=2") as url:
        both = [asyncio.ensure_future(post(url)) for _ in range(2)]
        [answered], [waiting] = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        assert (await answered)[0] == 200
        with pytest.raises(aiohttp.ClientError):
            await post(url)
        with pytest.raises(aiohttp.ClientError):
            await waiting
        port = int(url.removesuffix("/v1").rpartition(":")[2])
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
