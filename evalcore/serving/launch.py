"""Start an inference server, or find one that runs already, and stop what was started.

>>> with serving(Server(type="embedded"), folder, name="step-1500", log_file=Path("server.log")) as endpoint:
...     endpoint.address, endpoint.model
('http://127.0.0.1:40327/v1', 'step-1500')

A server counts as up when it has answered a real completion: ``/health`` can be fine while its workers
are dead. It lives in a process group of its own under ``supervise.py`` and ends with the block, or with
this process, however that ends.
"""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp

from evalcore.client import Reply, Request, UnansweredError, ask, get_json
from evalcore.config import Client, Sampling, Server
from evalcore.errors import ResultsError, ServerError
from evalcore.processes import start_supervised, stop_supervised
from evalcore.terminal import without_controls

log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
_POLL = 0.2
_LOG_LINES = 5
_DYING = 5.0
"""Seconds from when a server that dies answers no more to its end."""
# The server listens already, or is somebody else's: a completion of one token comes soon or never.
_PROBE = Client(request_timeout=120, max_retries=3)


class Endpoint(NamedTuple):
    """A server that answers. address ends in ``/v1``; version None: it does not tell."""

    address: str
    model: str
    type: str
    version: str | None


@contextmanager
def serving(server: Server, folder: Path | None, *, name: str, log_file: Path) -> Iterator[Endpoint]:
    """The endpoint of ``server``, started on the model in ``folder`` unless it has an address.

    name: what the model is to be called. log_file: what a server that is started prints; overwritten.

    Raises:
        ServerError: it did not start or died, with the last lines of its log, or answers no completion.
    """
    if server.address:
        yield _probe(server, server.address.rstrip("/"))
        return
    if folder is None:
        raise ServerError(f"server.type={server.type}: give a checkpoint to serve, or server.address")
    with _reserved_port() as port:
        command = server_command(server, folder, name=name, port=port)
        process = _start(command, log_file)
        log.info("starting %s server on port %d, log %s", server.type, port, log_file)
        started = time.monotonic()
        try:
            _wait_until_up(process, server, f"http://{_HOST}:{port}/v1", log_file)
            endpoint = _probe(server, f"http://{_HOST}:{port}/v1")
            log.info("%s server up after %.1f s", server.type, time.monotonic() - started)
            yield endpoint
        except ServerError as error:
            try:
                code = process.wait(_DYING)
            except subprocess.TimeoutExpired:
                raise error from None
            raise ServerError(
                f"the {server.type} server died (exit code {code}): {error}; {_last_lines(log_file)}"
            ) from None
        finally:
            stop_supervised(process)


def server_command(server: Server, folder: Path, *, name: str, port: int) -> list[str]:
    """The command line that serves ``folder`` on ``port``; ``server.args`` come last and so win."""
    return [*_COMMANDS[server.type](str(folder), name, str(port), server.gpus), *server.args]


def _embedded(folder: str, name: str, port: str, gpus: int) -> list[str]:
    serve = [sys.executable, "-m", "evalcore.cli", "serve", folder]
    return [*serve, "--host", _HOST, "--port", port, "--model-name", name]


def _vllm(folder: str, name: str, port: str, gpus: int) -> list[str]:
    # The module, not the `vllm` command: that one wants a distribution called vllm, and there are others.
    serve = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder]
    parallel = ["--tensor-parallel-size", str(gpus)] if gpus > 1 else []
    return [*serve, "--served-model-name", name, "--host", _HOST, "--port", port, *parallel]


def _sglang(folder: str, name: str, port: str, gpus: int) -> list[str]:
    serve = [sys.executable, "-m", "sglang.launch_server", "--model-path", folder]
    parallel = ["--tp-size", str(gpus)] if gpus > 1 else []
    return [*serve, "--served-model-name", name, "--host", _HOST, "--port", port, *parallel]


def _trtllm(folder: str, name: str, port: str, gpus: int) -> list[str]:
    # Calls the model by its folder's name; what it is called is asked of the server in any case.
    parallel = ["--tp_size", str(gpus)] if gpus > 1 else []
    return ["trtllm-serve", folder, "--host", _HOST, "--port", port, *parallel]


