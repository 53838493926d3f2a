"""The HTTP side: OpenAI's completions and chat completions over one engine.

- ``GET /health``: 200 while the engine lives; ``GET /version``: of evalcore
- ``GET /v1/models``: the one model, with its max_model_len
- ``POST /v1/completions``: continues text or token ids, one or a list of them
- ``POST /v1/chat/completions``: messages, rendered with the checkpoint's own template
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from tokenizers import Tokenizer

from evalcore import __version__
from evalcore.chat_template import ChatTemplate
from evalcore.errors import CheckpointError, ServerError
from evalcore.serving.embedded.answers import chat_choice, completion_choice
from evalcore.serving.embedded.batch import Pending, Request
from evalcore.serving.embedded.driver import Driver
from evalcore.serving.embedded.faults import Faults, Rule
from evalcore.serving.embedded.protocol import ChatBody, CompletionBody, RequestError, parse

log = logging.getLogger(__name__)

_MAX_BODY = 64 << 20
_NEVER = 10**9  # seconds


@dataclass
class Service:
    """What the handlers share. ``template`` is the reason where the checkpoint has no usable one."""

    driver: Driver
    tokenizer: Tokenizer
    template: ChatTemplate | CheckpointError
    model_name: str
    faults: Faults
    die: Callable[[], None] = lambda: None
    created: int = field(default_factory=lambda: int(time.time()))


SERVICE = web.AppKey("service", Service)
IGNORE_N = web.RequestKey("ignore_n", bool)


def application(service: Service) -> web.Application:
    """The web application; the engine is stepped while it runs."""
    app = web.Application(middlewares=[_errors, _misbehave], client_max_size=_MAX_BODY)
    app[SERVICE] = service
    app.on_startup.append(_start)
    app.on_shutdown.append(_stop)
    app.router.add_get("/health", _health)
    app.router.add_get("/version", _version)
    app.router.add_get("/v1/models", _models)
    app.router.add_post("/v1/completions", _completions)
    app.router.add_post("/v1/chat/completions", _chat_completions)
    return app


async def _start(app: web.Application) -> None:
    await app[SERVICE].driver.start()


async def _stop(app: web.Application) -> None:
    await app[SERVICE].driver.stop()


_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Answer every failure in OpenAI's shape."""
    try:
        return await handler(request)
    except RequestError as error:
        return web.Response(status=error.status, body=error.body(), content_type="application/json")
    except web.HTTPException as error:
        body = RequestError(f"{request.method} {request.path}: {error.reason}", status=error.status).body()
        return web.Response(status=error.status, body=body, content_type="application/json")
    except ServerError as error:
        body = RequestError(str(error), status=503).body()
        return web.Response(status=503, body=body, content_type="application/json")
    except Exception as error:
        log.exception("%s %s failed", request.method, request.path)
        body = RequestError(f"internal error: {error!r}", status=500).body()
        return web.Response(status=500, body=body, content_type="application/json")


