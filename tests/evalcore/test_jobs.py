from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from evalcore import jobs
from evalcore.errors import JobError
from evalcore.jobs import State
from seen_processes import command_of, is_alive, supervisor_of
from waiting import bystander, until

# They start processes, and wait for them.
pytestmark = pytest.mark.slow

SLEEP = ["sleep", "300"]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder for jobs; whatever runs in it is stopped after the test."""
    yield tmp_path
    for job in jobs.running(tmp_path):
        if (job / jobs.PIDS).is_file():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ends just now
                supervisor_of(job).kill()
    for lock in tmp_path.glob("*/*/lock"):
        jobs._kill_marked(lock.parent)


def sh(script: str) -> list[str]:
    return ["bash", "-c", script]


def stubborn(end: Path) -> list[str]:
    """Ignores SIGTERM until that file is there."""
    return sh(f"trap '' TERM; echo up; while [ ! -e {end} ]; do sleep 0.02; done; exit 1")


def waiting_for(file: Path, then: str) -> list[str]:
    return sh(f"while [ ! -e {file} ]; do sleep 0.02; done; {then}")


def ended(job: Path) -> jobs.Status:
    until(lambda: jobs.status(job).state.is_over, f"the end of {job}")
    return jobs.status(job)


def test_a_job_runs_to_its_end_and_its_log_has_what_it_printed(root: Path) -> None:
    job = jobs.ensure(root, "a", sh("echo one; echo two >&2"))
    assert ended(job) == jobs.Status(State.SUCCEEDED, exit_code=0)
    assert jobs.tail(job) == ["one", "two"]
    assert job == root / "a" / "1"


def test_its_own_exit_code_is_a_failure(root: Path) -> None:
    job = jobs.ensure(root, "a", sh("exit 3"))
    assert ended(job) == jobs.Status(State.FAILED, exit_code=3)
    assert str(jobs.status(job)) == "failed with exit code 3"


def test_a_command_that_does_not_exist_fails_and_says_so(root: Path) -> None:
    job = jobs.ensure(root, "a", ["no-such-command"])
    assert ended(job) == jobs.Status(State.FAILED, exit_code=127)
    assert jobs.tail(job) == ["evalcore: error: cannot run no-such-command: No such file or directory"]


def test_who_watches_over_a_command_is_written_down_before_it_can_fill_the_disk(root: Path) -> None:
    job = jobs.ensure(root, "a", ["no-such-command"])
    assert ended(job).exit_code == 127
    assert jobs.read_json(job / jobs.PIDS)["supervisor"]


def test_a_running_job_is_found_again_and_not_started_twice(root: Path) -> None:
    job = jobs.ensure(root, "a", SLEEP)
    assert jobs.ensure(root, "a", SLEEP) == job
    assert jobs.status(job).state is State.RUNNING


def test_the_jobs_that_run_are_listed(root: Path) -> None:
    job = jobs.ensure(root, "a", SLEEP)
    ended(jobs.ensure(root, "b", ["true"]))
    assert jobs.running(root) == [job]


def test_a_result_is_found_until_it_is_consumed(root: Path) -> None:
    job = jobs.ensure(root, "a", ["true"])
    ended(job)
    assert jobs.ensure(root, "a", ["true"]) == job
    jobs.consume(job)
    assert jobs.ensure(root, "a", ["true"]) == root / "a" / "2"


def test_another_command_of_the_same_name_cancels_the_first(root: Path) -> None:
    first = jobs.ensure(root, "a", SLEEP)
    second = jobs.ensure(root, "a", ["true"])
    assert second != first
    assert jobs.status(first).state is State.CANCELLED


def test_submitted_at_once_by_many_it_starts_once(root: Path) -> None:
    go = root / "go"
    command = waiting_for(go, f"echo x >> {root}/starts")
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(jobs.ensure(root, "a", command))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    go.touch()
    assert ended(root / "a" / "1").state is State.SUCCEEDED
    assert found == [root / "a" / "1"] * 8
    assert [path.name for path in (root / "a").iterdir()] == ["1"]
    assert (root / "starts").read_text() == "x\n"


def test_a_job_outlives_the_process_group_that_submitted_it(root: Path) -> None:
    go = root / "go"
    code = (
        "import sys, time; from pathlib import Path; from evalcore import jobs;"
        f"jobs.ensure(Path({str(root)!r}), 'a', {waiting_for(go, 'echo alive')!r});"
        "print('up', flush=True); time.sleep(300)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as submitter:
        try:
            assert submitter.stdout is not None
            assert submitter.stdout.readline() == "up\n"
        finally:
            os.killpg(submitter.pid, signal.SIGKILL)
    go.touch()
    assert ended(root / "a" / "1").state is State.SUCCEEDED
    assert jobs.tail(root / "a" / "1") == ["alive"]


def test_a_killed_command_is_tried_again_a_limited_number_of_times(root: Path) -> None:
    for attempt in (1, 2, 3):
        job = jobs.ensure(root, "a", SLEEP)
        assert job.name == str(attempt)
        command_of(job).kill()
        assert ended(job) == jobs.Status(State.KILLED, signal=signal.SIGKILL)
    with pytest.raises(JobError, match="killed by SIGKILL, 3 times in a row"):
        jobs.ensure(root, "a", SLEEP)
    # That was its outcome, and was reported; whoever asks now wants it tried again.
    assert jobs.ensure(root, "a", SLEEP).name == "4"


def test_what_was_reported_does_not_count_as_tried(root: Path) -> None:
    for attempt in (1, 2, 3):
        job = jobs.ensure(root, "a", SLEEP)
        command_of(job).kill()
        ended(job)
        if attempt == 2:
            jobs.consume(job)
    assert jobs.ensure(root, "a", SLEEP).name == "4"


def test_with_its_supervisor_the_command_dies_and_the_job_is_lost(root: Path) -> None:
    job = jobs.ensure(root, "a", SLEEP)
    command = command_of(job).pid
    supervisor_of(job).kill()
    until(lambda: not is_alive(command))
    assert ended(job).state is State.LOST
    assert jobs.ensure(root, "a", SLEEP).name == "2"


def test_the_next_attempt_first_kills_what_a_lost_one_left_behind(root: Path) -> None:
    # As a server in a session of its own, which the kernel does not kill with the supervisor.
    job = jobs.ensure(root, "a", sh(f"setsid sleep 301 & echo $! > {root}/left; sleep 300"))
    left = int(until(lambda: (root / "left").exists() and (root / "left").read_text()))
    supervisor_of(job).kill()
    until(lambda: jobs.status(job).state is State.LOST)
    assert is_alive(left)
    jobs.ensure(root, "a", sh("true"))
    until(lambda: not is_alive(left))


def test_cancel_kills_what_a_lost_job_left_behind(root: Path) -> None:
    job = jobs.ensure(root, "a", sh(f"setsid sleep 301 & echo $! > {root}/left; sleep 300"))
    left = int(until(lambda: (root / "left").exists() and (root / "left").read_text()))
    supervisor_of(job).kill()
    assert ended(job).state is State.LOST
    assert is_alive(left)
    jobs.cancel(job)
    until(lambda: not is_alive(left))


def test_what_a_command_leaves_behind_is_killed_when_it_ends(root: Path) -> None:
    job = jobs.ensure(root, "a", sh(f"setsid sleep 302 & echo $! > {root}/left; exit 0"))
    assert ended(job).state is State.SUCCEEDED
    left = int((root / "left").read_text())
    until(lambda: not is_alive(left))


def test_a_submitter_killed_before_the_supervisor_started_leaves_a_lost_job(root: Path) -> None:
    folder = root / "a" / "1"
    folder.mkdir(parents=True)
    (folder / jobs.COMMAND).write_bytes(jobs._as_line({"argv": SLEEP}))
    (folder / jobs.LOCK).touch()
    assert jobs.status(folder).state is State.LOST
    assert jobs.ensure(root, "a", SLEEP).name == "2"


def test_cancel_stops_the_command_and_its_children(root: Path) -> None:
    job = jobs.ensure(root, "a", sh(f"sleep 303 & echo $! > {root}/child; wait"))
    child = int(until(lambda: (root / "child").exists() and (root / "child").read_text()))
    jobs.cancel(job)
    assert jobs.status(job).state is State.CANCELLED
    until(lambda: not is_alive(child))
    assert jobs.ensure(root, "a", ["true"]).name == "2"


def test_a_job_that_ended_well_is_not_cancelled_any_more(root: Path) -> None:
    job = jobs.ensure(root, "a", ["true"])
    ended(job)
    jobs.cancel(job)
    assert jobs.status(job).state is State.SUCCEEDED
    assert jobs.ensure(root, "a", ["true"]) == job


def test_a_request_to_cancel_does_not_wait_for_the_end(root: Path) -> None:
    job = jobs.ensure(root, "a", stubborn(root / "go"))
    until(lambda: jobs.tail(job) == ["up"])
    jobs.request_cancel(job)
    assert jobs.status(job).state is State.RUNNING
    (root / "go").touch()
    assert ended(job).state is State.CANCELLED


@pytest.mark.slow
def test_cancelled_jobs_do_not_count_as_lost(root: Path) -> None:
    for _ in range(jobs.MAX_ATTEMPTS + 1):
        jobs.cancel(jobs.ensure(root, "a", SLEEP))
    assert jobs.status(jobs.ensure(root, "a", SLEEP)).state is State.RUNNING


@pytest.mark.slow
def test_cancel_kills_a_command_that_ignores_sigterm(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = jobs.ensure(root, "a", stubborn(root / "never"))
    until(lambda: jobs.tail(job) == ["up"])
    command = command_of(job).pid
    # The supervisor's own grace is longer than this, so that it is cancel that has to do it.
    monkeypatch.setattr(jobs, "GRACE", -4.5)
    jobs.cancel(job)
    until(lambda: not is_alive(command))
    assert ended(job).state is State.CANCELLED


@pytest.mark.parametrize(
    ("recorded", "error"),
    [
        ({"supervisor_started": 1.0}, None),  # its pid is another's by now
        ({"boot": "before"}, "runs on"),
        ({"host": "elsewhere"}, "runs on elsewhere"),
    ],
)
def test_only_the_very_process_that_was_recorded_is_killed(
    root: Path, recorded: dict[str, Any], error: str | None
) -> None:
    job = jobs.ensure(root, "a", ["true"])
    ended(job)
    pids = orjson.loads((job / jobs.PIDS).read_bytes())
    with bystander() as other:
        started = psutil.Process(other.pid).create_time()
        record(job, pids | {"supervisor": other.pid, "supervisor_started": started} | recorded)
        with pytest.raises(JobError, match=error) if error else contextlib.nullcontext():
            jobs._kill_recorded(job)
        # A SIGKILL before this would be what it died of.
        other.terminate()
        assert other.wait() == -signal.SIGTERM


def record(job: Path, pids: dict[str, Any]) -> None:
    (job / jobs.PIDS).write_bytes(jobs._as_line(pids))


def test_a_machine_that_restarted_has_lost_the_job_and_nobody_is_killed_for_it(root: Path) -> None:
    # What a power cut leaves: files of a job that ran, with pids that other processes may have now.
    job = root / "a" / "1"
    job.mkdir(parents=True)
    (job / jobs.COMMAND).write_bytes(jobs._as_line({"argv": SLEEP}))
    (job / jobs.RESULT).write_bytes(b" " * 512)
    (job / jobs.LOCK).touch()
    with bystander() as other:
        started = psutil.Process(other.pid).create_time()
        pids = {"supervisor": other.pid, "supervisor_started": started}
        record(job, {**pids, "host": "here", "boot": "before"})
        assert jobs.status(job).state is State.LOST
        jobs.cancel(job)
        assert jobs.ensure(root, "a", SLEEP).name == "2"
        other.terminate()
        assert other.wait() == -signal.SIGTERM


def test_a_supervisor_told_to_stop_stops_its_command_and_the_job_can_go_on(root: Path) -> None:
    # A command that is told to stop and exits with a code of its own has not failed.
    job = jobs.ensure(root, "a", sh("trap 'exit 1' TERM; echo up; while true; do sleep 0.1; done"))
    until(lambda: jobs.tail(job) == ["up"])
    supervisor_of(job).terminate()
    assert ended(job) == jobs.Status(State.KILLED, signal=signal.SIGTERM)


@contextlib.contextmanager
def supervised(
    root: Path, command: list[str], *, grace: float
) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A job whose command gets so many seconds between SIGTERM and SIGKILL, and its supervisor."""
    job = root / "a" / "1"
    job.mkdir(parents=True)
    (job / jobs.COMMAND).write_bytes(jobs._as_line({"argv": command}))
    (job / jobs.RESULT).touch()
    code = (
        f"import sys; from pathlib import Path; from evalcore import jobs; jobs.GRACE = {grace};"
        "supervisor = jobs._Supervisor(Path(sys.argv[1])); supervisor.wait(supervisor.start())"
    )
    log = (job / jobs.LOG).open("wb")
    with log, subprocess.Popen([sys.executable, "-c", code, str(job)], stdout=log) as supervisor:
        try:
            yield job, supervisor
        finally:
            supervisor.kill()


