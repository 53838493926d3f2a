"""What was found out once, on disk: verdicts and judgements, across checkpoints, benchmarks and runs.

>>> with Cache("grades", ["math", "2", {}]) as cache:
...     cache.put({("2x", "x+x"): [True, "points"]})
...     cache.get([("2x", "x+x"), ("3x", "x+x")])
{('2x', 'x+x'): [True, 'points']}

One SQLite file of a name in ``EVALCORE_CACHE`` or ``~/.cache/evalcore``, shared by all processes of a
machine. A key is the digest of a question and of its scope: everything else that decides the answer. A
file that cannot be used, on a full disk or on a share without locks, costs the time it would have saved
and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import orjson

log = logging.getLogger(__name__)

Question = TypeVar("Question", bound=tuple[str, ...])

_BUSY_SECONDS = 5.0
_AT_ONCE = 500  # variables in one query


def cache_folder() -> Path:
    """Where caches are kept."""
    folder = os.environ.get("EVALCORE_CACHE")
    return Path(folder).expanduser() if folder else Path.home() / ".cache" / "evalcore"


class Cache:
    """Answers to questions of one scope. Use as a context manager, from one thread.

    Args:
        name: of the file, and of what is kept there.
        scope: what decides the answers beside the question, as plain data.
    """

    def __init__(self, name: str, scope: Any) -> None:
        self._scope = orjson.dumps(scope, option=orjson.OPT_SORT_KEYS)
        self._file = cache_folder() / f"{name}.sqlite"
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            # Each statement is a transaction of its own, unless put() says otherwise.
            self._database = sqlite3.connect(self._file, timeout=_BUSY_SECONDS, isolation_level=None)
            # A machine that loses power may spoil the file; waiting for the disk at each answer costs more.
            self._database.execute("PRAGMA synchronous = OFF")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS answers (question BLOB PRIMARY KEY, answer BLOB) WITHOUT ROWID"
            )
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._database:
            self._database.close()

    def get(self, questions: Iterable[Question]) -> dict[Question, Any]:
        """The answers that are known, by question."""
        by_key = {self._key(question): question for question in questions}
        keys, known = list(by_key), {}
        for start in range(0, len(keys), _AT_ONCE):
            if self._database is None:
                break
            part = keys[start : start + _AT_ONCE]
            query = f"SELECT question, answer FROM answers WHERE question IN ({','.join('?' * len(part))})"
            try:
                for key, answer in self._database.execute(query, part):
                    known[by_key[key]] = orjson.loads(answer)
            except (sqlite3.Error, orjson.JSONDecodeError) as error:
                self._give_up(error)
        return known

    def put(self, answers: Mapping[Question, Any]) -> None:
        """Keep some answers, all of them or none; those that are there stay as they are."""
        if self._database is None or not answers:
            return
        rows = [(self._key(question), orjson.dumps(answer)) for question, answer in answers.items()]
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def _key(self, question: Question) -> bytes:
        return hashlib.blake2b(self._scope + orjson.dumps(question), digest_size=16).digest()

    def _give_up(self, error: Exception) -> None:
        log.warning("going on without the cache %s (%s); if that stays so, delete it", self._file, error)
        if self._database:
            self._database.close()
        self._database = None
