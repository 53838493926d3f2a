"""The schema and its migrations, and what is said of a database that cannot be used."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, func, insert, inspect, select, text

from evalcore.errors import ConfigError, ResultsError
from evalcore.history import database, open_history, schema
from evalcore.history.alarms import Alarms, Kind, State, Suspicion
from evalcore.regression.confirmation import to_confirm
from evaluations import checkpoint, record
from waiting import LONG

pytestmark = pytest.mark.slow

PROCESSES = 4
OPEN = """
import sys, alembic.command
from evalcore.history import database, open_history
print("ready", flush=True)
sys.stdin.readline()
open_history(sys.argv[1]).close()
"""


def tables(url: str) -> set[str]:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_the_migrations_make_the_tables_that_the_code_knows(url: str) -> None:
    engine = database.open_engine(url)
    with database.writing(engine).begin() as connection:
        connection.execute(text("CREATE TABLE somebody_elses (id INTEGER)"))
        config = Config()
        config.set_main_option("script_location", str(database.MIGRATIONS))
        config.attributes["connection"] = connection
        command.check(config)
    engine.dispose()
    assert set(schema.METADATA.tables) | {"somebody_elses"} == tables(url)


def test_the_newest_migration_is_the_one_the_code_knows() -> None:
    assert ScriptDirectory(str(database.MIGRATIONS)).get_heads() == [schema.REVISION]


def test_a_database_that_is_up_to_date_is_left_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_history(url).close()
    monkeypatch.setitem(sys.modules, "alembic", None)
    open_history(url).close()


@pytest.mark.slow
def test_processes_that_open_a_new_database_at_once(url: str) -> None:
    opening = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    for process in opening:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in opening:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=LONG)[1] for process in opening]
    assert not any(errors), errors
    assert tables(url) == set(schema.METADATA.tables)


@pytest.fixture
def next_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a migration after the last one, of a later version of evalcore."""
    later = tmp_path / "100% migrations"
    shutil.copytree(database.MIGRATIONS, later)
    monkeypatch.setattr(database, "MIGRATIONS", later)
    monkeypatch.setattr(schema, "REVISION", "later")
    return later / "versions" / "later.py"


NEWEST = schema.REVISION
LATER = f"""
from alembic import op
import sqlalchemy as sa
revision, down_revision = "later", "{schema.REVISION}"
def upgrade():
    op.create_table("evalcore_later", sa.Column("id", sa.Integer))
"""


def test_a_database_of_an_earlier_version_is_migrated(url: str, next_migration: Path) -> None:
    schema_now = {"evalcore_later", *schema.METADATA.tables}
    with pytest.MonkeyPatch.context() as earlier:
        earlier.setattr(schema, "REVISION", NEWEST)
        open_history(url).close()
    next_migration.write_text(LATER)
    assert "evalcore_later" not in tables(url)
    open_history(url).close()
    assert tables(url) == schema_now