@pytest.mark.slow
def test_a_supervisor_kills_a_command_that_ignores_sigterm(root: Path) -> None:
    with supervised(root, stubborn(root / "never"), grace=0.3) as (job, supervisor):
        until(lambda: jobs.tail(job) == ["up"])
        jobs.request_cancel(job)
        assert supervisor.wait(60) == 0
    assert jobs.status(job) == jobs.Status(State.CANCELLED, signal=signal.SIGKILL)


@pytest.mark.slow
def test_a_supervisor_kills_nobody_before_its_time(root: Path) -> None:
    # Which a machine that stands still for some seconds must not bring about.
    command = sh(f"trap 'sleep 0.5; touch {root}/saved; exit' TERM; echo up; sleep 300 & wait")
    with supervised(root, command, grace=300.0) as (job, supervisor):
        until(lambda: jobs.tail(job) == ["up"])
        jobs.request_cancel(job)
        assert supervisor.wait(60) == 0
    assert (root / "saved").exists()


def test_the_environment_is_what_was_given_and_no_part_of_the_files(root: Path) -> None:
    env = {"PATH": os.environ["PATH"], "API_KEY": "s3cret"}
    job = jobs.ensure(root, "a", sh('[ ${#API_KEY} = 6 ] && [ -z "$HOME" ]'), env)
    assert ended(job).state is State.SUCCEEDED
    assert all(b"s3cret" not in file.read_bytes() for file in job.iterdir())