_COMMANDS = {"embedded": _embedded, "vllm": _vllm, "sglang": _sglang, "trtllm": _trtllm}


@contextmanager
def _reserved_port() -> Iterator[int]:
    """A free port that nobody else is given while it is held.

    A socket that is bound and never listens keeps the kernel from handing the port out again, and with both
    options set lets the server bind it too. Choosing a port and letting go of it would not do: vLLM binds
    with SO_REUSEPORT, so two of them on one port start happily and share each other's requests.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((_HOST, 0))
        yield holder.getsockname()[1]


def _start(command: list[str], log_file: Path) -> subprocess.Popen[bytes]:
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("wb") as output:
            return start_supervised(command, output)
    except OSError as error:
        raise ResultsError(f"cannot write {log_file}: {error.strerror}") from error


def _wait_until_up(process: subprocess.Popen[bytes], server: Server, address: str, log_file: Path) -> None:
    """Return when the server lists its models; ServerError when it exits or takes too long."""
    deadline = time.monotonic() + server.start_timeout
    while True:
        try:
            _models(server, address)
            return
        except (OSError, aiohttp.ClientError, ValueError):
            if process.poll() is not None:
                raise ServerError("it ended before it answered") from None
        if time.monotonic() > deadline:
            raise ServerError(
                f"the {server.type} server does not answer after {server.start_timeout:g} s "
                f"(server.start_timeout); {_last_lines(log_file)}"
            )
        time.sleep(_POLL)


def _probe(server: Server, address: str) -> Endpoint:
    """Have one token completed; as text, or as chat where text is not to be had."""
    model = server.model if server.address and server.model else _first_model(server, address)
    answers: list[Reply] = []
    refusals = []
    for prompt, sampling in (
        ("1", Sampling(endpoint="completions", temperature=0, tokens_to_generate=1)),
        ([{"role": "user", "content": "1"}], Sampling(temperature=0, tokens_to_generate=1)),
    ):
        request = Request(key=None, prompt=prompt, sampling=sampling)
        try:
            ask(
                [request], answers.append,
                address=address, model=model, client=_PROBE, api_key_env=server.api_key_env,
            )  # fmt: skip
        except UnansweredError as error:
            refusals.append(str(error))
            continue
        if answers[-1].error is None:
            return Endpoint(address, model, server.type, _version(server, address))
        refusals.append(str(answers[-1].error))
    raise ServerError(refusals[-1])


def _last_lines(log_file: Path) -> str:
    with log_file.open("rb") as stream:
        stream.seek(max(0, log_file.stat().st_size - 4000))
        tail = stream.read().decode(errors="replace")
    plain = [" ".join(without_controls(line).split())[:300] for line in tail.splitlines()]
    lines = [line for line in plain if line]
    return f"its log {log_file} ends with: {' | '.join(lines[-_LOG_LINES:]) or '(nothing)'}"


def _models(server: Server, address: str) -> list[str]:
    body = get_json(f"{address}/models", api_key_env=server.api_key_env)
    try:
        return [str(model["id"]) for model in body["data"]]
    except (TypeError, KeyError) as error:
        raise ValueError(f"{address}/models: not a list of models") from error


def _first_model(server: Server, address: str) -> str:
    try:
        return _models(server, address)[0]
    except (OSError, aiohttp.ClientError, ValueError, IndexError) as error:
        raise ServerError(
            f"{address}: does not list its models ({str(error) or type(error).__name__}); "
            "is it up? if it has no list, set server.model"
        ) from None


def _version(server: Server, address: str) -> str | None:
    """What vLLM, TensorRT-LLM and the embedded server tell at ``/version``; SGLang at ``/server_info``."""
    root = address.removesuffix("/v1")
    for path in ("version", "server_info"):
        try:
            return str(get_json(f"{root}/{path}", api_key_env=server.api_key_env)["version"])
        except (OSError, aiohttp.ClientError, ValueError, TypeError, KeyError):
            continue
    return None