@contextmanager
def of_revision(url: str, revision: str) -> Iterator[Connection]:
    """A database as an earlier version left it, after what is done in the block."""
    engine = create_engine(database._checked(url))
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir()
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(database.MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        yield connection
    engine.dispose()


def test_what_the_first_version_recorded_is_kept(url: str) -> None:
    with of_revision(url, "0001") as connection:
        connection.execute(insert(schema.checkpoints).values(run="r", name="step-1", digest="d", step=1))
    assert "evalcore_alarms" not in tables(url)
    with open_history(url) as history, history.reading() as connection:
        assert connection.scalar(select(schema.checkpoints.c.name)) == "step-1"
    assert set(schema.METADATA.tables) == tables(url)


@pytest.mark.parametrize(("state", "held"), [(State.HELD, "it moved"), (State.SUSPECTED, "")])
def test_alarms_of_before_it_was_known_what_raises_them_are_kept(url: str, state: State, held: str) -> None:
    now = datetime.now(UTC)
    with of_revision(url, "0002") as connection:
        rows = {
            schema.checkpoints: {"run": "r", "name": "step-1", "digest": "d", "step": 1},
            schema.fingerprints: {"fingerprint": "f", "parts": {}},
            schema.evaluations: {"checkpoint_id": 1, "fingerprint": "f", "benchmark": "toy", "samples": 4}
            | {"server": {}, "complete": True, "evaluated_at": now, "scorecard": "s"}
            | dict.fromkeys(("folder", "settings", "evalcore"), "")
            | dict.fromkeys(("greedy", "judged", "needs_judge"), False),
            schema.alarms: {"run": "r", "benchmark": "toy", "kind": "regression", "state": state}
            | {"baseline_id": 1, "evaluation_id": 1, "base_evaluation_id": 1, "margin": 0.01, "alpha": 0.05}
            | {"reason": held, "raised_at": now, "note": ""},
        }
        for table, row in rows.items():
            connection.execute(insert(table).values(row))
    with open_history(url) as history:
        (kept,) = Alarms(history).find(state=state)
        assert (kept.reason, kept.raised_by, kept.confirming) == (held, {}, "")
        assert to_confirm(history) == [], "where it was found is not known, nor how to ask again"
        run = {"evaluation": "ckpt__1", "params": {"cluster": "local"}}
        again = Suspicion(Kind.REGRESSION, 1, 1, 0.01, 0.05)
        (known,) = Alarms(history).raise_([again], held=held, raised_by=run)
        assert (known.id, known.state, known.raised_by) == (kept.id, state, run)
        assert to_confirm(history) == [known]


def test_a_migration_that_fails_leaves_nothing_behind(url: str, next_migration: Path) -> None:
    with pytest.MonkeyPatch.context() as earlier:
        earlier.setattr(schema, "REVISION", NEWEST)
        open_history(url).close()
    next_migration.write_text(LATER + '    raise ArithmeticError("half-way")\n')
    with pytest.raises(ArithmeticError):
        open_history(url)
    assert "evalcore_later" not in tables(url)
    next_migration.write_text(LATER)
    open_history(url).close()
    assert "evalcore_later" in tables(url)


def test_a_database_of_a_newer_version_is_refused(url: str) -> None:
    engine = database.open_engine(url)
    with database.writing(engine).begin() as connection:
        connection.execute(text("UPDATE evalcore_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(ResultsError, match=rf"newer evalcore \(schema 9999, here {schema.REVISION}\)"):
        open_history(url)


def test_migrations_that_are_not_there_are_no_newer_version(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "MIGRATIONS", tmp_path / "nowhere")
    with pytest.raises(ResultsError, match=r"cannot be brought up to date: .*nowhere"):
        open_history(url)


def test_a_reader_sees_the_database_as_it_was_at_its_first_query(url: str) -> None:
    engine = database.open_engine(url)
    count = select(func.count()).select_from(schema.problems)
    with database.reading(engine).connect() as reader:
        assert reader.scalar(count) == 0
        if engine.dialect.name == "postgresql":  # SQLite's writers wait for the reader instead
            with database.writing(engine).begin() as writer:
                writer.execute(insert(schema.problems), {"digest": "d", "content": b""})
        assert reader.scalar(count) == 0
    engine.dispose()


def test_by_default_it_lies_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVALCORE_HISTORY")
    monkeypatch.setenv("HOME", str(tmp_path))
    open_history().close()
    assert (tmp_path / ".local" / "share" / "evalcore" / "history.sqlite").is_file()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("secret of mine", "is no URL of a database; expected sqlite:////"),
        ("mysql://me:secret@host/db", "mysql is not supported; expected sqlite:////"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_a_wrong_url(wrong: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_history(wrong)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        ResultsError, match=r"the history postgresql\+psycopg://me:\*\*\*@/db\S*: .*"
    ) as refused:
        open_history(f"postgresql://me:secret@/db?host={tmp_path}")
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "history.sqlite").write_text("not a database, but a text of some length" * 100)
    with pytest.raises(ResultsError, match="not a database"):
        open_history(f"sqlite:///{tmp_path}/history.sqlite")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match="cannot be kept in"):
        open_history(f"sqlite:///{tmp_path}/file/history.sqlite")


@pytest.mark.parametrize(
    ("missing", "extra"), [("sqlalchemy", "history"), ("alembic", "history"), ("psycopg", "postgres")]
)
def test_what_is_not_installed_is_said_in_one_line(missing: str, extra: str, tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules[{missing!r}] = None
from evalcore.cli import main
main(["history"])
"""
    url = "postgresql:///nowhere" if extra == "postgres" else f"sqlite:///{tmp_path}/history.sqlite"
    env = {**os.environ, "EVALCORE_HISTORY": url}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("evalcore: error: the history")
    assert f"needs {missing}, which is not installed: pip install 'evalcore[{extra}]'" in line


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql+nope://me:hidden@h/d", r"the driver postgresql\+nope cannot be used"),
        ("sqlite+aiosqlite:////tmp/h.sqlite", r"the driver sqlite\+aiosqlite cannot be used"),
        ("sqlite:///~nobody-of-that-name/h.sqlite", "no such user's home"),
    ],
)
def test_a_url_that_opens_nothing_is_said_to_be_one(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        open_history(url)
    assert "hidden" not in str(error.value)


def test_a_database_that_is_damaged_within_is_said_to_be(tmp_path: Path) -> None:
    file = tmp_path / "history.sqlite"
    with open_history(f"sqlite:///{file}") as history:
        record(history, tmp_path / "results", checkpoint("run", 1), [4] * 9)
        with closing(sqlite3.connect(file)) as database:
            found = "SELECT rootpage FROM sqlite_master WHERE name = 'evalcore_evaluations'"
            page = database.execute(found).fetchone()[0]
            size = database.execute("PRAGMA page_size").fetchone()[0]
    content = bytearray(file.read_bytes())
    content[(page - 1) * size : page * size] = b"\xff" * size
    file.write_bytes(content)
    with open_history(f"sqlite:///{file}") as history, pytest.raises(ResultsError, match="malformed"):
        history.evaluations(run="run")
