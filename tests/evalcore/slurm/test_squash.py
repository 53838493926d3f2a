"""The job that makes a squashfs file, with an enroot that is a script; see tests/e2e/test_slurm_containers.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from evalcore.slurm import squash

URI = "docker://ubuntu"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "containers" / "ubuntu [1].sqsh"


def make(file: Path, enroot: str | None, *mark: str) -> tuple[int, str]:
    """Exit code and last words of a job whose enroot does this with FILE, where it is to write."""
    folder = file.parents[1] / "bin"
    folder.mkdir(exist_ok=True)
    if enroot is not None:
        (folder / "enroot").write_text(f'#!/bin/sh\nFILE="$3"; echo "$4" >> {folder}/calls\n{enroot}\n')
        (folder / "enroot").chmod(0o755)
    done = subprocess.run(
        [sys.executable, squash.__file__, URI, str(file), *mark],
        env={**os.environ, "PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def imports(file: Path) -> int:
    return (file.parents[1] / "bin" / "calls").read_text().count(URI)


def test_it_is_made_once(file: Path) -> None:
    assert make(file, 'echo squashed > "$FILE"') == (0, "")
    assert file.read_text() == "squashed\n"
    assert make(file, "exit 1") == (0, f"{file} is there already")
    assert imports(file) == 1


def test_a_new_mark_makes_it_anew_once(file: Path) -> None:
    make(file, 'echo old > "$FILE"')
    mark = f"{file}.run-1.made"
    assert make(file, 'echo new > "$FILE"', mark) == (0, "")
    assert file.read_text() == "new\n"
    assert make(file, "exit 1", mark) == (0, f"{file} is there already")


@pytest.mark.parametrize(
    ("enroot", "code", "said"),
    [
        ('echo half > "$FILE"; exit 7', 7, f"evalcore: error: enroot import {URI}: exit code 7"),
        ('echo half > "$FILE"; kill -9 $$', 137, f"evalcore: error: enroot import {URI}: exit code -9"),
        ("true", 1, "No such file or directory"),
    ],
)
def test_what_goes_wrong_is_said_and_leaves_nothing(file: Path, enroot: str, code: int, said: str) -> None:
    mark = f"{file}.run-1.made"
    found = make(file, enroot, mark)
    assert found[0] == code
    assert said in found[1]
    assert "evalcore: error: " in found[1]
    assert [f.name for f in file.parent.iterdir()] == [f".{file.name}.lock"]


def test_without_enroot_it_says_so(file: Path) -> None:
    assert make(file, None) == (1, "evalcore: error: enroot: No such file or directory")


def test_what_one_that_was_killed_left_is_removed_and_nothing_else(file: Path) -> None:
    make(file, 'echo squashed > "$FILE"')
    left, other = file.with_name(f".{file.name}.0.tmp"), file.with_name(".other.sqsh.0.tmp")
    left.touch()
    other.touch()
    file.unlink()
    make(file, 'echo squashed > "$FILE"')
    assert not left.exists()
    assert other.exists()
