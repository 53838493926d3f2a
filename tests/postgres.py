"""A real PostgreSQL on a Unix socket, for as long as it is needed; its files are gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from demo import packages
from waiting import until

USER = "postgres"
STOP_SECONDS = 300


@contextmanager
def running() -> Iterator[str]:
    """The URL of a server without its database: ``postgresql://postgres@/{}?host=…``. Needs no root, but takes it."""
    programs = packages.postgres_programs()
    assert programs, packages.how_to_install(packages.missing_for_postgres())
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))  # sockets want a short name
    # It refuses to be run by root.
    user: dict[str, Any] = {"user": USER, "extra_groups": []} if os.geteuid() == 0 else {}
    if user:
        shutil.chown(folder, USER)
    data = folder / "data"
    try:
        initdb = [programs / "initdb", "--auth=trust", f"--username={USER}", "--no-sync", "-E", "UTF8", data]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=folder, **user)
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, "-k", folder, "-h", "", "-F"],
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,
                **user,
            )
        try:
            ready = [programs / "pg_isready", "-q", "-h", folder, "-U", USER]
            until(lambda: server.poll() is not None or subprocess.run(ready).returncode == 0, "PostgreSQL")
            assert server.poll() is None, (folder / "log").read_text()
            yield f"postgresql://{USER}@/{{}}?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)  # its fast shutdown: clients are disconnected
            server.wait(STOP_SECONDS)
    finally:
        shutil.rmtree(folder)


def create_database(server: str, name: str) -> str:
    """An empty database on a running server; returns its URL."""
    _execute(server.format(USER), f'CREATE DATABASE "{name}"')
    return server.format(name)


def drop_database(url: str) -> None:
    """End a database with all connections to it."""
    before, _, query = url.partition("?")
    server, _, name = before.rpartition("/")
    _execute(f"{server}/{USER}?{query}", f'DROP DATABASE "{name}" WITH (FORCE)')


def size_of(url: str) -> int:
    """Bytes of a database, with its indexes."""
    with psycopg.connect(url) as connection:
        [size] = connection.execute("SELECT pg_database_size(current_database())").fetchone() or [0]
        return int(size)


def _execute(url: str, command: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(command)
