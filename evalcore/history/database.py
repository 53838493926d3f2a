"""The database's engine, and its schema: brought up to date by one process at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, exc, inspect, make_url, select, text
from sqlalchemy.engine import URL

from evalcore.errors import ConfigError, ResultsError
from evalcore.history import schema

MIGRATIONS = Path(__file__).with_name("migrations")

_BUSY_SECONDS = 60
_LOCK = 0x6576616C636F7265  # of PostgreSQL's advisory locks; the letters of evalcore


class HistoryError(ResultsError):
    """The database cannot be reached, read or written now: of what it holds that says nothing."""


def history_url() -> str:
    """``EVALCORE_HISTORY``, or SQLite in the home folder. May hold a password."""
    url = os.environ.get("EVALCORE_HISTORY")
    return url or f"sqlite:///{Path.home() / '.local' / 'share' / 'evalcore' / 'history.sqlite'}"


def open_engine(given: str | None = None) -> Engine:
    """An engine on a database of the newest schema.

    Raises:
        ConfigError: no URL of SQLite or PostgreSQL, or its driver is not installed.
        ResultsError: the database cannot be reached, used or brought up to date.
    """
    url = _checked(given or history_url())
    try:
        engine = (
            _sqlite(url) if url.get_backend_name() == "sqlite" else create_engine(url, pool_pre_ping=True)
        )
    except ImportError as error:
        raise ConfigError(
            f"the history {_shown(url)} needs {error.name}, which is not installed: "
            "pip install 'evalcore[postgres]'"
        ) from error
    try:
        with said(engine, exc.DatabaseError):
            migrate(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _checked(given: str) -> URL:
    valid = "expected sqlite:////path/history.sqlite or postgresql://user@host/database"
    try:
        url = make_url(given)
        backend = url.get_backend_name()
    except (exc.ArgumentError, ValueError):
        # Not what was given: there may be a password in it.
        raise ConfigError(f"EVALCORE_HISTORY is no URL of a database; {valid}") from None
    if backend not in ("sqlite", "postgresql", "postgres"):
        raise ConfigError(f"EVALCORE_HISTORY: {backend} is not supported; {valid}")
    if url.drivername in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    try:
        is_known = not url.get_dialect().is_async
    except exc.ArgumentError:
        is_known = False
    if not is_known:
        raise ConfigError(f"EVALCORE_HISTORY: the driver {url.drivername} cannot be used; {valid}")
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigError(f"EVALCORE_HISTORY names no file; {valid}")
    return url


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _sqlite(url: URL) -> Engine:
    try:
        file = Path(url.database or "").expanduser()
    except RuntimeError as error:
        raise ConfigError(f"EVALCORE_HISTORY: {url.database}: there is no such user's home") from error
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"the history cannot be kept in {file.parent}: {error.strerror}") from error
    engine = create_engine(url.set(database=str(file)), connect_args={"timeout": _BUSY_SECONDS})

    # The driver begins a transaction before it writes, not before it reads, and none before CREATE TABLE. So we do:
    # one that is going to write at once as the only one, since two that have read wait for each other in vain.
    @event.listens_for(engine, "connect")
    def no_transactions_of_its_own(connection: Any, _: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextmanager
def said(engine: Engine, kind: type[exc.DatabaseError] = exc.OperationalError) -> Iterator[None]:
    """What is the database's fault and not ours, as a HistoryError of one line."""
    try:
        yield
    except exc.DatabaseError as error:
        # Of that class itself is what SQLite finds damaged; those derived from it, but for one, are mistakes of ours.
        if not isinstance(error, kind) and type(error) is not exc.DatabaseError:
            raise
        reason = " ".join(str(error.orig).split())
        raise HistoryError(f"the history {_shown(engine.url)}: {reason}") from error


def writing(engine: Engine) -> Engine:
    """For transactions that write."""
    return engine.execution_options(writes=True)


def reading(engine: Engine) -> Engine:
    """For transactions that see the database as it was at their first query."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="REPEATABLE READ")
    return engine


def migrate(engine: Engine) -> None:
    """Bring the schema up to date, in one transaction: an interrupted one leaves nothing behind.

    Raises:
        ResultsError: the database is of a newer evalcore, or this one's migrations cannot be run.
    """
    with reading(engine).connect() as connection:
        if _revision(connection) == schema.REVISION:
            return
    # Before it is imported, since it tells of that too, and of each step: nobody asked for it.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Only now, since it takes longer to import than most questions to be answered.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with writing(engine).begin() as connection:
        if engine.dialect.name == "postgresql":
            # Another process's migration is waited for, and then there is nothing left to do.
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            found, shown = _revision(connection), _shown(engine.url)
            if found is None or found <= schema.REVISION:
                raise ResultsError(f"the history {shown} cannot be brought up to date: {error}") from error
            raise ResultsError(
                f"the history {shown} was written by a newer evalcore "
                f"(schema {found}, here {schema.REVISION}); install that one"
            ) from error


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(schema.version.name):
        return None
    return connection.scalar(select(schema.version.c.version_num))
