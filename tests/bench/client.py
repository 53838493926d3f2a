"""How busy clients keep a server: ours, the openai package's and lm-eval on the same loopback server.

    make bench-client

Three tables. Answers at once: what a client can do at most. Half a second on average and 512 slots, as a
GPU server has them: the share of slot time in use between the first request and the last answer is the
number that counts, the rest is a GPU that waits. Memory with 100,000 samples queued.

lm-eval comes from ``.venv-bench``, which is made if it can be; without it its rows are left out. The mock
server and each client are processes of their own; the server costs about 30 µs a request.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import peer
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LM_EVAL = "lm_eval[api]==0.4.13"
SLOTS = 512
# With 100,000 samples the others would take minutes each, and their queue is the caller's.
QUEUED = ("ours", "ours, n=4", "aiohttp alone", "lm-eval")


class Result(NamedTuple):
    client: str
    requests: int
    per_second: float
    slot_share: float
    cpu_ms: float
    peak_mb: float


def main() -> None:
    console = Console(width=110)
    clients = ["ours", "ours, n=4", "aiohttp alone", "AsyncOpenAI, aiohttp transport", "AsyncOpenAI"]
    if peer.installed(LM_EVAL, "lm_eval", console):
        clients.append("lm-eval")
    for title, delay, samples in (
        ("Answers at once, 512 in flight", 0.0, 10_000),
        # Slots run empty in the last three seconds whoever asks, so all get the same number.
        ("Answers after 500 ms on average, 512 slots", 0.5, 20_000),
    ):
        results = []
        for client in clients:
            console.print(f"[dim]{title}: {client} …[/]")
            results.append(_measure(client, delay, samples))
        console.print(_table(title, results, with_slots=delay > 0))
    console.print("[dim]100,000 samples queued …[/]")
    memory = [_measure(client, 0.0, 100_000) for client in clients if client in QUEUED]
    console.print(_table("100,000 samples queued, answers at once", memory, with_slots=False))


def _measure(client: str, delay: float, requests: int) -> Result:
    with _mock_server(delay) as address:
        python = str(peer.BENCH_PYTHON) if client == "lm-eval" else sys.executable
        command = [python, str(HERE / "client_worker.py"), client, address, str(requests), str(SLOTS)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            sys.exit(f"{client} failed:\n{done.stderr[-2000:]}")
        worker: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        with urllib.request.urlopen(address.removesuffix("/v1") + "/stats") as response:
            server = json.load(response)
    if server["samples"] != worker["answers"]:
        sys.exit(f"{client}: {worker['answers']} answers, but the server gave {server['samples']}")
    return Result(
        client=client,
        requests=requests,
        per_second=server["samples"] / server["wall_s"],
        slot_share=server["slot_share"],
        cpu_ms=1000 * worker["cpu_s"] / requests,
        peak_mb=worker["peak_mb"],
    )


@contextmanager
def _mock_server(delay: float) -> Iterator[str]:
    command = [sys.executable, str(HERE / "mock_server.py"), "--slots", str(SLOTS), "--delay", str(delay)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _table(title: str, results: list[Result], *, with_slots: bool) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("client")
    for heading in ("samples", "samples/s", "ours is", "slot time used", "CPU-s per 1,000", "peak MB"):
        if with_slots or heading != "slot time used":
            table.add_column(heading, justify="right")
    first = results[0]
    for result in results:
        cells = [
            result.client,
            f"{result.requests:,}",
            f"{result.per_second:,.0f}",
            f"{first.per_second / result.per_second:.1f}×",
            *([f"{result.slot_share:.2f}"] if with_slots else []),
            f"{result.cpu_ms:.2f}",
            f"{result.peak_mb:,.0f}",
        ]
        table.add_row(*cells)
    return table


if __name__ == "__main__":
    main()
