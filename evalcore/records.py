"""Rows on disk: append-only JSONL parts that survive a kill at any byte.

A row is one JSON object on one line, and it is complete when its newline is there. Its key is
``(problem_id, sample)``; over all parts of a folder the first complete row of a key wins. A torn last
line is skipped by readers and cut off by the next writer, so its key is simply missing and done again::

    with PartWriter(folder, "3f9a01c2b4d5-0") as part:
        part.write({"problem_id": "gsm8k-7", "sample": GREEDY, "generation": "…"})
    for row in read_rows(folder, "3f9a01c2b4d5"):
        ...

Parts are named after the id of what made them (see ``manifest``), so rows of two settings never mix.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import orjson

from evalcore.errors import ResultsError

log = logging.getLogger(__name__)

Row = dict[str, Any]
Key = tuple[str, int]

GREEDY = -1
"""The sample index of the greedy answer; samples at temperature are 0, 1, 2 …"""


def key_of(row: Row) -> Key:
    """The key of a row; KeyError or TypeError if it has none."""
    problem, sample = row["problem_id"], row["sample"]
    if not isinstance(problem, str) or type(sample) is not int or sample < GREEDY:
        raise TypeError(f"no key: {problem!r}, {sample!r}")
    return problem, sample


class KeySet:
    """A set of keys that stays small: one integer of bits per problem (1.3 million keys in ~2 MB)."""

    def __init__(self) -> None:
        self._bits: dict[str, int] = {}
        self._len = 0

    def add(self, key: Key) -> bool:
        """Add a key; False if it was there already."""
        problem, sample = key
        bits, bit = self._bits.get(problem, 0), 1 << (sample - GREEDY)
        if bits & bit:
            return False
        self._bits[problem] = bits | bit
        self._len += 1
        return True

    def __contains__(self, key: Key) -> bool:
        return bool(self._bits.get(key[0], 0) >> (key[1] - GREEDY) & 1)

    def __len__(self) -> int:
        return self._len


def read_rows(folder: Path, part_id: str) -> Iterator[Row]:
    """Every row of the parts ``<part_id>*.jsonl``, the first of each key, in the order they were written."""
    seen = KeySet()
    for file in part_files(folder, part_id):
        for row in read_part(file):
            if seen.add(key_of(row)):
                yield row


def read_keys(folder: Path, part_id: str) -> KeySet:
    """The keys that are complete."""
    keys = KeySet()
    for file in part_files(folder, part_id):
        for row in read_part(file):
            keys.add(key_of(row))
    return keys


def part_files(folder: Path, part_id: str) -> list[Path]:
    return sorted(folder.glob(f"{part_id}*.jsonl"))


def read_part(file: Path) -> Iterator[Row]:
    """The complete rows of one part; a line that is no row is skipped with a warning, and so is done again."""
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return  # torn: its writer was killed, or is writing it now
            try:
                row = orjson.loads(line)
                key_of(row)
            except (orjson.JSONDecodeError, KeyError, TypeError):
                log.warning("%s:%d: not a row, skipped (%d bytes)", file, number, len(line))
                continue
            yield row


class PartWriter:
    """Appends rows to one part, each with one write, so that a kill tears the last line at most.

    Holds a lock on the part while open: a second writer waits until the first one is done or dead. What is left to
    write is known only then, so keys are read afterwards.
    """

    def __init__(self, folder: Path, part: str) -> None:
        self.path = folder / f"{part}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise ResultsError(f"cannot write {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process, which writes %s", self.path)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        self._cut_torn_line()

    def write(self, row: Row) -> None:
        """Append one row; when the disk is full the rows before stay whole and ResultsError says so."""
        line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
        start = os.fstat(self._fd).st_size
        try:
            written = os.write(self._fd, line)
            if written < len(line):  # a disk that fills up takes a part of the line first
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.ftruncate(self._fd, start)
            raise ResultsError(
                f"cannot write {self.path}: {error.strerror}; what was written before is kept, "
                "run the same command again to go on"
            ) from error

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _cut_torn_line(self) -> None:
        end = size = os.fstat(self._fd).st_size
        while end:
            start = max(0, end - 65536)
            block = os.pread(self._fd, end - start, start)
            if (newline := block.rfind(b"\n")) >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            os.ftruncate(self._fd, end)


def write_file(path: Path, content: bytes | str) -> None:
    """Write a whole file or nothing. ResultsError if it cannot be written."""
    with written_whole(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A stream to a file that is there once all is written: till then in the same folder, under another name.

    What is no plain file (``/dev/stdout``) is written as it comes.

    Raises:
        ResultsError: it cannot be written.
    """
    is_special = path.exists() and not path.is_file()
    temporary = path if is_special else path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            yield stream
        if not is_special:
            temporary.replace(path)
    except BaseException as error:
        if not is_special:
            with suppress(OSError):
                temporary.unlink()
        if isinstance(error, OSError):
            raise ResultsError(f"cannot write {path}: {error.strerror}") from error
        raise
