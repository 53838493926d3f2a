"""What runs a job's command on its node, as a process beside a job's folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evalcore.slurm import supervise
from seen_processes import is_alive
from waiting import started, until

# They start processes, and wait for them.
pytestmark = pytest.mark.slow

SUPERVISE = [sys.executable, str(Path(supervise.__file__))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "result.json").write_text(" " * 512)
    return tmp_path


def prepare(folder: Path, script: str, **command: Any) -> None:
    (folder / "command.json").write_text(json.dumps({"argv": ["bash", "-c", script], **command}))


def run(folder: Path, script: str, *, task: int | None = None, **command: Any) -> tuple[int, str]:
    """Exit code and output of a job."""
    prepare(folder, script, **command)
    array = {"SLURM_ARRAY_TASK_ID": str(task)} if task is not None else {}
    env = {**os.environ, "A": "job's", "B": "job's", "C": "job's", **array}
    done = subprocess.run([*SUPERVISE, str(folder)], capture_output=True, text=True, env=env, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def result(folder: Path, name: str = "result.json") -> tuple[Any, ...]:
    text = (folder / name).read_text()
    assert len(text) == 512
    found = json.loads(text)
    return found["exit_code"], found["signal"], found["terminated"]


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("exit 0", 0, (0, None, False)),
        ("exit 3", 3, (3, None, False)),
        ("kill -9 $$", 137, (None, 9, False)),
    ],
)
def test_how_a_command_ends(folder: Path, script: str, code: int, said: tuple[Any, ...]) -> None:
    assert run(folder, script)[0] == code
    assert result(folder) == said


def test_a_step_that_a_signal_ended_says_so_by_its_exit_code(folder: Path) -> None:
    assert run(folder, "exit 137", step=True)[0] == 137
    assert result(folder) == (None, 9, False)
    assert run(folder, "exit 137")[0] == 137
    assert result(folder) == (137, None, False)


def test_a_command_that_is_not_there(folder: Path) -> None:
    (folder / "command.json").write_text('{"argv": ["no-such-command"]}')
    done = subprocess.run([*SUPERVISE, str(folder)], capture_output=True, text=True, check=False)
    assert done.stdout == "evalcore: error: cannot run no-such-command: No such file or directory\n"
    assert (done.returncode, result(folder)) == (127, (127, None, False))


def test_secrets_go_before_the_commands_variables_and_those_before_the_jobs(folder: Path) -> None:
    (folder / "secrets.json").write_text('{"A": "secret"}')
    said = run(folder, f"echo $A $B $C; ls {folder}", env={"A": "command's", "B": "command's"})[1]
    assert said.splitlines()[0] == "secret command's job's"
    assert "secrets.json" not in said, "deleted before the command starts"


def test_a_job_is_no_remote_shell_that_runs_its_users_bashrc(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / ".bashrc").write_text("echo noise\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SSH_CLIENT", "127.0.0.1 4711 22")
    monkeypatch.delenv("SHLVL", raising=False)  # bash reads it for the outermost shell alone
    assert run(folder, "echo ${SSH_CLIENT-none}") == (0, "none\n")


def test_a_task_of_an_array_has_files_of_its_own(folder: Path) -> None:
    (folder / "result-3.json").write_text(" " * 512)
    for task in (3, 4):
        (folder / f"secrets-{task}.json").write_text(json.dumps({"A": f"of {task}"}))
    assert run(folder, "echo $A; exit 5", task=3) == (5, "of 3\n")
    assert result(folder, "result-3.json") == (5, None, False)
    assert (folder / "result.json").read_text() == " " * 512
    assert [f.name for f in folder.glob("secrets*")] == ["secrets-4.json"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("end", [("exit 143", (143, None, True)), ("exit 0", (0, None, True))])
def test_what_is_told_to_stop_may_finish_what_it_has_begun(
    folder: Path, number: int, end: tuple[str, tuple[Any, ...]]
) -> None:
    prepare(folder, f"trap 'touch {folder}/told; {end[0]}' TERM; touch {folder}/up; sleep 300 & wait")
    with started([*SUPERVISE, str(folder)], stdout=subprocess.PIPE) as job:
        until(lambda: (folder / "up").exists(), "the command")
        job.send_signal(number)
        said, _ = job.communicate(timeout=60)
    assert (folder / "told").exists()
    assert b"told to stop" in said
    assert result(folder) == end[1]


def test_on_a_full_disk_a_command_is_stopped_and_has_its_result(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # with it nothing is left in a buffer
    prepare(folder, f"trap 'exit 5' TERM; touch {folder}/up; sleep 300 & wait")
    with open("/dev/full", "w") as log, started([*SUPERVISE, str(folder)], stdout=log, stderr=log) as job:
        until(lambda: (folder / "up").exists(), "the command")
        job.terminate()
        assert job.wait(60) == 5
    assert result(folder) == (5, None, True)


def test_what_a_command_leaves_behind_does_not_outlive_it(folder: Path) -> None:
    _, said = run(folder, "sleep 300 > /dev/null 2>&1 & echo $!")
    left = int(said)
    until(lambda: not is_alive(left), "its end")


@pytest.mark.parametrize(("exit_code", "number", "ends_with"), [(0, None, 0), (3, None, 3), (None, 9, 137)])
def test_a_disk_without_room_for_the_result_does_not_change_how_a_job_ends(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    exit_code: int | None,
    number: int | None,
    ends_with: int,
) -> None:
    monkeypatch.setattr(supervise, "_RESULT_PATIENCE", 0.0)
    full = tmp_path / "result.json"
    full.symlink_to("/dev/full")
    result = {"exit_code": exit_code, "signal": number, "terminated": False}
    assert supervise._write(str(full), result) == ends_with
    assert capfd.readouterr().out == f"evalcore: cannot write {full}: No space left on device\n"
