"""Every evaluation's numbers in one database: SQLite in the home folder, or PostgreSQL where a URL says so.

>>> with open_history() as history:
...     history.record(Path("results/run-7/step-1500/gsm8k"))
...     newest, *older = history.evaluations(run="run-7", benchmark="gsm8k", last=50)
...     pairs = history.pairs(newest.id, older[0].id)["symbolic_correct"]

``EVALCORE_HISTORY`` is the database's URL; without it ``~/.local/share/evalcore/history.sqlite``, which processes of
one machine may share. All tables are named ``evalcore_…``, so that a database may have others' besides. The schema
is brought up to date when it is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalcore.errors import ConfigError

if TYPE_CHECKING:
    from evalcore.history.store import History


def open_history(url: str | None = None) -> History:
    """The history at a URL, by default that of this environment; close it, or use it as a context manager.

    Raises:
        ConfigError: SQLAlchemy, Alembic or the database's driver are not installed; the URL is none.
        ResultsError: the database cannot be reached, used or brought up to date.
    """
    try:
        from evalcore.history import database, store

        return store.History(database.open_engine(url))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("sqlalchemy", "alembic"):
            raise
        raise ConfigError(
            f"the history needs {missing}, which is not installed: pip install 'evalcore[history]'"
        ) from error
