"""Compare answers in worker processes that are killed when one takes too long or too much.

>>> with Pool("math", timeout=2.0) as pool:
...     pool.compare([("2x", "x+x"), (r"\\int_0^1 \\arctan(x^2) \\ln(1+x^3) dx", "1")])
[Timed(equal=True, reason='points', ms=0.4, vote=None), Timed(equal=None, reason='timeout', ms=2000.3, vote=None)]

Workers are plain subprocesses (``worker``) with two pipes: no fork of a threaded parent, no copy of its
memory or of its environment. A batch of pairs goes in on one line, each result comes back on its own
as soon as it is known, so that the parent knows which pair is being compared and since when. It keeps
the deadline: a pair over it costs the worker its life (SIGKILL) and is undecided; the rest of the batch
goes to another. Importing, at the start and before the first use of algebra, is on no pair's clock.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import orjson

from evalcore.errors import EvalError
from evalcore.grading.verdict import Options
from evalcore.grading.worker import IMPORTING, READY, RETIRED

T = TypeVar("T")

Pair = tuple[str, str]
"""(answer, expected_answer)"""

DEFAULT_TIMEOUT = 2.0
DEFAULT_MEMORY = 1 << 30

_START_TIMEOUT = 120.0
_DYING = 60.0  # seconds from the end of a worker's output to its own
_PATIENCE = 0.2  # seconds; a worker takes half of that to start, in which another compares a hundred pairs
_LARGEST_BATCH = 32
_PARTS_AHEAD = 16
_KILLED_STARTS = 3  # in a row; so many are no accident
# Keys and tokens stay out of processes that read what models wrote.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR")


class Timed(NamedTuple):
    """An ``Equality`` and how long it took.

    ms: milliseconds, imports and vote not counted. vote: what a wrong answer votes for, where its
    grader knows (``Grader.vote``) and somebody asked.
    """

    equal: bool | None
    reason: str
    ms: float
    vote: str | None = None


class _Batch(NamedTuple):
    """Pairs that were handed in together, and their results so far, by index."""

    pairs: Sequence[Pair]
    results: dict[int, Timed]

    @property
    def done(self) -> bool:
        return len(self.results) == len(self.pairs)


_Job = tuple[_Batch, int]
"""One pair: its batch and its index there."""


class Pool:
    """Workers of one grader, started when first needed; results do not depend on their number.

    Use as a context manager, from one thread. On leaving, also by an exception, the workers are killed;
    when this process dies without leaving, by SIGKILL say, the kernel kills them.

    Args:
        grader: a name in ``GRADERS`` that has a ``thorough``.
        options: the benchmark's, for that grader.
        workers: processes; None: one for each core this process may use.
        votes: whether to find out what wrong answers vote for.
        timeout: seconds for one pair, and once more for its vote.
        memory: bytes of address space a worker may take beyond what it starts with.
    """

    def __init__(
        self,
        grader: str,
        options: Options | None = None,
        *,
        votes: bool = False,
        workers: int | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        memory: int = DEFAULT_MEMORY,
    ) -> None:
        self.grader = grader
        self.options = options or {}
        self.votes = votes
        self.size = workers or len(os.sched_getaffinity(0))
        self.timeout = timeout
        self.memory = memory
        self._workers: list[_Worker] = []
        self._todo: deque[_Job] = deque()
        self._killed_starts = 0  # since a pair was last answered
        self._none_waited = 0.0  # when that was so last
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in list(self._workers):
            self._remove(worker)
        self._selector.close()

    def compare(self, pairs: Sequence[Pair]) -> list[Timed]:
        """One result for each pair, in their order.

        Undecided (``equal`` None) has the reason ``timeout``, ``memory``, ``crash: …`` or ``not Unicode``.

        Raises:
            EvalError: a worker cannot be started, or is killed again and again while it imports.
        """
        return self._results(self._submit(pairs))

    def compare_ahead(self, parts: Iterable[tuple[T, Sequence[Pair]]]) -> Iterator[tuple[T, list[Timed]]]:
        """Each part with the results of its pairs, in order; later parts are prepared while workers compare.

        Raises:
            EvalError: as ``compare``.
        """
        ahead: deque[tuple[T, _Batch]] = deque()
        for part, pairs in parts:
            ahead.append((part, self._submit(pairs)))
            while ahead and (ahead[0][1].done or len(ahead) > _PARTS_AHEAD):
                first, batch = ahead.popleft()
                yield first, self._results(batch)
        for part, batch in ahead:
            yield part, self._results(batch)

    def _submit(self, pairs: Sequence[Pair]) -> _Batch:
        unsendable = Timed(None, "not Unicode", 0.0)
        batch = _Batch(pairs, {i: unsendable for i, pair in enumerate(pairs) if not _is_unicode(pair)})
        self._waited()
        self._todo.extend((batch, index) for index in range(len(pairs)) if index not in batch.results)
        if self._todo or any(worker.assigned for worker in self._workers):
            self._work(wait=False)
        return batch

    def _results(self, batch: _Batch) -> list[Timed]:
        while not batch.done:
            self._work()
        return [batch.results[index] for index in range(len(batch.pairs))]

    def _work(self, wait: bool = True) -> None:
        """Hand out what is to do and take in what is done, waiting for something to be."""
        self._grow()
        self._hand_out()
        for worker in self._heard(wait):
            unanswered = len(worker.assigned)
            finished = worker.receive()
            if len(worker.assigned) < unanswered:
                self._killed_starts = 0
            if finished or time.monotonic() > worker.deadline:
                self._remove(worker, dying=finished)
                self._killed_starts += not worker.ready
                again = self._killed_starts < _KILLED_STARTS
                self._todo.extendleft(reversed(worker.lost(overdue=not finished, again=again)))
        self._hand_out()

    def _waited(self) -> float:
        """For how many seconds there have been pairs that wait for a worker."""
        if not self._todo:
            self._none_waited = time.monotonic()
        return time.monotonic() - self._none_waited

    def _hand_out(self) -> None:
        for worker in self._workers:
            if self._todo and worker.ready and not worker.assigned:
                size = min(_LARGEST_BATCH, max(1, len(self._todo) // (2 * self.size)))
                worker.send([self._todo.popleft() for _ in range(min(size, len(self._todo)))])

    def start(self) -> None:
        """Start a worker now, so that it imports while the caller prepares the first pairs."""
        if not self._workers:
            self._add_worker()

    def _grow(self) -> None:
        """Start a worker, and those that waiting pairs ask for once they have waited for a while."""
        self.start()
        if self._waited() > _PATIENCE:
            idle = sum(not worker.assigned for worker in self._workers)
            for _ in range(min(self.size - len(self._workers), len(self._todo) - idle)):
                self._add_worker()

    def _add_worker(self) -> None:
        worker = _Worker(self.grader, self.options, self.votes, self.timeout, self.memory)
        self._workers.append(worker)
        self._selector.register(worker.output, selectors.EVENT_READ, worker)

    def _heard(self, wait: bool) -> list[_Worker]:
        """The workers that said something, and those whose deadline is over."""
        soonest = min(worker.deadline for worker in self._workers)
        timeout = max(0.0, soonest - time.monotonic()) if wait else 0.0
        if len(self._workers) < self.size:
            timeout = min(timeout, _PATIENCE)
        heard = [key.data for key, _ in self._selector.select(timeout)]
        now = time.monotonic()
        return heard + [w for w in self._workers if w.deadline < now and w not in heard]

    def _remove(self, worker: _Worker, dying: bool = False) -> None:
        self._selector.unregister(worker.output)
        self._workers.remove(worker)
        worker.end(dying)


def _is_unicode(pair: Pair) -> bool:
    """Whether it can be sent: half of a surrogate pair, say, has no UTF-8."""
    try:
        "".join(pair).encode()
    except UnicodeEncodeError:
        return False
    return True


class _Worker:
    """The parent's side of one worker process.

    assigned: the pairs it has, the one being compared first. deadline: when that one, or an
    import, has taken too long; never while it is idle.
    """

    def __init__(self, grader: str, options: Options, votes: bool, timeout: float, memory: int) -> None:
        package_root = str(Path(__file__).resolve().parents[2])
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        # An empty entry, as `PYTHONPATH=$PYTHONPATH:/more` leaves one, would be the working folder.
        paths = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
        environment["PYTHONPATH"] = os.pathsep.join([package_root, *paths])
        # sympy orders some terms by hash: the same verdict on any worker, on any day.
        environment["PYTHONHASHSEED"] = "0"
        # -P: a math.py or sympy.py in the working folder is not ours to import. -W ignore: nobody reads
        # what it says on the way, until it dies of it.
        command = [
            sys.executable,
            "-P",
            "-Wignore",
            "-m",
            "evalcore.grading.worker",
            grader,
            orjson.dumps(options).decode(),
            str(int(votes)),
            str(memory),
            str(os.getpid()),
        ]
        pipe = subprocess.PIPE
        try:
            self.process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, bufsize=0
            )
        except OSError as error:
            raise EvalError(f"grading: cannot start a worker ({command[0]}): {error.strerror}") from error
        assert self.process.stdin
        assert self.process.stdout
        assert self.process.stderr
        self.input, self.output, self.errors = self.process.stdin, self.process.stdout, self.process.stderr
        os.set_blocking(self.output.fileno(), False)
        self.votes = votes
        self.timeout = timeout
        self.ready = False
        self.assigned: deque[_Job] = deque()
        self.deadline = time.monotonic() + _START_TIMEOUT
        self._verdict: Timed | None = None  # of the first, while its vote is being looked for
        self._unread = b""
        self._last_words = ""

    def send(self, jobs: list[_Job]) -> None:
        self.assigned.extend(jobs)
        self.deadline = time.monotonic() + self.timeout
        line = memoryview(
            orjson.dumps([batch.pairs[i] for batch, i in jobs], option=orjson.OPT_APPEND_NEWLINE)
        )
        try:
            while line:
                line = line[self.input.write(line) :]
        except BrokenPipeError:
            pass  # it died; receive() will find its output closed

    def receive(self) -> bool:
        """Take in what it said; True if it is dead."""
        try:
            said = os.read(self.output.fileno(), 1 << 16)
        except BlockingIOError:
            return False
        *lines, self._unread = (self._unread + said).split(b"\n")
        for line in lines:
            if line in (READY, IMPORTING):
                self.ready = line == READY
            else:
                self._hear(*orjson.loads(line))
        if lines:
            idle = self.ready and not self.assigned
            limit = float("inf") if idle else self.timeout if self.ready else _START_TIMEOUT
            self.deadline = time.monotonic() + limit
        return not said

    def _hear(self, *said: Any) -> None:
        """A verdict, or the vote that belongs to the last one."""
        if self._verdict:
            self._finish(self._verdict._replace(vote=said[0]))
            return
        timed = Timed(*said)
        if timed.ms > self.timeout * 1000:
            # It was late, and nobody looked: the verdict must not depend on who was busy.
            timed = Timed(None, "timeout", timed.ms)
        if self.votes and not said[0]:
            self._verdict = timed
        else:
            self._finish(timed)

    def _finish(self, timed: Timed) -> None:
        batch, index = self.assigned.popleft()
        batch.results[index] = timed
        self._verdict = None

    def lost(self, overdue: bool, again: bool) -> list[_Job]:
        """Of a worker that was killed or died: record the pair it was at; return the others it had.

        again: whether one that was killed while it imported may be replaced; that is no pair's fault.
        """
        code = self.process.returncode
        if not self.ready:
            if again and code < 0 and not overdue:
                return list(self.assigned)
            why = "timed out" if overdue else f"exit {code}: {self._last_words}"
            raise EvalError(f"grading: worker ({sys.executable}) did not start: {why}")
        if self._verdict:
            self._finish(self._verdict)  # without its vote, which then is its text
            return list(self.assigned)
        others = list(self.assigned)
        if others and code != RETIRED:
            death = signal.Signals(-code).name if code < 0 else f"exit {code}"
            spent = (time.monotonic() - self.deadline + self.timeout) * 1000
            why = "timeout" if overdue else f"crash: {death}"
            batch, index = others.pop(0)
            batch.results[index] = Timed(None, why, round(spent, 3))
        return others

    def end(self, dying: bool) -> None:
        """Kill it, unless it is dying by itself: then its exit code says why."""
        if dying:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_DYING)
        self.process.kill()
        self.process.wait()
        if not self.ready:
            lines = self.errors.read().decode(errors="replace").strip().splitlines()
            self._last_words = lines[-1] if lines else "no message"
        for pipe in (self.input, self.output, self.errors):
            pipe.close()
