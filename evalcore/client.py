"""Ask an OpenAI-compatible server many things at once; generate and judge both stand on it.

>>> requests = (Request(key=p.id, prompt=p.text, sampling=Sampling(endpoint="completions")) for p in problems)
>>> ask(requests, write_row, address="http://127.0.0.1:8000/v1", model="step-1500", client=Client())

Requests are taken from the iterator only when there is room for them, so a million of them cost no
memory, and each reply is handed over as soon as it is there, in no particular order.

Posted with aiohttp and read with the openai package's types. The package's own client takes 0.7 ms of
CPU for a request even on a transport that does nothing, and 1 ms on its aiohttp transport, of which a
server with 512 slots and half-second answers wants 1,024 a second; ``make bench-client`` compares them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import re
import resource
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from openai.types import Completion
from openai.types.chat import ChatCompletion

from evalcore.config import Client, Sampling
from evalcore.errors import ServerError
from evalcore.prompts import Message

log = logging.getLogger(__name__)

Prompted = str | list[int] | list[Message]
"""What a model is asked with: text or token ids for the completions endpoint, messages for chat."""
_T = TypeVar("_T")

_CONNECT_TIMEOUT = 30.0
# uvicorn, and so vLLM and SGLang, closes a connection that was idle for 5 s; a request posted on it at that
# moment is lost. Let go of it first.
_KEEPALIVE = 4.0
_FIRST_BACKOFF = 0.5
_LONGEST_BACKOFF = 60.0
_LONGEST_RETRY_AFTER = 3600.0
# Nobody shall wait longer for an overloaded server without a word, nor be told more often.
_SILENCE = 60.0
_RETRIED = frozenset({408, 409, 425, 429})  # and every 5xx
# How vLLM, SGLang, TensorRT-LLM, llama.cpp and OpenAI say that prompt and answer do not fit.
_OVERFLOW = re.compile(
    r"context.{0,20}(length|size|window)|max_(model|seq)_len|max_num_tokens|maximum.{0,30}length"
    r"|too long|longer than",
    re.IGNORECASE,
)
# A request that ran into its deadline twice, while no other was answered either: the server hangs.
_SILENT_TIMEOUTS = 2
# A refusal that is nobody's prompt's fault, and over when somebody has paid.
_UNPAID = re.compile(r"insufficient_quota|insufficient.{0,10}balance|billing|credit balance", re.IGNORECASE)
# Settings that no request was answered with yet may be refused for this one prompt's sake: look again.
_REFUSALS = 3


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to be answered n times.

    key: the caller's own. prompt: messages if ``sampling.endpoint`` is ``chat``, else text or ids. seed: of
    the first of the n samples, the i-th is drawn with seed + i. At temperature 0 none is sent.
    """

    key: Any
    prompt: Prompted
    sampling: Sampling
    n: int = 1
    seed: int | None = None


class Choice(NamedTuple):
    """One answer. num_tokens None: the server did not say.

    It is the server's count where an answer was asked for alone, or where the server gives the token ids
    of each (vLLM, the embedded one). Others tell only the sum over a request's n answers: it is
    shared out by their lengths, so that the sum is right and each is an estimate; an answer cut at its
    limit has ``tokens_to_generate``.
    """

    text: str
    finish_reason: str | None
    num_tokens: int | None


class Reply(NamedTuple):
    """The n choices of a request, in the order of their seeds; or none, and why it can never be answered."""

    request: Request
    choices: list[Choice]
    error: str | None = None


def ask(
    requests: Iterable[Request],
    handle: Callable[[Reply], None],
    *,
    address: str,
    model: str,
    client: Client,
    api_key_env: str = "OPENAI_API_KEY",
) -> None:
    """Have every request answered; ``handle`` gets each reply as it comes and is never called twice at once.

    ``client.concurrency`` counts samples: a request with n=4 holds 4 of them. What may pass (429, 5xx, a
    deadline, a dropped connection, half a body) is tried again with jittered back-off. A request that can
    never succeed becomes a Reply with an error. Whatever ``handle`` raises ends the run.

    Raises:
        ServerError: the server is dead.
        UnansweredError: it refuses everything (the key, the model, a setting), or all retries of some
            requests were used up, after all others have been handed over.
    """
    asking = _Asking(handle, address, model, client, api_key_env)
    _run(asking.run(requests))


