"""The process in which answers are compared: ``python -m evalcore.grading.worker math 1073741824 4711``.

Started and killed by ``pool``. Arguments: grader, bytes it may take beyond what it starts with, pid of
the parent. Says ``ready`` when everything is imported; then reads batches ``[[answer, expected], …]``,
one on a line, and answers each pair with a line ``[equal, reason]``. At the end of its input it ends.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from typing import Any

import orjson

from evalcore.processes import die_with

READY = b"ready"
RETIRED = 17
"""The exit code of a worker that made room for a fresh one after answering: it had grown too big."""

_EVENTS_REFUSED = frozenset(
    {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "socket.connect", "subprocess.Popen"}
)


def main() -> None:
    grader, memory, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then kills us
    # What a library prints must not end up between our lines.
    output = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)

    from evalcore.grading import GRADERS

    thorough = GRADERS[grader].thorough
    assert thorough is not None
    thorough("x+1", "1+x")  # imports sympy and builds the parser's tables, before the clock runs
    # Whatever hostile text does next has these limits; the imports did not.
    limit = _peak_memory() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_refuse)
    os.write(output, READY + b"\n")
    os.dup2(null, 2)  # from here on nobody reads it

    base = peak = _peak_memory()
    for line in sys.stdin.buffer:
        for answer, expected in orjson.loads(line):
            try:
                equal, reason = thorough(answer, expected)
            except MemoryError:
                equal, reason = None, "memory"
            except Refused as refused:
                equal, reason = None, f"crash: refused {refused}"
            except Exception as error:  # any bug of a parser on hostile text: recorded, with its name
                equal, reason = None, f"crash: {type(error).__name__}"
            before, peak = peak, _peak_memory()
            # math-verify takes a MemoryError for "not equal"; the peak tells. Big numbers grow by doubling:
            # when the next step is refused, an eighth of the limit has been used.
            if not equal and peak - before > memory // 8:
                equal, reason = None, "memory"
            os.write(output, orjson.dumps([equal, reason]) + b"\n")
            # The next pair shall have the same room, and its own peak be seen.
            if reason == "memory" or peak - base > memory // 4:
                os._exit(RETIRED)


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
