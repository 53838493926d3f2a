from __future__ import annotations

import os
from pathlib import Path

import pytest

from evalcore import jobs
from evalcore.backends import LOG_BYTES, Local, Look, reason
from waiting import until


def ended(root: Path, script: str) -> Look:
    local = Local(root)
    job = local.ensure("a", ["bash", "-c", script], os.environ)
    until(lambda: local.look({job: 0})[job].status.state.is_over)
    return local.look({job: 0})[job]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo evalcore: error: gsm8k: no such file; echo bye; exit 3", "gsm8k: no such file"),
        ("echo KeyError; exit 1", "failed with exit code 1: KeyError"),
        ("exit 1", "failed with exit code 1: no output"),
        ("printf 'one\\nno GPU'; exit 1", "failed with exit code 1: no GPU"),
    ],
)
def test_the_reason_is_the_commands_last_error_or_its_status_and_last_line(
    tmp_path: Path, script: str, said: str
) -> None:
    assert reason(ended(tmp_path, script)) == said


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["evalcore: error: first", "evalcore: error: last", "bye"], "last"),
        (["one", "two", " "], "failed with exit code 1: two"),
        (["evalcore: error: " + "x" * 999], "x" * 500),
        (["y" * 999], "failed with exit code 1: " + "y" * 500),
    ],
)
def test_the_reason_is_one_line_and_the_last_that_says_something(lines: list[str], said: str) -> None:
    assert reason(Look(jobs.Status(jobs.State.FAILED, exit_code=1), lines, 0)) == said


def test_of_a_long_log_its_end_is_returned(tmp_path: Path) -> None:
    found = ended(tmp_path, f"seq 1 {LOG_BYTES}; echo evalcore: error: too long; exit 1")
    assert reason(found) == "too long"
    assert found.log[-2] == str(LOG_BYTES)
    assert sum(len(line) + 1 for line in found.log) <= LOG_BYTES
    job = jobs.latest(tmp_path, "a")
    assert job is not None
    again = Local(tmp_path).look({str(job): found.offset})[str(job)]
    assert (again.log, again.offset) == ([], found.offset), "nothing is returned twice"


def test_a_line_that_is_written_while_the_log_is_read_stays_one(tmp_path: Path) -> None:
    (tmp_path / jobs.LOG).write_text("one\ntw")
    pieces = Local(tmp_path).log(str(tmp_path))
    first = next(pieces)
    with (tmp_path / jobs.LOG).open("a") as log:
        log.write("o\nthree")
    assert first + "".join(pieces) == "one\ntwo\nthree\n"
