"""Start and stop the server: as a process of its own, or in a thread of a test.

    evalcore serve include/tiny/checkpoints/step-001800 --port 8000

    with running(checkpoint, faults="429:first=3") as base_url:
        OpenAI(base_url=base_url, api_key="none").models.list()

Arithmetic uses one core (OPENBLAS_NUM_THREADS=1) unless the environment says otherwise: the matrices
are too small to be worth sharing out.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from evalcore.errors import CheckpointError, ConfigError, ServerError

if TYPE_CHECKING:
    from evalcore.serving.embedded.api import Service

log = logging.getLogger(__name__)

# How long an answer under way may take to leave once the engine has stopped.
_SHUTDOWN_SECONDS = 0.1
# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 256 << 20


def serve(
    checkpoint: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    model_name: str | None = None,
    max_batch: int = 64,
    max_model_len: int | None = None,
    faults: str = "",
) -> None:
    """Serve a checkpoint until SIGTERM or SIGINT; one line on standard output says where.

    port 0 takes a free one. model_name defaults to the folder's name, max_model_len to the context that
    the model was trained for. max_batch: sequences decoded together. faults: see ``faults``.

    Raises:
        CheckpointError: the checkpoint is missing, incomplete, or not one that this server can run.
        ServerError: the address cannot be listened on.
        ConfigError: a setting is out of range.
    """
    _keep_freed_memory()
    service = load_service(checkpoint, model_name, max_batch, max_model_len, faults)
    service.die = lambda: os.kill(os.getpid(), signal.SIGKILL)
    asyncio.run(_serve_until_signal(service, host, port))


@contextmanager
def running(
    checkpoint: Path,
    *,
    model_name: str | None = None,
    max_batch: int = 64,
    max_model_len: int | None = None,
    faults: str = "",
) -> Iterator[str]:
    """Serve a checkpoint on a free port in a thread of this process; the value is its base URL.

    The URL ends in ``/v1``, as OpenAI's client wants it. The fault ``die`` closes the port and every
    connection. Raises what ``serve`` raises.
    """
    service = load_service(checkpoint, model_name, max_batch, max_model_len, faults)
    started: Future[str] = Future()
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()

    async def main() -> None:
        async with _listening(service, "127.0.0.1", 0) as (port, abort):
            service.die = abort
            started.set_result(f"http://127.0.0.1:{port}/v1")
            await stopping.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            try:
                runner.run(main())
            except BaseException as error:
                if started.done():
                    raise
                started.set_exception(error)

    thread = threading.Thread(target=run, name="evalcore-server", daemon=True)
    thread.start()
    base_url = started.result()
    try:
        yield base_url
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()


def load_service(
    checkpoint: Path,
    model_name: str | None,
    max_batch: int,
    max_model_len: int | None,
    faults: str,
) -> Service:
    """Load the model, its tokenizer and its template; nothing runs yet."""
    # Read by OpenBLAS and MKL when numpy is first imported, hence before the imports below.
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from evalcore.chat_template import ChatTemplate, load_tokenizer
    from evalcore.serving.embedded.api import Service
    from evalcore.serving.embedded.driver import Driver
    from evalcore.serving.embedded.engine import Engine
    from evalcore.serving.embedded.faults import Faults
    from evalcore.serving.embedded.model import Llama
    from evalcore.serving.embedded.weights import load_config, load_weights

    parsed_faults = Faults(faults)
    config = load_config(checkpoint)
    max_length = max_model_len or config.max_positions
    if max_batch < 1 or not 2 <= max_length <= config.max_positions:
        raise ConfigError(
            f"max_batch {max_batch}, max_model_len {max_length}: the first must be at least 1, the second "
            f"between 2 and the {config.max_positions} positions of checkpoint {checkpoint}"
        )
    tokenizer = load_tokenizer(checkpoint)
    template: ChatTemplate | CheckpointError
    try:
        template = ChatTemplate.load(checkpoint)
    except CheckpointError as error:
        log.warning("%s; /v1/chat/completions will refuse", error)
        template = error
    model = Llama(config, load_weights(checkpoint, config))
    return Service(
        driver=Driver(Engine(model, tokenizer, max_batch=max_batch, max_length=max_length)),
        tokenizer=tokenizer,
        template=template,
        model_name=model_name or checkpoint.resolve().name,
        faults=parsed_faults,
    )


@asynccontextmanager
async def _listening(service: Service, host: str, port: int) -> AsyncIterator[tuple[int, Callable[[], None]]]:
    """Run the engine and the web application; gives the port and what cuts every connection at once."""
    from aiohttp import web

    from evalcore.serving.embedded.api import application

    runner = web.AppRunner(
        application(service),
        handler_cancellation=True,  # a client that has gone frees its slots
        shutdown_timeout=_SHUTDOWN_SECONDS,
        access_log=None,
    )
    await runner.setup()
    assert runner.server is not None
    loop = asyncio.get_running_loop()
    try:
        listener = await loop.create_server(runner.server, host, port, backlog=1024)
    except OSError as error:
        await runner.cleanup()
        raise ServerError(f"cannot listen on {host}:{port}: {error.strerror}; choose another port") from error

    def abort() -> None:
        listener.close()
        for connection in list(runner.server.connections if runner.server else ()):
            if connection.transport is not None:
                connection.transport.abort()

    try:
        yield listener.sockets[0].getsockname()[1], abort
    finally:
        listener.close()
        await runner.cleanup()


async def _serve_until_signal(service: Service, host: str, port: int) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with _listening(service, host, port) as (bound, _):
        print(
            f"serving {service.model_name} on http://{host}:{bound}/v1 "
            f"(context {service.driver.engine.max_length} tokens)",
            flush=True,
        )
        await stopping.wait()


def _keep_freed_memory() -> None:
    """Tell glibc not to hand memory back after each step: getting it again costs a third of the time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
