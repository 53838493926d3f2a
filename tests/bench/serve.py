"""How fast the embedded server answers, beside what the bare model can decode on one core.

    python tests/bench/serve.py            (make bench-serve)

``decode`` is the model alone, 64 sequences stepped together in this process, each token sampled at
temperature 0.8: no prompts, no end of text, no HTTP. ``server`` is the same model in a process of its own
behind HTTP, 64 chat requests in flight, at temperature 0.8; it counts the tokens of the answers only, so
feeding the prompts is its loss. It is asked twice: for 8 samples of each problem one after the other, as
an evaluation does, when the samples share their prompt's prefill; and for one sample of each problem in
turn, when nothing is shared.

Both use one core for arithmetic. ``cpu_seconds`` counts the CPU time of the process in place of the
clock's: on a machine that is busy with other things it is the figure to trust.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import numpy as np
import psutil

from evalcore.serving.embedded.model import KVCache, Llama, Span
from evalcore.serving.embedded.sampling import Sampling, choose
from evalcore.serving.embedded.weights import load_config, load_weights

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "include" / "tiny" / "checkpoints" / "step-001800"
PROBLEMS = ROOT / "include" / "benchmarks" / "tiny-arithmetic.jsonl"
CONCURRENCY = 64
SAMPLES = 8
MAX_TOKENS = 64
TEMPERATURE = 0.8
_SERVE = "import sys; from pathlib import Path; from evalcore.serving.embedded import serve; "


class Rate(NamedTuple):
    """Answers, their tokens and those of the prompts, the seconds and CPU-seconds that they took."""

    answers: int
    prompt_tokens: int
    tokens: int
    seconds: float
    cpu_seconds: float


def decode(checkpoint: Path, like: Rate) -> Rate:
    """The model alone, as long as ``like`` took, over contexts as long as its requests had."""
    config = load_config(checkpoint)
    model = Llama(config, load_weights(checkpoint, config))
    cache = KVCache(config, CONCURRENCY, config.max_positions)
    prompt = np.arange(like.prompt_tokens // like.answers) % config.vocab_size
    none = np.array([], np.int64)
    model.forward(cache, none, none, [Span(slot, 0, prompt) for slot in range(CONCURRENCY)])
    tokens, steps = np.zeros(CONCURRENCY, np.int64), 0
    sampling = Sampling(
        temperature=np.full(CONCURRENCY, TEMPERATURE),
        top_k=np.zeros(CONCURRENCY, np.int64),
        top_p=np.ones(CONCURRENCY),
        seed=np.arange(CONCURRENCY, dtype=np.uint64),
    )
    start, cpu_start = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < like.seconds:
        position = len(prompt) + steps % (like.tokens // like.answers)
        logits = model.forward(cache, tokens, np.full(CONCURRENCY, position))
        tokens = choose(logits, sampling, np.full(CONCURRENCY, steps))
        steps += 1
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return Rate(0, 0, CONCURRENCY * steps, seconds, cpu_seconds)


def ask(server: psutil.Process, base_url: str, bodies: list[dict[str, Any]]) -> Rate:
    """Send the requests, CONCURRENCY of them in flight."""
    waiting = bodies[::-1]
    usages: list[dict[str, int]] = []

    async def work(session: aiohttp.ClientSession) -> None:
        while waiting:
            async with session.post(f"{base_url}/chat/completions", json=waiting.pop()) as response:
                response.raise_for_status()
                usages.append((await response.json())["usage"])

    async def main() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(work(session) for _ in range(CONCURRENCY)))

    start, cpu_start = time.perf_counter(), sum(server.cpu_times()[:2])
    asyncio.run(main())
    seconds, cpu_seconds = time.perf_counter() - start, sum(server.cpu_times()[:2]) - cpu_start
    prompt_tokens, tokens = (
        sum(usage[name] for usage in usages) for name in ("prompt_tokens", "completion_tokens")
    )
    return Rate(len(usages), prompt_tokens, tokens, seconds, cpu_seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", type=Path, default=CHECKPOINT)
    checkpoint = parser.parse_args().checkpoint
    problems = [json.loads(line)["problem"] for line in PROBLEMS.read_text().splitlines()]

    command = [sys.executable, "-c", _SERVE + "serve(Path(sys.argv[1]), port=0)", str(checkpoint)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            match = re.search(r"serving (\S+) on (\S+)", server.stdout.readline())
            if match is None:
                raise SystemExit("the server did not start")
            model, base_url = match.groups()

            def body(problem: str, seed: int) -> dict[str, Any]:
                messages = [{"role": "user", "content": problem}]
                sampling = {"temperature": TEMPERATURE, "seed": seed, "max_tokens": MAX_TOKENS}
                return {"model": model, "messages": messages, **sampling}

            grouped = [body(problem, seed) for problem in problems for seed in range(SAMPLES)]
            mixed = [body(problem, seed) for seed in range(SAMPLES) for problem in problems]
            process = psutil.Process(server.pid)
            ask(process, base_url, mixed[: len(problems)])  # warm-up
            served = {
                "8 samples a problem": ask(process, base_url, grouped),
                "1 sample a problem": ask(process, base_url, mixed),
            }
        finally:
            server.terminate()

    print(f"tokens of answers per second, {CONCURRENCY} at a time; load {os.getloadavg()[0]:.1f}")
    print(f"{'':22}{'measured in':14}{'decode':>9}{'server':>9}{'ratio':>7}{'answers':>9}")
    for name, rate in served.items():
        alone = decode(checkpoint, rate)
        for unit in ("seconds", "cpu_seconds"):
            bare, behind = alone.tokens / getattr(alone, unit), rate.tokens / getattr(rate, unit)
            answers = rate.answers / getattr(rate, unit)
            print(f"{name:22}{unit:14}{bare:9,.0f}{behind:9,.0f}{behind / bare:7.2f}{answers:9,.0f}")


if __name__ == "__main__":
    main()