def test_commands_of_this_python_are_found_without_a_path(root: Path) -> None:
    job = jobs.ensure(root, "a", ["evalcore", "--version"], {})
    assert ended(job).state is State.SUCCEEDED


def test_a_log_is_read_on_from_where_it_was(root: Path) -> None:
    job = jobs.ensure(root, "a", sh("echo one; echo two; printf thr"))
    ended(job)
    lines, offset = jobs.read_log(job)
    assert (lines, offset) == (["one", "two"], 8)
    with (job / jobs.LOG).open("a") as log:
        log.write("ee\n")
    assert jobs.read_log(job, offset) == (["three"], 14)
    assert jobs.read_log(job, 14) == ([], 14)


def test_a_line_longer_than_what_is_read_at_once_does_not_stop_the_reader(root: Path) -> None:
    job = jobs.ensure(root, "a", sh("printf '%0100d\\n' 0; echo end"))
    ended(job)
    lines, offset = jobs.read_log(job, limit=60)
    assert (len(lines), offset) == (1, 60)
    assert jobs.read_log(job, offset).lines == ["0" * 40, "end"]


def test_control_codes_do_not_get_out_of_a_log(root: Path) -> None:
    job = jobs.ensure(root, "a", sh(r"printf '\033[31mred\033[0m \033]0;title\007 ü\n'"))
    ended(job)
    assert jobs.tail(job) == ["red ]0;title ü"]


