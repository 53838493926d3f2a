"""A cache answers what it was told, to the same scope alone; and is never worse than none."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from evalcore.cache import Cache, cache_folder


@pytest.fixture
def folder() -> Path:
    return cache_folder()


def test_answers_are_there_for_the_next_process() -> None:
    program = (
        "from evalcore.cache import Cache\nwith Cache('grades', 1) as c: c.put({('a', 'b'): [True, 'x']})"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    with Cache("grades", 1) as cache:
        assert cache.get([("a", "b"), ("b", "a")]) == {("a", "b"): [True, "x"]}


def test_another_scope_knows_nothing_of_them() -> None:
    with Cache("grades", ["math", "1"]) as cache:
        cache.put({("a", "b"): 1})
    with Cache("grades", ["math", "2"]) as cache:
        assert cache.get([("a", "b")]) == {}


def test_parts_of_a_question_do_not_run_together() -> None:
    with Cache("grades", []) as cache:
        cache.put({("ab", "c"): 1, ("a", "bc"): 2})
        assert cache.get([("ab", "c"), ("a", "bc"), ("abc", "")]) == {("ab", "c"): 1, ("a", "bc"): 2}


def test_more_questions_than_one_query_takes() -> None:
    answers = {(str(i),): i for i in range(1777)}
    with Cache("grades", []) as cache:
        cache.put(answers)
        assert cache.get(answers) == answers


def test_the_first_answer_stays() -> None:
    with Cache("grades", []) as cache:
        cache.put({("a",): 1})
        cache.put({("a",): 2, ("b",): 3})
        assert cache.get([("a",), ("b",)]) == {("a",): 1, ("b",): 3}


def test_two_at_once_both_keep_theirs() -> None:
    with Cache("grades", []) as one, Cache("grades", []) as other:
        one.put({("a",): 1})
        other.put({("b",): 2})
        assert one.get([("a",), ("b",)]) == other.get([("a",), ("b",)]) == {("a",): 1, ("b",): 2}


@pytest.mark.parametrize("content", [b"no database at all, but text of some length" * 50, None])
def test_an_unusable_file_is_said_once_and_does_no_harm(
    folder: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    if content is None:
        (folder / "grades.sqlite").mkdir()
    else:
        (folder / "grades.sqlite").write_bytes(content)
    with caplog.at_level(logging.WARNING), Cache("grades", []) as cache:
        cache.put({("a",): 1})
        assert cache.get([("a",)]) == {}
    assert [r.getMessage().startswith("going on without the cache") for r in caplog.records] == [True]


def test_the_order_of_what_decides_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALCORE_CACHE", str(tmp_path))
    with Cache("g", {"a": 1, "b": 2}) as cache:
        cache.put({("q",): 1})
    with Cache("g", {"b": 2, "a": 1}) as cache:
        assert cache.get([("q",)]) == {("q",): 1}


def test_a_row_that_is_spoilt_costs_the_cache_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALCORE_CACHE", str(tmp_path))
    with Cache("g", []) as cache:
        cache.put({("q",): 1})
    with sqlite3.connect(tmp_path / "g.sqlite") as database:
        database.execute("UPDATE answers SET answer = '{'")
    database.close()
    with Cache("g", []) as cache:
        assert cache.get([("q",)]) == {}


def test_a_home_in_the_caches_folder_is_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALCORE_CACHE", "~/x")
    assert cache_folder() == Path.home() / "x"
