"""The process in which answers are compared: ``python -m evalcore.grading.worker math {} 1 1073741824 4711``.

Started and killed by ``pool``. Arguments: grader, its options as JSON, whether votes are wanted (1 or 0), bytes
it may take beyond what it starts with, pid of the parent. Says ``ready`` when everything is imported; then
reads batches ``[[answer, expected], …]``, one on a line, and answers each pair with a line ``[equal, reason,
ms]`` and, where votes are wanted and it is not equal, another ``[vote]``. The first pair that takes algebra
makes it say ``importing``, import sympy and say ``ready`` once more: a second that is on no pair's clock, and
that most runs never spend. At the end of its input it ends.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import orjson

from evalcore.grading import GRADERS, Grader
from evalcore.grading.verdict import NEEDS_ALGEBRA, Equality, Options
from evalcore.processes import die_with

READY = b"ready"
IMPORTING = b"importing"
RETIRED = 17
"""The exit code of a worker that made room for a fresh one after answering: it had grown too big."""

_RECURSION = 5000
_EVENTS_REFUSED = frozenset(
    {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "socket.connect", "subprocess.Popen"}
)


Compare = Callable[[str, str, Options], Equality]

# Makes sympy build its tables of integrals and of series, for which it compiles text of its own.
_FIRST = (r"\int_0^\infty e^{-x^2} dx + \sum_{n=0}^\infty 2^{-n}", r"\frac{\sqrt\pi}{2} + 2")

_guarding = False


def main() -> None:
    grader = GRADERS[sys.argv[1]]
    options, votes = orjson.loads(sys.argv[2]), sys.argv[3] == "1"
    memory, parent = int(sys.argv[4]), int(sys.argv[5])
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then kills us
    sys.setrecursionlimit(_RECURSION)
    # What a library prints must not end up between our lines.
    output = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_refuse)

    assert grader.thorough is not None
    start_size = _prepare(grader.thorough, "x+1", "1+x", options, memory)
    os.write(output, READY + b"\n")
    with_algebra = False
    for line in sys.stdin.buffer:
        for answer, expected in orjson.loads(line):
            start = time.perf_counter()
            equality = _guarded(grader.thorough, answer, expected, options)
            if equality.reason == NEEDS_ALGEBRA and grader.algebra:
                if not with_algebra:
                    pause = time.perf_counter()
                    os.write(output, IMPORTING + b"\n")
                    start_size = _prepare(grader.algebra, *_FIRST, options, memory)
                    os.write(output, READY + b"\n")
                    with_algebra = True
                    start += time.perf_counter() - pause
                equality = _guarded(grader.algebra, answer, expected, options)
            milliseconds = round((time.perf_counter() - start) * 1000, 3)
            os.write(output, orjson.dumps([*equality, milliseconds]) + b"\n")
            # After the verdict, which a vote that takes too long must not spoil.
            if votes and not equality.equal:
                os.write(output, orjson.dumps([_vote(grader, answer, options)]) + b"\n")
            # The next pair shall have the same room.
            if equality.reason == "memory" or _peak_memory() - start_size > memory // 4:
                os._exit(RETIRED)


def _prepare(compare: Compare, answer: str, expected: str, options: Options, memory: int) -> int:
    """Have a comparison import what it takes, without guard or limit; return the memory taken until then.

    From there on that much more may be taken, by whatever hostile text does.
    """
    global _guarding
    _guarding = False
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    compare(answer, expected, options)
    size = _peak_memory()
    limit = size + memory if hard == resource.RLIM_INFINITY else min(size + memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    _guarding = True
    return size


def _guarded(compare: Compare, answer: str, expected: str, options: Options) -> Equality:
    """The verdict; undecided, with its name, whatever hostile text makes a parser raise."""
    try:
        return compare(answer, expected, options)
    except MemoryError:
        return Equality(None, "memory")
    except RecursionError:
        return Equality(None, "nested too deep")
    except Refused as refused:
        return Equality(None, f"crash: refused {refused}")
    except Exception as error:
        return Equality(None, f"crash: {type(error).__name__}")


def _vote(grader: Grader, answer: str, options: Options) -> str | None:
    """What a wrong answer votes for; None, so by its text, where that cannot be computed."""
    try:
        return grader.vote(answer, options) if grader.vote else None
    except (Exception, MemoryError, Refused):
        return None


def _peak_memory() -> int:
    """The largest address space so far, in bytes. (getrusage starts from what the parent had before exec.)"""
    with open("/proc/self/status", "rb") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(b"VmPeak:"))


class Refused(BaseException):
    """What hostile text must never reach. No Exception: libraries take those for "not equal"."""


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: text is never compiled as Python here, and no program or connection is started.

    The parser does none of it, but sympy would compile the terms of an infinite sum (``evalf``): undecided.
    """
    if not _guarding:
        return
    if event in _EVENTS_REFUSED:
        raise Refused(event)
    if event == "compile" and str(arguments[1] or "<").startswith("<") and not _harmless():
        raise Refused(event)


def _harmless() -> bool:
    """Whether it is code of sympy's own, of which the text decides nothing but a number of variables.

    Or a module is being imported: named tuples and dataclasses compile text of their own then.
    """
    frame = sys._getframe(2)
    if frame.f_code.co_filename.endswith("/sympy/polys/monomials.py"):
        return True
    while frame := frame.f_back:  # type: ignore[assignment]
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
    return False


if __name__ == "__main__":
    main()
