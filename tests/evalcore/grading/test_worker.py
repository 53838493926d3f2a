"""The worker's protocol, and its guard: what it reads is never compiled, starts no program, opens no connection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from evalcore.grading.worker import RETIRED

pytestmark = pytest.mark.slow

# A worker whose pairs name what the comparison does.
WORKER = r"""
import os, signal, socket, subprocess, sys, time
from evalcore.grading import GRADERS, Grader, worker
from evalcore.grading.verdict import NEEDS_ALGEBRA, Equality

kept = []

def recurse():
    return recurse()

actions = {
    "add": lambda: None,
    "print": lambda: print("noise", flush=True),
    "interrupt": lambda: os.kill(os.getpid(), signal.SIGINT),
    "eval": lambda: eval("1 + 1"),
    "exec": lambda: exec("x = 1"),
    "system": lambda: os.system("true"),
    "fork": lambda: os.fork(),
    "program": lambda: subprocess.run(["true"]),
    "connect": lambda: socket.create_connection(("127.0.0.1", 9)),
    "raise": lambda: [][1],
    "recurse": recurse,
    "memory": lambda: bytes(1 << 28),
    "grow": lambda: kept.append(bytes(1 << 25)),
    "exit": lambda: os._exit(3),
}

def thorough(answer, expected, options):
    if answer == "algebra":
        return Equality(None, NEEDS_ALGEBRA)
    actions.get(answer, actions["add"])()
    return Equality(answer == expected, "thorough")

def algebra(answer, expected, options):
    if answer != "algebra":  # its first comparison, for what it imports
        time.sleep(0.3)
        eval("1 + 1")
        kept.append(bytes(1 << 27))
    return Equality(answer == expected, "algebra")

GRADERS["acting"] = Grader(None, None, thorough, algebra, lambda answer, options: "vote " + answer, {})
SETUP
worker.main()
"""

MEMORY = 1 << 26


def compare(*pairs: tuple[str, str], setup: str = "") -> tuple[list[Any], int]:
    """What a worker says of a batch, times left out, and its exit code."""
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            WORKER.replace("SETUP", setup),
            "acting",
            "{}",
            "1",
            str(MEMORY),
            str(os.getpid()),
        ],
        input=json.dumps(pairs) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = [line if line in ("ready", "importing") else json.loads(line) for line in ran.stdout.splitlines()]
    return [word[:2] if isinstance(word, list) else word for word in said], ran.returncode


def test_each_pair_is_answered_on_its_own_line() -> None:
    assert compare(("1", "1"), ("1", "2")) == (
        ["ready", [True, "thorough"], [False, "thorough"], ["vote 1"]],
        0,
    )


def test_what_a_library_prints_is_no_answer() -> None:
    assert compare(("print", "print")) == (["ready", [True, "thorough"]], 0)


def test_ctrl_c_is_for_the_parent() -> None:
    assert compare(("interrupt", "interrupt")) == (["ready", [True, "thorough"]], 0)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("eval", "crash: refused compile"),
        ("exec", "crash: refused compile"),
        ("system", "crash: refused os.system"),
        ("fork", "crash: refused os.fork"),
        ("program", "crash: refused subprocess.Popen"),
        ("connect", "crash: refused socket.connect"),
        ("raise", "crash: IndexError"),
        ("recurse", "nested too deep"),
    ],
)
def test_what_goes_wrong_costs_one_pair(answer: str, reason: str) -> None:
    said, code = compare((answer, answer), ("1", "1"))
    assert said == ["ready", [None, reason], [f"vote {answer}"], [True, "thorough"]]
    assert code == 0


def test_no_memory_is_the_end_of_one_pair_and_of_the_worker() -> None:
    said, code = compare(("memory", "1"), ("1", "1"))
    assert said == ["ready", [None, "memory"], ["vote memory"]]
    assert code == RETIRED


def test_a_worker_that_has_grown_retires_after_an_answer() -> None:
    assert compare(("grow", "grow"), ("1", "1")) == (["ready", [True, "thorough"]], RETIRED)


def test_a_worker_that_ends_in_a_comparison_says_nothing_of_it() -> None:
    assert compare(("1", "1"), ("exit", "1"), ("1", "1")) == (["ready", [True, "thorough"]], 3)


def test_the_first_use_of_algebra_is_announced_and_on_no_clock() -> None:
    # It takes 0.3 s, compiles and takes memory, as importing sympy does: it is trusted.
    pairs = [("1", "1"), ("algebra", "algebra"), ("algebra", "1"), ("eval", "1"), ("memory", "1")]
    said, code = compare(*pairs)
    assert said == [
        "ready",
        [True, "thorough"],
        "importing",
        "ready",
        [True, "algebra"],
        [False, "algebra"],
        ["vote algebra"],
        [None, "crash: refused compile"],
        ["vote eval"],
        [None, "memory"],
        ["vote memory"],
    ]
    assert code == RETIRED


def test_times_are_of_the_comparison_alone() -> None:
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            WORKER.replace("SETUP", "").replace("sleep(0.3)", "sleep(3)"),
            "acting",
            "{}",
            "1",
            str(MEMORY),
            str(os.getpid()),
        ],
        input='[["algebra", "algebra"]]\n',
        capture_output=True,
        text=True,
        timeout=60,
    )
    milliseconds = json.loads(ran.stdout.splitlines()[-1])[2]
    assert 0 < milliseconds < 2500


def test_a_limit_that_is_there_already_stays() -> None:
    setup = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))"
    setup += "; sys.argv[4] = str(1 << 33); actions['memory'] = lambda: bytes(1 << 32)"
    assert compare(("memory", "1"), setup=setup) == (["ready", [None, "memory"], ["vote memory"]], RETIRED)


def test_it_ends_when_its_parent_is_not_who_started_it() -> None:
    assert compare(("1", "1"), setup="sys.argv[5] = '1'") == ([], 1)


GUARDED = """
import sys
from evalcore.grading import worker
worker._guarding = True
sys.addaudithook(worker._refuse)
"""


def guarded(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", GUARDED + code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "code",
    [
        "import sympy; sympy.Number('1.5')",  # compiles the text of a number, which our parser never gives it
        "from sympy import *; lambdify(Symbol('x'), Symbol('x'))",
        "from sympy import sympify; sympify('x + 1')",
    ],
)
def test_sympy_is_refused_to_compile_text(code: str) -> None:
    ran = guarded(code)
    assert ran.returncode == 1
    assert "evalcore.grading.worker.Refused" in ran.stderr


def test_an_import_may_compile_what_it_needs() -> None:
    ran = guarded("import sched; print(sched.Event)")  # its module makes a named tuple
    assert ran.stdout == "<class 'sched.Event'>\n"


def test_sympy_may_compile_its_own_products_of_monomials() -> None:
    ran = guarded("import sympy as s; print(s.factor(s.Symbol('x')**2 - 4*s.Symbol('y')**2))")
    assert ran.stdout == "(x - 2*y)*(x + 2*y)\n"