@web.middleware
async def _misbehave(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Apply the fault this request falls under, if any."""
    service = request.app[SERVICE]
    rule = service.faults.next() if request.method == "POST" else None
    if rule is None:
        return await handler(request)
    if rule.kind in ("429", "500", "503"):
        return _refuse(rule)
    if rule.kind == "die":
        service.die()
    if rule.kind in ("hang", "die"):
        await asyncio.sleep(_NEVER)
    if rule.kind == "delay":
        await asyncio.sleep(rule.amount)
    while rule.kind == "hold" and os.path.exists(rule.file):
        await asyncio.sleep(0.02)
    if rule.kind == "ignore_n":
        request[IGNORE_N] = True
    if rule.kind == "drop":
        _hang_up(request)
        return web.Response()
    response = await handler(request)
    if rule.kind == "truncate":
        assert isinstance(response, web.Response)
        assert isinstance(response.body, bytes)
        cut = web.StreamResponse(status=response.status, headers={"Content-Type": "application/json"})
        cut.content_length = len(response.body)
        await cut.prepare(request)
        await cut.write(response.body[: len(response.body) // 2])
        _hang_up(request, wait=True)
        return cut
    return response


def _refuse(rule: Rule) -> web.Response:
    error = RequestError(f"fault on request: {rule.kind}", status=int(rule.kind))
    headers = {"Retry-After": f"{rule.amount:g}"} if rule.amount else {}
    return web.Response(
        status=error.status, body=error.body(), content_type="application/json", headers=headers
    )


def _hang_up(request: web.Request, *, wait: bool = False) -> None:
    """Close the connection, with ``wait`` after what was written is out."""
    if request.transport is not None:
        (request.transport.close if wait else request.transport.abort)()


async def _health(request: web.Request) -> web.Response:
    failure = request.app[SERVICE].driver.failure
    if failure is not None:
        raise RequestError(f"the engine died: {failure!r}", status=503)
    return web.Response()


async def _version(request: web.Request) -> web.Response:
    return _json({"version": __version__})


async def _models(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    model = {
        "id": service.model_name,
        "object": "model",
        "created": service.created,
        "owned_by": "evalcore",
        "max_model_len": service.driver.engine.max_length,
    }
    return _json({"object": "list", "data": [model]})


async def _completions(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    body = parse(CompletionBody, await request.read())
    if body.max_tokens == 0 and not body.echo:
        raise RequestError("max_tokens: must be at least 1 unless echo is true", param="max_tokens")
    texts: list[Any] = body.prompt if isinstance(body.prompt, list) else [body.prompt]
    prompts: list[str | list[int]] = [texts] if isinstance(texts[0], int) else texts
    requests = [
        Request(
            prompt=_encode(service, prompt, body.max_tokens, "prompt", special=body.add_special_tokens),
            max_tokens=body.max_tokens,
            logprobs=body.logprobs,
            prompt_logprobs=body.logprobs if body.echo else None,
            **_sampling(request, body),
        )
        for prompt in prompts
    ]
    answered = await _answer(service, body.model, requests)
    choices: list[dict[str, Any]] = []
    for prompt, done in zip(prompts, answered, strict=True):
        echoed = None
        if body.echo:
            echoed = prompt if isinstance(prompt, str) else service.tokenizer.decode(prompt)
        for sample in done.result():
            choices.append(
                completion_choice(
                    service.tokenizer,
                    len(choices),
                    sample,
                    done,
                    echoed=echoed,
                    logprobs=body.logprobs is not None,
                    token_ids=body.return_token_ids,
                )
            )
    return _response(service, "cmpl", "text_completion", choices, answered)


async def _chat_completions(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    body = parse(ChatBody, await request.read())
    if body.top_logprobs and not body.logprobs:
        raise RequestError("top_logprobs: needs logprobs to be true", param="top_logprobs")
    if isinstance(service.template, CheckpointError):
        raise RequestError(f"{service.template}; use /v1/completions", param="messages")
    try:
        text = service.template.render(
            [message.plain() for message in body.messages], add_generation_prompt=body.add_generation_prompt
        )
    except CheckpointError as error:
        raise RequestError(str(error), param="messages") from error
    max_tokens = body.max_completion_tokens or body.max_tokens
    prompt = _encode(service, text, max_tokens or 1, "messages", special=body.add_special_tokens)
    asked = Request(
        prompt=prompt,
        max_tokens=max_tokens or service.driver.engine.max_length - len(prompt),
        logprobs=body.top_logprobs if body.logprobs else None,
        **_sampling(request, body),
    )
    answered = await _answer(service, body.model, [asked])
    choices = [
        chat_choice(service.tokenizer, index, sample, logprobs=body.logprobs, token_ids=body.return_token_ids)
        for index, sample in enumerate(answered[0].result())
    ]
    return _response(service, "chatcmpl", "chat.completion", choices, answered)


def _sampling(request: web.Request, body: CompletionBody | ChatBody) -> dict[str, Any]:
    return {
        "n": 1 if IGNORE_N in request else body.n,
        "temperature": body.temperature,
        "top_k": max(body.top_k, 0),
        "top_p": body.top_p,
        "seed": secrets.randbits(63) if body.seed is None else body.seed,
        "stop": body.stop_strings(),
    }


def _encode(
    service: Service, prompt: str | list[int], max_tokens: int, param: str, *, special: bool
) -> list[int]:
    """The prompt's token ids, checked to be of the vocabulary and to leave room for the answer."""
    if isinstance(prompt, str):
        ids: list[int] = service.tokenizer.encode(prompt, add_special_tokens=special).ids
    else:
        ids = prompt
    if not ids:
        raise RequestError(f"{param}: empty, there is nothing to continue", param=param)
    vocabulary = service.driver.engine.model.config.vocab_size
    if max(ids) >= vocabulary:
        raise RequestError(f"{param}: token id {max(ids)} is not below {vocabulary}", param=param)
    limit = service.driver.engine.max_length
    if len(ids) + max_tokens > limit:
        raise RequestError(
            f"This model's maximum context length is {limit} tokens, but {len(ids)} tokens of {param} and "
            f"{max_tokens} of the answer were requested. Shorten the {param} or ask for fewer tokens.",
            param=param,
            code="context_length_exceeded",
        )
    return ids


async def _answer(service: Service, model: str, requests: list[Request]) -> list[Pending]:
    if model != service.model_name:
        raise RequestError(
            f"model {model!r} is not served here; valid: {service.model_name}",
            param="model",
            code="model_not_found",
            status=404,
        )
    return await asyncio.gather(*(service.driver.answer(request) for request in requests))


def _response(
    service: Service,
    prefix: str,
    kind: str,
    choices: list[dict[str, Any]],
    answered: list[Pending],
) -> web.Response:
    prompt_tokens = sum(len(done.request.prompt) for done in answered)
    completion_tokens = sum(len(sample.tokens) for done in answered for sample in done.result())
    return _json(
        {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": service.model_name,
            "choices": choices,
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            },
        }
    )


def _json(value: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