def get_json(url: str, *, api_key_env: str = "OPENAI_API_KEY", timeout: float = 10.0) -> Any:
    """What a GET answers. Raises OSError or aiohttp.ClientError, TimeoutError among the first; ValueError."""

    async def get() -> Any:
        async with (
            _session(url, os.environ.get(api_key_env) or "EMPTY", timeout) as session,
            session.get(url, raise_for_status=True) as response,
        ):
            return orjson.loads(await response.read())

    return _run(get())


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:  # in a notebook, where a loop runs already
        return thread.submit(asyncio.run, work).result()


def _session(url: str, api_key: str, timeout: float) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE),
        timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=_CONNECT_TIMEOUT),
        headers={"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"},
        proxy=_proxy(url),
    )


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for an address; it is for the world outside, not for this machine.

    aiohttp's own way, ``trust_env``, reads the environment and ~/.netrc for each request, and refuses to
    send a key to a host that stands in the latter.
    """
    address = urlsplit(url)
    host = address.hostname or ""
    if host in {"localhost", "::1"} or host.startswith("127.") or proxy_bypass(host):
        return None
    return getproxies().get(address.scheme)


class UnansweredError(ServerError):
    """The server lives, but refuses these settings or left some requests unanswered; others may fare better."""


class _RetryLater(Exception):
    """An attempt failed in a way that may pass. wait: seconds the server asked for."""

    def __init__(self, reason: str, *, wait: float = 0.0, timeout: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.timeout = timeout


class _RefusedError(Exception):
    """The server will not answer this request as it is. own: surely for the prompt's sake."""

    def __init__(self, reason: str, *, own: bool) -> None:
        super().__init__(reason)
        self.own = own


class _GivenUpError(Exception):
    """All retries used up, while the server answered others."""


