"""Workers that are killed when they must be, and lose nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from evalcore.errors import EvalError
from evalcore.grading.pool import Pool

ENDLESS = ("9^{9^{9}}", "x+1")
EQUAL = (True, "math-verify")
DIFFERENT = (False, "math-verify")


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool("math", workers=1, timeout=2.0) as pool:
        yield pool


def workers_of(pid: int) -> list[psutil.Process]:
    return [p for p in psutil.Process(pid).children() if "evalcore.grading.worker" in p.cmdline()]


def test_results_come_in_the_order_of_the_pairs(pool: Pool) -> None:
    pairs = [(f"{i}x", "x+x") for i in range(100)]
    assert pool.compare(pairs) == [EQUAL if i == 2 else DIFFERENT for i in range(100)]
    assert pool.compare([]) == []


@pytest.mark.slow
def test_a_pair_over_its_deadline_is_undecided_and_the_others_are_not(pool: Pool) -> None:
    started = time.monotonic()
    pairs = [("2x", "x+x"), ENDLESS, ("3x", "x+x"), ("x+x", "2x")]
    assert pool.compare(pairs) == [EQUAL, (None, "timeout"), DIFFERENT, EQUAL]
    # A second for the pair; the start of its successor is on no pair's clock.
    assert time.monotonic() - started < 30
    assert pool.compare(pairs[2:]) == [DIFFERENT, EQUAL]


def test_a_worker_that_dies_costs_one_pair(pool: Pool) -> None:
    pool.compare([("2x", "x+x")])
    (worker,) = workers_of(os.getpid())
    worker.kill()
    # Nobody blames the pair that finds it dead but the one that was with it.
    results = pool.compare([("2x", "x+x"), ("x+x+x", "3x")])
    assert results[1] == EQUAL
    assert results[0] in [EQUAL, (None, "crash: SIGKILL")]


@pytest.mark.slow
def test_a_pair_that_wants_too_much_memory_is_undecided() -> None:
    with Pool("math", workers=1, timeout=60, memory=1 << 26) as pool:
        assert pool.compare([("(x+y)^{1000000}", "x+1"), ("2x", "x+x")]) == [(None, "memory"), EQUAL]


def test_two_workers_give_the_same_results_as_one(pool: Pool) -> None:
    pairs = [(f"x^{i} + {i}x", f"{i}x + x^{i % 7}") for i in range(2, 20)]
    with Pool("math", workers=2, timeout=30) as two:
        assert two.compare(pairs) == pool.compare(pairs)
        assert len(workers_of(os.getpid())) == 3  # two, and the one of the other pool


def test_workers_get_no_secrets(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with Pool("math", workers=1) as fresh:
        fresh.compare([("2x", "x+x")])
        assert all("OPENAI_API_KEY" not in worker.environ() for worker in workers_of(os.getpid()))


def test_every_worker_hashes_alike(pool: Pool) -> None:
    # sympy's order of terms, and with it a verdict, may depend on it.
    pool.compare([("2x", "x+x")])
    assert {worker.environ().get("PYTHONHASHSEED") for worker in workers_of(os.getpid())} == {"0"}


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        r"\text{__import__('os').getcwd()}",
        r"\operatorname{eval}(1)",
        r"\operatorname{__class__}(x)",
        r"\mathrm{lambda: 1}",
        "().__class__.__bases__",
        "1.5",
        r"1.5\%",
        "1,234,567 + x",
        "1e5",
        r"\frac{1.5}{2.5}",
        r"\begin{pmatrix}1.5&2\\3&4\end{pmatrix}",
        r"x = 1.5, y = 2.5",
        r"\int_0^{1.5} x dx",
        "x^2 - 1.5x = 0",
    ],
)
def test_nothing_is_evaluated_as_python(pool: Pool, text: str) -> None:
    # The worker's guard would make it a crash.
    for pair in [(text, "2*x"), ("2*x", text)]:
        assert "crash" not in pool.compare([pair])[0].reason


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.slow
def test_workers_die_with_the_parent(how: signal.Signals) -> None:
    code = (
        "from evalcore.grading.pool import Pool\n"
        "with Pool('math', workers=1, timeout=600) as pool:\n"
        "    pool.compare([('2x', 'x+x')])\n"
        "    print('started', flush=True)\n"
        f"    pool.compare([{ENDLESS!r}])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == "started\n"
        (worker,) = workers_of(parent.pid)
        parent.send_signal(how)
        parent.wait(10)
    assert psutil.wait_procs([worker], timeout=10)[1] == []


def test_a_worker_that_cannot_start_is_an_error_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        Pool("no such grader", workers=1) as pool,
        pytest.raises(EvalError, match=r"did not start.*KeyError"),
    ):
        pool.compare([("1", "2")])
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with Pool("math", workers=1) as pool, pytest.raises(EvalError, match="cannot start a worker"):
        pool.compare([("1", "2")])


def test_where_sympy_would_compile_an_answer_the_guard_holds(pool: Pool) -> None:
    # evalf turns the terms of an infinite sum into Python source (lambdify).
    endless_sum = r"\sum_{n = 1}^\infty \frac{F_{n + 1}}{F_n F_{n + 2}}"
    assert pool.compare([(endless_sum, "2"), ("2x", "x+x")]) == [(None, "crash: refused compile"), EQUAL]
