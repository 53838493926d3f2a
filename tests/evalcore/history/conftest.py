"""Every test of the history is of SQLite and of a real PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

import postgres
from cluster_folder import cannot
from demo import packages
from evalcore.history import open_history
from evalcore.history.store import History

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    if missing := packages.missing_for_postgres():
        cannot(packages.how_to_install(missing))
    with postgres.running() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database of one test, not there yet or empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new/history.sqlite"
    return postgres.create_database(request.getfixturevalue("postgres_server"), f"test{next(_numbers)}")


@pytest.fixture
def history(url: str) -> Iterator[History]:
    with open_history(url) as opened:
        yield opened