class _Asking:
    """One call of ``ask``."""

    def __init__(
        self, handle: Callable[[Reply], None], address: str, model: str, client: Client, api_key_env: str
    ) -> None:
        if urlsplit(address).scheme not in {"http", "https"} or not urlsplit(address).hostname:
            raise ServerError(f"server address {address!r}: expected something like http://host:8000/v1")
        self.handle = handle
        self.address = address.rstrip("/")
        self.model = model
        self.client = client
        self.api_key_env = api_key_env
        self.api_key = os.environ.get(api_key_env) or "EMPTY"
        self.grouped = client.group_samples
        self.limit_name = "max_tokens"
        self.token_ids = True  # until the server refuses to give them
        self.free = client.concurrency
        self.room = asyncio.Event()
        self.num_answers = 0
        self.accepted: set[bytes] = set()
        self.unanswered: list[str] = []
        self.warned = -math.inf

    async def run(self, requests: Iterable[Request]) -> None:
        _allow_open_files(self.client.concurrency)
        try:
            session = _session(self.address, self.api_key, self.client.request_timeout)
            async with session as self.session, asyncio.TaskGroup() as tasks:
                for request in requests:
                    samples = min(request.n, self.client.concurrency)
                    while self.free < samples:
                        self.room.clear()
                        await self.room.wait()
                    self.free -= samples
                    tasks.create_task(self._finish(request, samples))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        if self.unanswered:
            raise UnansweredError(
                f"{self.address}: requests not answered in {self.client.max_retries + 1} attempts: "
                f"{len(self.unanswered):,}, the last with: {self.unanswered[-1]}; "
                "all other answers are kept, run the same command again to ask for the missing ones"
            )

    async def _finish(self, request: Request, samples: int) -> None:
        try:
            self.handle(Reply(request, await self._answer(request)))
        except _RefusedError as refusal:
            self.handle(Reply(request, [], str(refusal)))
        except _GivenUpError as failure:
            self.unanswered.append(str(failure))
        finally:
            self.free += samples
            self.room.set()

    async def _answer(self, request: Request) -> list[Choice]:
        """All n choices: in one request where the server honours n, else one by one."""
        choices: list[Choice] = []
        # Greedy answers are all the same, and vLLM refuses n > 1 for them.
        if request.n == 1 or (self.grouped and request.sampling.temperature > 0):
            choices = await self._ask(request, request.n, request.seed)
            if len(choices) == request.n:
                return choices
            if self.grouped:
                self.grouped = False
                log.warning(
                    "%s gives %d of n=%d samples; asking for them one by one",
                    self.address, len(choices), request.n,
                )  # fmt: skip
        seeds = [None if request.seed is None else request.seed + i for i in range(len(choices), request.n)]
        singles = await asyncio.gather(
            *(self._ask(request, 1, seed) for seed in seeds), return_exceptions=True
        )
        for single in singles:
            if isinstance(single, BaseException):
                raise single
            choices += single
        return choices

    async def _ask(self, request: Request, n: int, seed: int | None) -> list[Choice]:
        """At least one choice and at most n, after as many attempts as it takes."""
        answers_before = self.num_answers
        started = time.monotonic()
        attempts = timeouts = refusals = 0
        while True:
            body = self._body(request, n, seed)
            settings = orjson.dumps(
                {k: v for k, v in body.items() if k not in {"messages", "prompt", "seed"}}
            )
            try:
                choices = await self._post(request, body, n)
            except _RefusedError as refusal:
                if "max_completion_tokens" in str(refusal) and "max_tokens" in body and "messages" in body:
                    self.limit_name = "max_completion_tokens"  # OpenAI's newer models know only this name
                    continue
                if "return_token_ids" in str(refusal) and "return_token_ids" in body:
                    self.token_ids = False
                    continue
                if refusal.own or settings in self.accepted:
                    raise
                refusals += 1
                if refusals == _REFUSALS:
                    raise UnansweredError(
                        f"{self.address}: refuses the request: {refusal}; change the setting it names"
                    ) from None
                pause = backoff(refusals)
            except _RetryLater as failure:
                attempts += 1
                timeouts += failure.timeout
                alive = self.num_answers > answers_before
                if attempts > self.client.max_retries or (timeouts >= _SILENT_TIMEOUTS and not alive):
                    if alive:
                        raise _GivenUpError(str(failure)) from None
                    raise ServerError(
                        f"{self.address}: no answer in {attempts} attempts: {failure}; answers so far are "
                        "kept, see to the server and run the same command again"
                    ) from None
                pause = failure.wait + backoff(attempts)
                self._warn_of_silence(started, attempts, failure, pause)
            else:
                self.num_answers += 1
                self.accepted.add(settings)
                return choices
            await asyncio.sleep(pause)

    def _warn_of_silence(self, started: float, attempts: int, failure: _RetryLater, pause: float) -> None:
        """Say why a request waits that will have waited long by its next attempt."""
        now = time.monotonic()
        if now + pause - started < _SILENCE or now - self.warned < _SILENCE:
            return
        self.warned = now
        log.warning(
            "%s: no answer for %s, attempt %d of %d: %s; trying again in %s",
            self.address, _clock(now - started), attempts, self.client.max_retries + 1, failure, _clock(pause),
        )  # fmt: skip

    def _body(self, request: Request, n: int, seed: int | None) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self.model,
            "messages" if sampling.endpoint == "chat" else "prompt": request.prompt,
            self.limit_name if sampling.endpoint == "chat" else "max_tokens": sampling.tokens_to_generate,
            "temperature": sampling.temperature,
        }
        # What says nothing is left out: the fewer the settings, the more servers take them.
        if n > 1:
            body["n"] = n
            if self.token_ids:
                body["return_token_ids"] = True  # the only way to learn how long each answer is
        if sampling.stop:
            body["stop"] = sampling.stop
        if sampling.temperature > 0:
            body["top_p"] = sampling.top_p
            if sampling.top_k:
                body["top_k"] = sampling.top_k
            if seed is not None:
                body["seed"] = seed
        return body

    async def _post(self, request: Request, body: dict[str, Any], n: int) -> list[Choice]:
        path = "chat/completions" if request.sampling.endpoint == "chat" else "completions"
        try:
            async with self.session.post(
                f"{self.address}/{path}", data=orjson.dumps(body), allow_redirects=False
            ) as response:
                content = await response.read()
        except aiohttp.ConnectionTimeoutError:
            raise _RetryLater(f"no connection within {_CONNECT_TIMEOUT:.0f} s") from None
        except TimeoutError:
            reason = f"no answer within {self.client.request_timeout:g} s (client.request_timeout)"
            raise _RetryLater(reason, timeout=True) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _RetryLater(str(error) or type(error).__name__) from None
        if response.status != 200:
            raise self._failure(response, content)
        try:
            return _choices(content, request.sampling, n)
        except (ValueError, TypeError, AttributeError):
            raise _RetryLater(f"not a completion: {_reason(content)}") from None

    def _failure(self, response: aiohttp.ClientResponse, content: bytes) -> Exception:
        """What a status other than 200 means."""
        status = response.status
        # A server may repeat the key it was given.
        reason = f"{status} {_reason(content)}".replace(self.api_key, "***")
        if status in {401, 403}:
            return UnansweredError(f"{self.address}: {reason}; put the server's key in {self.api_key_env}")
        if status in {404, 405} or 300 <= status < 400:
            return UnansweredError(
                f"{self.address}: {reason}; check the address and the model's name {self.model!r}"
            )
        if status == 402 or _UNPAID.search(reason):
            return UnansweredError(f"{self.address}: {reason}; the account of {self.api_key_env} is used up")
        if status >= 500 or status in _RETRIED:
            wait = retry_after(response.headers.get("Retry-After"))
            if wait > _LONGEST_RETRY_AFTER:
                return ServerError(f"{self.address}: {reason}; asks to come back in {wait:,.0f} s")
            return _RetryLater(reason, wait=wait)
        return _RefusedError(reason, own=bool(_OVERFLOW.search(reason)))