def test_names_are_one_path_component_and_differ_where_their_parts_do() -> None:
    name = jobs.job_name("dag", "manual__2026-11-21T03:56:08+00:00", "score.grade", 3)
    assert "/" not in name
    assert name.startswith("dag-manual__2026-11-21T03-56-08+00-00-score.grade-3-")
    assert jobs.job_name("../..", "/etc") == jobs.job_name("../..", "/etc")
    assert "/" not in jobs.job_name("../..", "/etc")
    assert jobs.job_name("a-b", "c") != jobs.job_name("a", "b-c")
    assert len(jobs.job_name("x" * 1000)) < 140


def test_an_unwritable_root_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JobError, match=r"job a: cannot start in .*/file/a/1: Not a directory"):
        jobs.ensure(tmp_path / "file", "a", ["true"])


def test_a_job_that_cannot_be_written_leaves_nothing(root: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Enough for the command, and not for the result's place.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        with pytest.raises(JobError, match=f"job a: cannot start in {root}/a/1: File too large"):
            jobs.ensure(root, "a", ["true"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list((root / "a").iterdir()) == []


ON_A_FULL_DISK = """
import sys, time
from pathlib import Path
from evalcore import jobs
root = Path(sys.argv[1])
job = jobs.ensure(root, "a", ["sh", "-c", f"cat /dev/zero > {root}/filler; exit 3"])
while not jobs.status(job).state.is_over:
    time.sleep(0.02)
print(jobs.status(job))
try:
    jobs.ensure(root, "b", ["true"])
except jobs.JobError as error:
    print(error)
print([path.name for path in root.glob("b/*")])
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_a_full_disk_does_not_lose_the_result(tmp_path: Path) -> None:
    # A disk of its own, 128 KB, for one process and its children.
    mount = 'mount -t tmpfs -o size=128k none "$1" || exit 77; exec "$2" -c "$3" "$1"'
    run = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, ON_A_FULL_DISK],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if run.returncode == 77 or "unshare" in run.stderr:
        pytest.skip("no name spaces for users here")
    assert run.stdout.splitlines() == [
        "failed with exit code 3",
        f"job b: cannot start in {tmp_path}/b/1: No space left on device",
        "[]",
    ], run.stderr


def test_a_result_has_its_place_before_the_command_starts(root: Path) -> None:
    job = jobs.ensure(root, "a", waiting_for(root / "go", "exit 3"))
    place = (job / jobs.RESULT).stat()
    assert jobs.status(job).state is State.RUNNING
    (root / "go").touch()
    assert ended(job) == jobs.Status(State.FAILED, exit_code=3)
    written = (job / jobs.RESULT).stat()
    assert (written.st_ino, written.st_size) == (place.st_ino, place.st_size)


def test_a_result_that_cannot_be_written_yet_waits(root: Path) -> None:
    job = jobs.ensure(root, "a", waiting_for(root / "go", "exit 3"))
    command = command_of(job).pid
    place = (job / jobs.RESULT).rename(root / "aside")
    (root / "go").touch()
    until(lambda: not is_alive(command))
    time.sleep(3 * jobs._POLL)
    assert jobs.status(job).state is State.RUNNING
    place.rename(job / jobs.RESULT)
    assert ended(job) == jobs.Status(State.FAILED, exit_code=3)


def test_no_such_job(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no such job"):
        jobs.status(tmp_path / "a")
