"""Where jobs run: one interface to processes on this machine and to clusters.

>>> backend = Local(Path("results/.jobs"))
>>> job = backend.ensure("evaluate_checkpoint-grade-0", ["evalcore", "grade", "results/…"])
>>> backend.look({job: 0})[job].status.state
<State.RUNNING: 'running'>

A job is known by a text, the folder of its attempt, wherever that lies. Whoever asks for a job by name gets the
attempt that is still of use, or a new one, so that everything here can be asked again after any interruption.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from evalcore import jobs
from evalcore.errors import JobError
from evalcore.jobs import Status

LOG_BYTES = 1 << 15
"""At most so much of a log is returned by one look: its end."""


class Unreachable(Exception):
    """The backend could not be asked, or its answer was lost: nothing is known of what was asked for. Ask again."""


class Look(NamedTuple):
    """What is known of a job. log: whole lines since the offset asked for; offset: to go on from.

    is_unknown: whoever runs it has lost it, though not for long enough to be sure. id: what a scheduler calls it.
    trouble: why the state may not be the newest, in one line.
    """

    status: Status
    log: list[str]
    offset: int
    is_unknown: bool = False
    id: str = ""
    trouble: str = ""


class Backend(Protocol):
    """Runs jobs. Methods raise Unreachable, and JobError for what would be the same if asked again."""

    poll_interval: float

    def folder(self, name: str) -> str:
        """Where the attempts of a job lie."""

    def newest(self, name: str) -> str | None:
        """The newest attempt of a job, or None."""

    def prepare(self, anew: str = "") -> str | None:
        """A job that has to be over before ``ensure`` is asked for one; None if there is nothing to wait for.

        anew: what it makes is made although it is there, once for each such text.
        """

    def ensure(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> str:
        """The job of that name: the attempt still of use, or a new one.

        env: variables of the job, with secrets among them.
        """

    def look(self, offsets: Mapping[str, int]) -> dict[str, Look]:
        """What is known of jobs, by job; offsets: how much of each log is known already."""

    def log(self, job: str) -> Iterator[str]:
        """What a job printed, in pieces of whole lines; of one far away only the end, and a line that says so."""

    def cancel(self, jobs: Sequence[str]) -> None:
        """Stop jobs."""

    def give_up(self, job: str) -> None:
        """Count a job that is unknown for too long as lost: the next ``ensure`` makes a new attempt."""

    def consume(self, job: str) -> None:
        """Note that the outcome was reported: the next ``ensure`` makes a new attempt."""

    def fetch(self, folder: str, into: Path) -> None:
        """Bring what a benchmark's folder holds here, but for its generations; each file whole or not at all."""


class Folders:
    """What backends have in common whose jobs' folders are seen here. root: the folder of all jobs."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def folder(self, name: str) -> str:
        return str(self.root / name)

    def newest(self, name: str) -> str | None:
        found = jobs.latest(self.root, name)
        return str(found) if found else None

    def prepare(self, anew: str = "") -> str | None:
        return None

    def log(self, job: str) -> Iterator[str]:
        """All that a job printed. JobError if its log is a link: a command could have made it one to anything."""
        folder = Path(job)
        file = folder / jobs.LOG
        if file.resolve() != folder.resolve() / jobs.LOG:
            raise JobError(f"{file}: is a link")
        return _pieces(folder)

    def fetch(self, folder: str, into: Path) -> None:
        """It is here."""


class Local(Folders):
    """Processes on this machine; see ``jobs``."""

    poll_interval = 2.0

    def ensure(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> str:
        return str(jobs.ensure(self.root, name, argv, env))

    def look(self, offsets: Mapping[str, int]) -> dict[str, Look]:
        found = {}
        for job, offset in offsets.items():
            try:
                status = jobs.status(Path(job))
                lines, end = end_of_log(Path(job), offset, status)
            except (OSError, JobError) as error:
                # A look that failed says nothing of the job, of which files may be away for a while.
                raise Unreachable(str(error)) from error
            found[job] = Look(status, lines, end)
        return found

    def cancel(self, jobs_: Sequence[str]) -> None:
        for job in jobs_:
            jobs.cancel(Path(job))

    def give_up(self, job: str) -> None:
        jobs.cancel(Path(job))

    def consume(self, job: str) -> None:
        jobs.consume(Path(job))


def end_of_log(folder: Path, offset: int, status: Status) -> jobs.LogLines:
    """What follows an offset; of much only the end, where a command says why it failed."""
    file = folder / jobs.LOG
    size = file.stat().st_size if file.exists() else 0
    start = max(offset, size - LOG_BYTES)
    return jobs.read_log(folder, start, LOG_BYTES, is_over=status.state.is_over)


def _pieces(folder: Path) -> Iterator[str]:
    offset = 0
    while (block := jobs.read_log(folder, offset)).lines:
        yield _joined(block.lines)
        offset = block.offset
    # A line without its end only here: of a job that goes on, what follows it would be taken for another.
    if last := jobs.read_log(folder, offset, is_over=True).lines:
        yield _joined(last)


def _joined(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def reason(look: Look) -> str:
    """Why a job did not succeed, in one line: the command's own last error, else its status and last line."""
    lines = [line for line in look.log if line.strip()]
    errors = [line for line in lines if line.startswith("evalcore: error: ")]
    if errors:
        return errors[-1].removeprefix("evalcore: error: ")[:500]
    return f"{look.status}: {lines[-1][:500] if lines else 'no output'}"
