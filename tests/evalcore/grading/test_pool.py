"""Workers that are killed when they must be, and lose nothing else."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from evalcore.errors import EvalError
from evalcore.grading.pool import DEFAULT_TIMEOUT, Pair, Pool
from evalcore.grading.worker import RETIRED
from waiting import until

pytestmark = pytest.mark.slow

SAME = ("2x", "x+x")
DIFFERENT = ("3x", "x+x")
# sympy looks for an antiderivative for longer than anybody waits.
ENDLESS = (r"\int_0^1 \arctan(x^2) \ln(1+x^3) dx", "2")
BY_ALGEBRA = (r"\int_0^\pi \sin x dx", "2")
# Expanded before it is integrated.
HUGE = (r"\int (1+x+x^2+x^3)^{999} dx", "x")
# sympy compiles the terms of an infinite sum that it has no closed form for.
COMPILED = (r"\sum_{n=1}^\infty \frac{1}{n^3+n+1}", "2")

PATIENCE = 60.0

Verdict = tuple[bool | None, str]


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    # Long enough for whatever ends on a machine that is busy, and is not always there.
    with Pool("math", workers=1, timeout=PATIENCE) as pool:
        yield pool


@pytest.fixture
def short() -> Iterator[Pool]:
    """For what never ends."""
    with Pool("math", workers=1, timeout=3) as pool:
        yield pool


def verdicts(pool: Pool, pairs: Sequence[Pair]) -> list[Verdict]:
    return [(equal, reason) for equal, reason, *_ in pool.compare(pairs)]


def workers_of(pid: int) -> list[psutil.Process]:
    return [p for p in psutil.Process(pid).children() if "evalcore.grading.worker" in p.cmdline()]


def test_results_come_in_the_order_of_the_pairs(pool: Pool) -> None:
    results = pool.compare([(f"{i}x", "x+x") for i in range(100)])
    assert [equal for equal, *_ in results] == [i == 2 for i in range(100)]
    assert all(0 < ms < 1000 * PATIENCE for _, _, ms, _ in results)
    assert pool.compare([]) == []


def test_parts_are_prepared_while_workers_compare_and_come_back_in_order(pool: Pool) -> None:
    prepared: list[int] = []

    def parts() -> Iterator[tuple[int, list[tuple[str, str]]]]:
        for number in range(40):
            prepared.append(number)
            yield number, [SAME, DIFFERENT, (f"{number}x", "3x")][: number % 4]

    results = pool.compare_ahead(parts())
    assert next(results)[0] == 0
    assert len(prepared) < 20, "it looks ahead, but not without bound"
    rest = list(results)
    assert [number for number, _ in rest] == list(range(1, 40))
    assert all(
        [timed.equal for timed in compared] == [True, False, number == 3][: number % 4]
        for number, compared in rest
    )


def test_a_part_that_takes_long_does_not_stop_the_next_ones(short: Pool) -> None:
    given: list[float] = []

    def parts() -> Iterator[tuple[str, list[tuple[str, str]]]]:
        for name, pairs in (("slow", [ENDLESS]), ("quick", [SAME]), ("quick too", [DIFFERENT])):
            given.append(time.monotonic())
            yield name, pairs

    (_, [slow]), *_ = results = list(short.compare_ahead(parts()))
    assert [name for name, _ in results] == ["slow", "quick", "quick too"]
    assert slow.reason == "timeout"
    assert given[-1] - given[0] < slow.ms / 1000


def test_importing_sympy_is_on_no_pairs_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sympy.py").write_text(
        f"import sys, time; time.sleep(6); sys.path.remove({str(tmp_path)!r})\n"
        "del sys.modules['sympy']; import sympy\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Pool("math", workers=1, timeout=5) as fresh:
        started = time.monotonic()
        assert verdicts(fresh, [SAME, BY_ALGEBRA]) == [(True, "points"), (True, "algebra")]
        assert time.monotonic() - started > 5  # so it was longer than the limit


def test_a_pair_over_its_deadline_is_undecided_and_the_others_are_not(short: Pool) -> None:
    pairs = [SAME, ENDLESS, DIFFERENT, BY_ALGEBRA, ENDLESS, SAME]
    results = short.compare(pairs)
    assert [equal for equal, *_ in results] == [True, None, False, True, None, True]
    for index in (1, 4):
        assert results[index].reason == "timeout"
        assert results[index].ms >= 3000


def test_a_hostile_pair_costs_its_limit_and_no_more() -> None:
    seconds: list[float] = []
    with Pool("math", workers=1) as fresh:
        # A machine that stands still for a while does not do so each time.
        while not seconds or (min(seconds) > 2 * DEFAULT_TIMEOUT and len(seconds) < 5):
            fresh.compare([BY_ALGEBRA])
            started = time.monotonic()
            assert fresh.compare([ENDLESS])[0].reason == "timeout"
            seconds.append(time.monotonic() - started)
    assert DEFAULT_TIMEOUT <= min(seconds) <= 2 * DEFAULT_TIMEOUT


def test_a_worker_that_dies_costs_the_pair_it_was_at(pool: Pool) -> None:
    pool.compare([BY_ALGEBRA])
    (worker,) = workers_of(os.getpid())
    before = worker.cpu_times().user

    def kill() -> None:
        until(lambda: worker.cpu_times().user > before + 0.2, "it to be at the first pair")
        worker.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    results = pool.compare([ENDLESS, SAME, DIFFERENT])
    killer.join()
    assert [tuple(result[:2]) for result in results[:2]] == [(None, "crash: SIGKILL"), (True, "points")]
    assert 100 < results[0].ms < 1000 * PATIENCE
    assert results[2].equal is False


def test_a_worker_that_dies_idle_costs_nothing(pool: Pool) -> None:
    pool.compare([SAME])
    (worker,) = workers_of(os.getpid())
    worker.kill()
    results = verdicts(pool, [SAME, DIFFERENT])
    # Whether it is found dead before or after the first pair went to it, is a matter of luck.
    assert results[0] in [(True, "points"), (None, "crash: SIGKILL")]
    assert results[1][0] is False


def test_a_worker_that_is_slow_to_retire_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first one answers a pair, is no longer heard of, and is gone some time after that.
    old = tmp_path / "old"
    old.write_text(
        f"#!{sys.executable}\n"
        "import os, sys, time\n"
        "if os.path.exists(sys.argv[0] + '.was'):\n"
        f"    os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])\n"
        "open(sys.argv[0] + '.was', 'w').close()\n"
        "os.write(1, b'ready\\n')\n"
        "sys.stdin.readline()\n"
        "os.write(1, b'[true,\"points\",1.0]\\n')\n"
        "os.close(1)\n"
        "time.sleep(2)\n"
        f"os._exit({RETIRED})\n"
    )
    old.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(old))
    with Pool("math", workers=1, timeout=PATIENCE) as fresh:
        assert verdicts(fresh, [SAME] * 4) == [(True, "points")] * 4


def test_a_pair_that_wants_too_much_memory_is_undecided() -> None:
    with Pool("math", workers=1, timeout=PATIENCE, memory=1 << 26) as small:
        (huge, same) = verdicts(small, [HUGE, SAME])
        assert huge == (None, "memory")
        assert same == (True, "points")


def test_a_pair_of_which_sympy_would_compile_text_is_undecided(pool: Pool) -> None:
    assert verdicts(pool, [COMPILED, SAME]) == [(None, "crash: refused compile"), (True, "points")]


@pytest.mark.parametrize(
    "pair",
    [(r"\sum_{n=0}^\infty (\frac13)^n", "1.5"), (r"\int_0^\infty \frac{\sin x}{x} dx", r"\frac{\pi}{2}")],
)
def test_the_tables_that_sympy_compiles_are_there_before_the_first_pair(pair: Pair) -> None:
    with Pool("math", workers=1, timeout=PATIENCE) as fresh:
        assert verdicts(fresh, [pair]) == [(True, "algebra")]


def test_two_workers_give_the_same_results_as_one() -> None:
    pairs = [(f"x^{i} + {i}x", f"{i}x + x^{i % 7}") for i in range(2, 20)]
    pairs += [
        BY_ALGEBRA,
        (r"\lim_{x\to 0} \frac{\sin(3x)}{x}", "3"),
        (r"\sum_{n=1}^\infty \frac{1}{n^2}", "2"),
    ]
    with Pool("math", workers=1, timeout=PATIENCE) as one, Pool("math", workers=2, timeout=PATIENCE) as two:
        expected = [(equal, reason, vote) for equal, reason, _, vote in one.compare(pairs)]
        for _ in range(2):
            assert [(equal, reason, vote) for equal, reason, _, vote in two.compare(pairs)] == expected
        assert len(two._workers) == 2
    assert len({verdict for verdict, *_ in expected}) > 1


def test_options_reach_the_workers() -> None:
    pair = (r"10\%", "10")
    for percent, equal in [("either", True), ("value", False)]:
        with Pool("math", {"percent": percent}, workers=1) as fresh:
            assert fresh.compare([pair])[0].equal is equal


def test_workers_get_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    before = workers_of(os.getpid())
    with Pool("math", workers=1) as fresh:
        fresh.compare([SAME])
        (worker,) = [worker for worker in workers_of(os.getpid()) if worker not in before]
        environment = worker.environ()
    assert "PATH" in environment
    assert "OPENAI_API_KEY" not in environment


def test_workers_have_one_hash_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    before = workers_of(os.getpid())
    with Pool("math", workers=1) as fresh:
        fresh.compare([SAME])
        (worker,) = [worker for worker in workers_of(os.getpid()) if worker not in before]
        assert worker.environ()["PYTHONHASHSEED"] == "0"


@pytest.mark.parametrize("python_path", ["", os.pathsep + "/nonexistent"])
def test_workers_import_nothing_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python_path: str
) -> None:
    for name in ("math", "sympy", "mpmath"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not ours')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", python_path)
    with Pool("math", workers=1, timeout=PATIENCE) as fresh:
        assert verdicts(fresh, [BY_ALGEBRA]) == [(True, "algebra")]


def test_half_of_a_surrogate_pair_is_undecided_and_the_others_are_not(pool: Pool) -> None:
    results = verdicts(pool, [SAME, ("\ud800x", "x"), ("x", "\udc00"), DIFFERENT])
    assert results[:3] == [(True, "points"), (None, "not Unicode"), (None, "not Unicode")]
    assert results[3][0] is False


def dying_imports(folder: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> Path:
    """Have the import of sympy kill its process, that often; return where the deaths are counted."""
    deaths = folder / "deaths"
    deaths.touch()
    (folder / "sympy.py").write_text(
        "import os, signal, sys\n"
        f"if os.path.getsize({str(deaths)!r}) < {times}:\n"
        f"    with open({str(deaths)!r}, 'a') as file:\n"
        "        file.write('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"sys.path.remove({str(folder)!r})\n"
        "del sys.modules['sympy']\n"
        "import sympy\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return deaths


def test_a_worker_killed_while_it_imports_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = dying_imports(tmp_path, monkeypatch, times=2)
    with Pool("math", workers=1, timeout=PATIENCE) as fresh:
        assert verdicts(fresh, [BY_ALGEBRA, SAME]) == [(True, "algebra"), (True, "points")]
    assert deaths.read_text() == "xx"


def test_workers_killed_again_and_again_while_they_import_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = dying_imports(tmp_path, monkeypatch, times=99)
    with Pool("math", workers=1) as fresh, pytest.raises(EvalError, match="did not start: exit -9"):
        fresh.compare([BY_ALGEBRA])
    assert deaths.read_text() == "xxx"


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        r"\text{__import__('os').getcwd()}",
        r"\operatorname{eval}(1)",
        r"\operatorname{__class__}(x)",
        r"\mathrm{lambda: 1}",
        "().__class__.__bases__",
        r"\int_0^1 __import__('os') dx",
        r"\int_0^{1.5} x dx",
        r"\lim_{x\to 0} \frac{\sin 1.5x}{x}",
        r"\sum_{n=1}^\infty \frac{1.5}{n^2}",
    ],
)
def test_nothing_is_evaluated_as_python(pool: Pool, text: str) -> None:
    # The worker's guard would make it a crash.
    for result in pool.compare([(text, "2*x"), ("2*x", text)]):
        assert "crash" not in result.reason


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_die_with_the_parent(how: signal.Signals) -> None:
    code = (
        "from evalcore.grading.pool import Pool\n"
        "with Pool('math', workers=1, timeout=600) as pool:\n"
        f"    pool.compare([{SAME!r}])\n"
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
        parent.wait(60)
    assert psutil.wait_procs([worker], timeout=60)[1] == []


def test_workers_are_gone_when_the_pool_is_left() -> None:
    before = workers_of(os.getpid())
    with Pool("math", workers=2) as fresh:
        fresh.compare([SAME] * 8)
        workers = [worker for worker in workers_of(os.getpid()) if worker not in before]
    assert workers
    assert not any(worker.is_running() for worker in workers)


def test_a_worker_that_cannot_start_is_an_error_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        Pool("no such grader", workers=1) as fresh,
        pytest.raises(EvalError, match=r"did not start: exit 1: KeyError: 'no such grader'"),
    ):
        fresh.compare([SAME])
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with Pool("math", workers=1) as fresh, pytest.raises(EvalError, match="cannot start a worker"):
        fresh.compare([SAME])


def test_a_vote_that_takes_too_long_does_not_cost_the_verdict() -> None:
    slow = "(" + ",".join([r"\sum_{i=1}^{2000}\sin(i x)"] * 10) + ")"  # told from a pair by its length alone
    with Pool("math", votes=True, workers=1, timeout=1.5) as fresh:
        [first, second] = fresh.compare([(slow, "(1,2)"), DIFFERENT])
    assert (first.equal, first.reason, first.vote) == (False, "structure", None)
    assert second.equal is False
    assert second.vote


def test_votes_are_for_those_who_ask(pool: Pool) -> None:
    assert [timed.vote for timed in pool.compare([DIFFERENT, SAME])] == [None, None]


def test_a_late_verdict_is_none_whoever_was_busy() -> None:
    late = (r"\sum_{i=1}^{2000}\sin(i x)", "x")

    with Pool("math", workers=1, timeout=PATIENCE) as fresh:
        fresh.compare([BY_ALGEBRA])  # one that still starts would be given the pair later
        [worker] = fresh._workers

        def parts() -> Iterator[tuple[int, list[Pair]]]:
            yield 0, [late]
            # As a parent that prepares others, and does not listen until it is answered.
            assert select.select([worker.output], [], [], 60)[0]
            # Only now, or it may be over before the worker is looked at for the first time.
            worker.timeout = 0.001

        [(_, [timed])] = fresh.compare_ahead(parts())
        assert fresh._workers == [worker], "it was in time to be heard"
    assert (timed.equal, timed.reason) == (None, "timeout")
