"""The worker's own guard: nothing it reads is compiled, starts a program or opens a connection."""

from __future__ import annotations

import subprocess
import sys

import pytest

PRELUDE = "import sys, collections; from evalcore.grading.worker import _refuse; sys.addaudithook(_refuse);"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PRELUDE + code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "code",
    [
        "eval('1+1')",
        "exec('x = 1')",
        "import sympy; sympy.Number('1.5')",  # what latex2sympy does with a number, and our parser does not
        "from sympy import *; lambdify(Symbol('x'), Symbol('x'))",
        "import os; os.system('true')",
        "import os; os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import socket; socket.create_connection(('127.0.0.1', 9))",
    ],
)
def test_refused(code: str) -> None:
    ran = run(code)
    assert ran.returncode == 1
    assert "evalcore.grading.worker.Refused" in ran.stderr


def test_an_import_may_compile_what_it_needs() -> None:
    ran = run("import sched; print(sched.Event)")  # its module makes a named tuple
    assert ran.stdout == "<class 'sched.Event'>\n"


def test_sympy_may_compile_its_own_products_of_monomials() -> None:
    ran = run("import sympy as s; print(s.factor(s.Symbol('x')**2 - 4*s.Symbol('y')**2))")
    assert ran.stdout == "(x - 2*y)*(x + 2*y)\n"