def backoff(attempt: int) -> float:
    """Seconds to wait after the attempt-th failure (from 1): exponential with full jitter.

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter" (2015).
    """
    return random.uniform(0, min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2**attempt))


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=math.ceil(seconds)))  # a wait that is told is never 0:00:00


def retry_after(header: str | None) -> float:
    """A Retry-After header in seconds from now: it is a number or a date (RFC 9110, 10.2.3); 0 if neither."""
    try:
        seconds = float(header or 0)
    except ValueError:
        try:
            date = parsedate_to_datetime(header or "")
        except ValueError:
            return 0.0
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return seconds if seconds > 0 else 0.0


def _choices(content: bytes, sampling: Sampling, n: int) -> list[Choice]:
    """The choices of an answer's body; ValueError, TypeError or AttributeError if it is something else."""
    body = orjson.loads(content)
    answer: ChatCompletion | Completion
    # construct() takes what the openai client takes: a finish reason of a newer server is no fault.
    if sampling.endpoint == "chat":
        answer = ChatCompletion.construct(**body)
        found = [_Found(c, c.message.content or "") for c in answer.choices]
    else:
        answer = Completion.construct(**body)
        found = [_Found(c, c.text) for c in answer.choices]
    if not 1 <= len(found) <= n or not all(isinstance(text, str) for _, text in found):
        raise ValueError("number or kind of choices")
    found.sort(key=lambda f: getattr(f.choice, "index", 0))
    reasons = [getattr(choice, "finish_reason", None) for choice, _ in found]
    texts = [text for _, text in found]
    tokens: Sequence[int | None] = [
        len(ids) for choice, _ in found if isinstance(ids := getattr(choice, "token_ids", None), list)
    ]
    if len(tokens) < len(found):
        total = getattr(answer.usage, "completion_tokens", None)
        tokens = _share_tokens(total, texts, reasons, sampling.tokens_to_generate)
    return [Choice(*parts) for parts in zip(texts, reasons, tokens, strict=True)]


class _Found(NamedTuple):
    choice: Any
    text: str


def _share_tokens(total: Any, texts: list[str], reasons: list[str | None], limit: int) -> list[int | None]:
    if not isinstance(total, int):
        return [None] * len(texts)
    if len(texts) == 1:
        return [total]
    tokens: list[int | None] = [limit if reason == "length" else None for reason in reasons]
    left = total - sum(count or 0 for count in tokens)
    weight = sum(len(text) + 1 for text, count in zip(texts, tokens, strict=True) if count is None)
    for i, text in enumerate(texts):
        if tokens[i] is None:
            share = max(0, round(left * (len(text) + 1) / weight))
            left, weight, tokens[i] = left - share, weight - len(text) - 1, share
    return tokens


def _reason(content: bytes) -> str:
    """What an error's body says, on one line."""
    text = content.decode(errors="replace")
    try:
        body = orjson.loads(content)
        said = body.get("error") or body.get("message") or body.get("detail")
        text = str(said.get("message") if isinstance(said, dict) else said or text)
    except (ValueError, AttributeError):
        pass  # plain text, HTML of a proxy, or half a body
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:299] + "…"


def _allow_open_files(connections: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))
