"""Rows survive a kill at any byte, and a full disk loses nothing that was written."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from evalcore.errors import ResultsError
from evalcore.records import (
    GREEDY,
    KeySet,
    PartWriter,
    key_of,
    read_keys,
    read_part,
    read_rows,
    write_file,
    written_whole,
)
from waiting import until

ROWS = [{"problem_id": f"p{i}", "sample": i % 3 - 1, "generation": "née\n" * i} for i in range(6)]


def write(folder: Path, part: str, rows: list[dict[str, object]]) -> Path:
    with PartWriter(folder, part) as writer:
        for row in rows:
            writer.write(row)
        return writer.path


def test_a_part_cut_at_any_byte_is_completed_without_loss_or_double(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", "id-0", ROWS).read_bytes()
    folder = tmp_path / "cut"
    for length in range(len(whole) + 1):
        folder.mkdir(exist_ok=True)
        (folder / "id-0.jsonl").write_bytes(whole[:length])
        done = read_keys(folder, "id")
        assert len(done) == whole[:length].count(b"\n")
        write(folder, "id-0", [row for row in ROWS if key_of(row) not in done])
        assert (folder / "id-0.jsonl").read_bytes() == whole


def test_first_complete_row_of_a_key_wins_over_parts(tmp_path: Path) -> None:
    write(tmp_path, "id-0", [{"problem_id": "a", "sample": 0, "generation": "first"}])
    write(tmp_path, "id-1", [{"problem_id": "a", "sample": 0, "generation": "second"}])
    write(tmp_path, "other-0", [{"problem_id": "b", "sample": 0, "generation": "of another setting"}])
    assert [row["generation"] for row in read_rows(tmp_path, "id")] == ["first"]


def test_a_damaged_line_is_skipped_with_a_warning_and_counts_as_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, "id-0", ROWS[:2])
    damaged = [
        b"\0\0\0",
        b'{"no": "key"}',
        b'{"problem_id": "x", "sample": -5}',
        b'{"problem_id": [], "sample": 0}',
    ]
    path.write_bytes(b"".join(line + b"\n" for line in damaged) + path.read_bytes())
    assert list(read_part(path)) == ROWS[:2]
    warned = [f"{path.name}:{n}: not a row" in caplog.text for n in range(1, 6)]
    assert warned == [True, True, True, True, False]


def test_a_second_writer_waits_for_the_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with ThreadPoolExecutor() as threads:
        with PartWriter(tmp_path, "id-0") as first:
            waiting = threads.submit(PartWriter, tmp_path, "id-0")
            until(lambda: "waiting for another process" in caplog.text, "the second writer")
            first.write(ROWS[0])
        with waiting.result(timeout=60) as second:
            second.write(ROWS[1])
    assert list(read_rows(tmp_path, "id")) == ROWS[:2]


def test_a_full_disk_is_one_line_and_keeps_the_rows_before(tmp_path: Path) -> None:
    # A file size limit takes the first part of a line and refuses the rest, as a full disk does.
    code = """
import resource, signal, sys
from pathlib import Path
from evalcore.errors import ResultsError
from evalcore.records import PartWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
with PartWriter(Path(sys.argv[1]), "id-0") as part:
    try:
        for i in range(100):
            part.write({"problem_id": f"p{i}", "sample": 0, "generation": "x" * 90})
    except ResultsError as error:
        print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "run the same command again" in result.stdout
    assert result.stdout.count("\n") == 1
    content = (tmp_path / "id-0.jsonl").read_bytes()
    assert content.endswith(b"\n")
    assert len(list(read_rows(tmp_path, "id"))) == content.count(b"\n") == 7


def test_key_set_is_a_set_of_keys() -> None:
    keys = KeySet()
    assert [keys.add(("a", s)) for s in (GREEDY, 0, 63, 0)] == [True, True, True, False]
    assert len(keys) == 3
    assert ("a", 63) in keys
    assert ("a", 62) not in keys
    assert ("b", 0) not in keys


def test_write_file_is_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.json"
    write_file(target, "old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limit[1]))
        with pytest.raises(ResultsError, match=r"cannot write .*file\.json"):
            write_file(target, "new" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert target.read_text() == "old"
    before = target.stat().st_ino
    write_file(target, "old")
    assert target.stat().st_ino != before, "written beside and renamed, not in place"
    assert [p.name for p in target.parent.iterdir()] == ["file.json"]


def test_two_that_write_a_file_at_once_do_not_meet(tmp_path: Path) -> None:
    # Of one process here; on two hosts, or in two containers, they may have the same pid.
    target = tmp_path / "file.json"
    with written_whole(target) as first:
        first.write(b"first")
        with written_whole(target) as second:
            second.write(b"second")
        assert target.read_bytes() == b"second"
    assert target.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [target]


def test_write_file_below_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match=r"cannot write .*: (Not a directory|File exists)"):
        write_file(tmp_path / "file" / "below.json", "x")
