"""Looks at jobs, their ends and what is brought of them, beside a Slurm that says what a test wants."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalcore.backends import Unreachable
from evalcore.errors import JobError
from evalcore.jobs import State
from evalcore.slurm.cluster import Cluster
from evalcore.slurm.shell import Finished
from fake_slurm import COMMAND, FakeSlurm, InThisProcess, attempt, cluster_on, look

DONE = {"exit_code": 0, "signal": None, "terminated": False}


def test_what_the_queue_says_goes_before_accounting(tmp_path: Path, slurm: FakeSlurm) -> None:
    cluster = cluster_on(tmp_path)
    job = attempt(cluster, 1)
    command = {"argv": COMMAND, "tasks": [0, 1]}
    (job / "command.json").write_text(json.dumps(command))
    (job / "result-0.json").write_text(json.dumps(DONE))
    # Its first run was preempted.
    slurm.says("squeue", "4711_1|RUNNING|None\n")
    slurm.says("sacct", "4711_0|COMPLETED|0:0|node1\n4711_1|PREEMPTED|0:0|node1\n")
    assert str(look(cluster, job).status) == "running (1 of 2 tasks are over)"
    # Of several runs of a job accounting names the last one last.
    slurm.says("squeue", "")
    slurm.says(
        "sacct", "4711_0|COMPLETED|0:0|node1\n4711_1|PREEMPTED|0:0|node1\n4711_1|NODE_FAIL|0:0|node1\n"
    )
    assert look(cluster, job).status.detail == "task 1: lost (NODE_FAIL)"


def test_slurm_is_asked_once_for_any_number_of_jobs(tmp_path: Path, slurm: FakeSlurm) -> None:
    cluster = cluster_on(tmp_path)
    jobs = {str(attempt(cluster, number)): 0 for number in range(1, 31)}
    for number, job in enumerate(jobs):
        (Path(job) / "id").write_text(f"{4700 + number}")
    slurm.says("squeue", "4700|RUNNING|None\n9999|RUNNING|None\n")
    slurm.says("sacct", "4701|TIMEOUT|0:0|node1\n")
    found = cluster.look(jobs)
    assert [str(found[job].status) for job in list(jobs)[:2]] == ["running (RUNNING)", "lost (TIMEOUT)"]
    assert all(found[job].is_unknown for job in list(jobs)[2:])
    assert (len(slurm.calls("squeue")), len(slurm.calls("sacct"))) == (1, 1)


def test_a_queue_that_cannot_be_asked_makes_no_job_unknown(cluster: Cluster, slurm: FakeSlurm) -> None:
    job = attempt(cluster, 1)
    assert look(cluster, job).is_unknown
    slurm.says("squeue", error="slurm_load_jobs error: Unable to contact slurm controller\n", code=1)
    found = look(cluster, job)
    assert (found.is_unknown, found.status.state) == (False, State.RUNNING)
    assert found.trouble == "squeue: slurm_load_jobs error: Unable to contact slurm controller"


def test_without_accounting_the_controller_is_asked(cluster: Cluster, slurm: FakeSlurm) -> None:
    job = attempt(cluster, 1)
    slurm.says("sacct", error="Slurm accounting storage is disabled\n", code=1)
    slurm.says("scontrol", "JobId=4711 JobName=eval.1 JobState=NODE_FAIL Reason=NodeDown ExitCode=0:0\n")
    assert look(cluster, job).status.detail == "NODE_FAIL"
    slurm.says("scontrol", error="slurm_load_jobs error: Invalid job id specified\n", code=1)
    assert look(cluster, job).is_unknown
    slurm.says("scontrol", error="slurm_load_jobs error: Socket timed out\n", code=1)
    assert look(cluster, job).trouble == "scontrol: slurm_load_jobs error: Socket timed out"


def test_the_log_comes_in_whole_lines_free_of_control_codes(cluster: Cluster) -> None:
    job = attempt(cluster, 1)
    (job / "log.txt").write_bytes(b"one\n\x1b[2Jtwo\nthr")
    found = look(cluster, job)
    assert found.log == ["one", "two"]
    with (job / "log.txt").open("ab") as log:
        log.write(b"ee\n")
    assert look(cluster, job, found.offset).log == ["three"]
    # Of a long one the end.
    (job / "log.txt").write_text("".join(f"{n:09}\n" for n in range(10_000)))
    end = look(cluster, job)
    assert len(end.log) <= 3277
    assert (end.log[-1], end.offset) == (f"{9_999:09}", 100_000)
    assert next(cluster.log(str(job))) == f"(the end of {job}/log.txt)\n"
    # And of a line without end what fits, so that it goes on.
    (job / "log.txt").write_text("x" * 100_000)
    assert look(cluster, job).offset == 100_000


def test_of_an_array_the_log_is_that_of_a_task_that_failed(cluster: Cluster) -> None:
    job = attempt(cluster, 1)
    (job / "command.json").write_text(json.dumps({"argv": COMMAND, "tasks": [0, 1, 2]}))
    for task, code in enumerate((0, 3, 0)):
        (job / f"result-{task}.json").write_text(json.dumps({**DONE, "exit_code": code}))
        (job / f"log-{task}.txt").write_text(f"of task {task}\n")
    found = look(cluster, job)
    assert (found.status.state, found.log) == (State.FAILED, ["of task 1"])


def test_what_is_given_up_is_cancelled_should_it_come_to_light(cluster: Cluster, slurm: FakeSlurm) -> None:
    job = attempt(cluster, 1)
    cluster.give_up(str(job))
    assert slurm.calls("scancel") == ["--quiet 4711"]
    (job / "cancelled").unlink()
    assert str(look(cluster, job).status).startswith("lost (")


def test_who_cannot_cancel_hears_of_it_unless_it_is_over(cluster: Cluster, slurm: FakeSlurm) -> None:
    job = attempt(cluster, 1)
    slurm.says("scancel", error="scancel: error: Unable to contact slurm controller\n", code=8)
    with pytest.raises(Unreachable, match="scancel: scancel: error: Unable"):
        cluster.cancel([str(job)])
    slurm.says(
        "scancel", error="scancel: error: Kill job error on job id 4711: Invalid job id specified\n", code=1
    )
    cluster.cancel([str(job), cluster.folder("none") + "/1"])


@pytest.mark.parametrize(("said", "job"), [("squeue", "4712"), ("sacct", "4712")])
def test_a_job_whose_id_was_lost_is_cancelled_too(
    cluster: Cluster, slurm: FakeSlurm, said: str, job: str
) -> None:
    folder = attempt(cluster, 1)
    (folder / "id").unlink()
    slurm.says(said, f"{job}\n")
    cluster.cancel([str(folder)])
    assert slurm.calls("squeue")[0].split()[3:5] == ["--name", "eval.1"]
    assert slurm.calls("scancel") == [f"--quiet {job}"]
    assert (folder / "id").read_text() == job


def test_a_job_that_was_never_submitted_is_not_looked_for(cluster: Cluster, slurm: FakeSlurm) -> None:
    folder = attempt(cluster, 1)
    for name in ("id", "script.sh"):
        (folder / name).unlink()
    cluster.cancel([str(folder)])
    assert (folder / "cancelled").exists()
    assert slurm.calls("squeue") == slurm.calls("scancel") == []


class Says:
    """A shell whose every command ends so."""

    def __init__(self, code: int, stdout: bytes, stderr: bytes) -> None:
        self.end = Finished(code, stdout, stderr)

    def run(self, command: str, stdin: bytes, *, timeout: float) -> Finished:
        return self.end

    def get(self, remote: str, local: str) -> None:
        Path(local).write_bytes(self.end.stdout)


@pytest.mark.parametrize(
    ("code", "said", "error", "message"),
    [
        (127, b"sh: 1: python3: not found\n", JobError, "no python3 on its login node"),
        (255, b"Connection closed by remote host\n", Unreachable, "exit code 255: Connection closed"),
        (0, b"", Unreachable, "no answer"),
    ],
)
def test_an_agent_that_does_not_answer(
    cluster: Cluster, code: int, said: bytes, error: type[Exception], message: str
) -> None:
    cluster.shell = Says(code, b"Welcome to this cluster\n", said)
    with pytest.raises(error, match=message):
        cluster.newest("eval")


RESULTS = {
    "manifest.json": "{}",
    "scorecard.json": "{}\n",
    "grades/a-0.jsonl": "g\n",
    "judgements/a-0.jsonl": "j\n",
}


def test_what_a_benchmark_comes_to_is_brought_without_its_generations(
    cluster: Cluster, tmp_path: Path
) -> None:
    there, here = tmp_path / "there [1]", tmp_path / "here"
    for name, text in {**RESULTS, "generations/a-0.jsonl": "big", "notes.txt": "x"}.items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text(text)
    cluster.fetch(str(there), here)
    assert {str(f.relative_to(here)): f.read_text() for f in here.rglob("*") if f.is_file()} == RESULTS


def test_what_changes_on_its_way_is_not_kept(cluster: Cluster, tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    (there / "manifest.json").write_text("new")
    (here / "manifest.json").write_text("old")

    class Losing(InThisProcess):
        def get(self, remote: str, local: str) -> None:
            Path(local).write_text("ne")

    cluster.shell = Losing()
    with pytest.raises(Unreachable, match="has changed on its way here"):
        cluster.fetch(str(there), here)
    assert [f.name for f in here.iterdir()] == ["manifest.json"]
    assert (here / "manifest.json").read_text() == "old"
