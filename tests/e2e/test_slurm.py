"""Jobs on a real Slurm over a real sshd: submitted once, found again, and over when a user would say so."""

from __future__ import annotations

import contextlib
import json
import shutil
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster_folder import cluster_folder
from demo.cluster import Cluster as Slurm
from evalcore import __version__
from evalcore.backends import Look, Unreachable
from evalcore.errors import JobError
from evalcore.jobs import State, job_name
from evalcore.profiles import SlurmProfile
from evalcore.slurm import agent
from evalcore.slurm.cluster import Cluster
from evalcore.slurm.shell import Finished, Here
from hooks.slurm import SshShell
from waiting import until, while_there

pytestmark = [pytest.mark.e2e, pytest.mark.beside]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """Jobs run as this user, who can run this Python."""
    with cluster_folder() as folder, Slurm(folder, user="root") as running:
        yield running


@pytest.fixture(scope="module")
def profile(slurm: Slurm) -> SlurmProfile:
    return SlurmProfile(
        name="cluster",
        executor="slurm",
        tunnel="ssh",
        host=slurm.ssh_host,
        ssh_conn_id=slurm.ssh_conn_id,
        partition="main",
        time="10",
        remote_job_dir=str(slurm.remote_job_dir),
        python=sys.executable,
    )


@pytest.fixture
def cluster(slurm: Slurm, profile: SlurmProfile, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("AIRFLOW_CONN_CLUSTER", slurm.connection_uri())
    shell = SshShell(profile)
    yield Cluster(profile, shell)
    shell.close()
    slurm.run("scancel", "--user=root")
    until(lambda: not slurm.run("squeue", "-h"), "an empty queue")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return job_name(request.node.name, time.time_ns())


def look(cluster: Cluster, job: str) -> Look:
    return cluster.look({job: 0})[job]


def ended(cluster: Cluster, job: str) -> Look:
    def over() -> Look | None:
        found = look(cluster, job)
        return found if found.status.state.is_over else None

    found = until(over, f"the end of {job}")
    assert found is not None
    return found


def running(cluster: Cluster, job: str) -> Look:
    until(lambda: look(cluster, job).status.detail == "RUNNING", f"{job} to run")
    return look(cluster, job)


def is_seen(cluster: Cluster, job: str) -> bool:
    try:
        return look(cluster, job).status.state is State.RUNNING
    except Unreachable:
        return False


def submissions(slurm: Slurm, name: str) -> int:
    """How many jobs Slurm has ever had of a job's attempts."""

    def counted() -> int:
        said = slurm.run("sacct", "-n", "-X", "-D", "-P", "-S", "now-1hours", "-o", "jobname")
        return sum(line.startswith(name) for line in said.splitlines())

    return until(counted, "the accounts, which come a second late")


def test_a_job_gets_its_secrets_and_leaves_none(cluster: Cluster, slurm: Slurm, name: str) -> None:
    secret = "hunter2-and-more"
    # Nor does it take itself for the SSH session that submitted it: Debian's bash would run the user's .bashrc.
    script = 'echo "key of ${#KEY} letters, ${SSH_CLIENT-no} session"'
    job = cluster.ensure(name, ["sh", "-c", script], {"KEY": secret})
    assert secret not in slurm.run("scontrol", "show", "job", look(cluster, job).id)
    found = ended(cluster, job)
    assert (found.status.state, found.log) == (State.SUCCEEDED, ["key of 16 letters, no session"])
    folder = Path(job)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not [f for f in folder.iterdir() if secret in f.read_text()]
    assert not (folder / "secrets.json").exists()


@pytest.mark.parametrize(
    ("script", "state", "said"),
    [
        ("exit 3", State.FAILED, "failed with exit code 3"),
        ("kill -9 $$", State.KILLED, "killed by SIGKILL"),
        ("exit 0", State.SUCCEEDED, "succeeded"),
    ],
)
def test_how_a_command_ends(cluster: Cluster, name: str, script: str, state: State, said: str) -> None:
    found = ended(cluster, cluster.ensure(name, ["bash", "-c", script], {}))
    assert (found.status.state, str(found.status)) == (state, said)


def test_a_command_that_is_not_there(cluster: Cluster, name: str) -> None:
    found = ended(cluster, cluster.ensure(name, ["no-such-command"], {}))
    assert found.log == ["evalcore: error: cannot run no-such-command: No such file or directory"]
    assert found.status.exit_code == 127


def test_too_much_memory_is_no_reason_to_try_again(cluster: Cluster, slurm: Slurm, name: str) -> None:
    if not slurm.has_memory_limit:
        pytest.skip("this machine's cgroups cannot limit memory")
    found = ended(cluster, cluster.ensure(name, [sys.executable, "-c", "bytearray(3 << 30)"], {}))
    assert found.status.state is State.FAILED
    assert found.status.detail.startswith("OUT_OF_MEMORY")


def test_time_that_is_up_goes_on_in_the_next_attempt(cluster: Cluster, slurm: Slurm, name: str) -> None:
    command = ["bash", "-c", "trap 'echo stopping cleanly; exit 143' TERM; echo up; sleep 600 & wait"]
    job = cluster.ensure(name, command, {})
    until(lambda: "up" in look(cluster, job).log, "the command")
    slurm.end_now(look(cluster, job).id)
    found = ended(cluster, job)
    assert (found.status.state, found.status.detail) == (State.LOST, "TIMEOUT")
    assert "stopping cleanly" in found.log
    again = cluster.ensure(name, command, {})
    assert again == job.replace("/1", "/2")


def test_a_job_that_stops_cleanly_before_its_time_is_up_goes_on(
    cluster: Cluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalcore.slurm.script.STOP_SECONDS", 50)
    cluster.profile = cluster.profile.model_copy(update={"time": "1"})
    command = ["bash", "-c", "trap 'echo all rows written; exit 143' TERM; sleep 600 & wait"]
    found = ended(cluster, job := cluster.ensure(name, command, {}))
    assert (found.status.state, found.log[-1]) == (State.LOST, "all rows written")
    assert found.status.detail == "stopped when its time was nearly up"
    assert cluster.ensure(name, command, {}) == job.replace("/1", "/2")


def test_a_lost_node_and_preemption_go_on_too(cluster: Cluster, slurm: Slurm, name: str) -> None:
    job = cluster.ensure(name, ["sleep", "600"], {})
    number = running(cluster, job).id
    node = slurm.run("squeue", "-h", "-j", number, "-o", "%N").strip()
    slurm.fail_node(node)
    assert ended(cluster, job).status.detail == "NODE_FAIL"
    slurm.resume_node(node)
    second = cluster.ensure(name, ["sleep", "600"], {})
    taker = slurm.preempt(running(cluster, second).id)
    assert ended(cluster, second).status.detail == "PREEMPTED"
    slurm.run("scancel", taker)
    third = cluster.ensure(name, ["sleep", "600"], {})
    assert [Path(attempt).name for attempt in (job, second, third)] == ["1", "2", "3"]
    running(cluster, third)


def test_who_cancels_a_job_means_it(cluster: Cluster, slurm: Slurm, name: str) -> None:
    job = cluster.ensure(name, ["sleep", "600"], {})
    slurm.run("scancel", running(cluster, job).id)
    found = ended(cluster, job)
    assert found.status.state is State.FAILED
    assert found.status.detail.endswith("not by us")


def test_what_we_cancel_is_cancelled(cluster: Cluster, slurm: Slurm, name: str) -> None:
    job = cluster.ensure(name, ["sleep", "600"], {})
    running(cluster, job)
    cluster.cancel([job])
    assert ended(cluster, job).status.state is State.CANCELLED
    cluster.cancel([job])  # once more does no harm


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"partition": "nowhere"}, "invalid partition specified: nowhere"),
        ({"extra_sbatch": ("--no-such-option=1",)}, "unrecognized option '--no-such-option=1'"),
    ],
)
def test_what_slurm_refuses_is_said_and_not_tried_again(
    cluster: Cluster, name: str, change: dict[str, object], said: str
) -> None:
    cluster.profile = cluster.profile.model_copy(update=change)
    with pytest.raises(JobError, match="cluster cluster: sbatch: ") as refused:
        cluster.ensure(name, ["true"], {})
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not list(Path(cluster.folder(name)).glob("*/secrets.json"))


def test_asked_twice_at_once_it_is_submitted_once(cluster: Cluster, slurm: Slurm, name: str) -> None:
    found: list[str] = []
    others = [Cluster(cluster.profile, SshShell(cluster.profile)) for _ in range(4)]
    threads = [
        threading.Thread(target=lambda c=other: found.append(c.ensure(name, ["sleep", "600"], {})))
        for other in others
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert submissions(slurm, name) == 1


def test_a_submission_that_lost_its_id_is_found_by_name(cluster: Cluster, slurm: Slurm, name: str) -> None:
    job = cluster.ensure(name, ["sleep", "600"], {})
    number = look(cluster, job).id
    (Path(job) / "id").unlink()  # as if we had died right after sbatch
    assert cluster.ensure(name, ["sleep", "600"], {}) == job
    assert look(cluster, job).id == number
    assert submissions(slurm, name) == 1
    (Path(job) / "id").unlink()
    cluster.cancel([job])
    assert ended(cluster, job).status.state is State.CANCELLED


def test_a_connection_cut_after_the_job_was_accepted(
    cluster: Cluster, slurm: Slurm, name: str, hold: Path
) -> None:
    shell = cluster.shell

    class Cutting:
        """Cuts the connection when Slurm has the job, so that the answer is lost."""

        def run(self, command: str, stdin: bytes, *, timeout: float) -> Finished:
            if b'"do":"submit"' not in stdin:
                return shell.run(command, stdin, timeout=timeout)
            cut = threading.Thread(target=self.cut)
            cut.start()
            try:
                # So that its end cannot be seen before.
                return shell.run(f"{command}; {while_there(hold)}", stdin, timeout=timeout)
            finally:
                cut.join()

        def cut(self) -> None:
            until(lambda: name in slurm.run("squeue", "-h", "-o", "%j"), "the job")
            slurm.cut_ssh()

        def get(self, remote: str, local: str) -> None:
            raise AssertionError("nothing is copied here")

    cluster.shell = Cutting()
    with pytest.raises(Unreachable):
        cluster.ensure(name, ["sleep", "600"], {})
    hold.unlink()
    cluster.shell = shell
    job = cluster.ensure(name, ["sleep", "600"], {})
    assert running(cluster, job).id
    assert submissions(slurm, name) == 1


@pytest.mark.parametrize("wrapper", ["touch BEGUN; HELD; exec SBATCH", "SBATCH && touch BEGUN; HELD"])
def test_killed_while_it_submits(
    slurm: Slurm,
    profile: SlurmProfile,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hold: Path,
    wrapper: str,
) -> None:
    real = shutil.which("sbatch")
    assert real
    sbatch, begun = tmp_path / "sbatch", tmp_path / "begun"
    text = (
        wrapper.replace("SBATCH", f'{real} "$@"')
        .replace("BEGUN", str(begun))
        .replace("HELD", while_there(hold))
    )
    sbatch.write_text(f"#!/bin/bash\n{text}\n")
    sbatch.chmod(0o755)
    for variable, value in slurm.env.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    cluster = Cluster(profile, Here())

    def kill_agent() -> None:
        until(begun.exists, "sbatch")
        # Of this test's alone: others may run theirs on this machine.
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if agent.BOOT in process.cmdline():
                    process.kill()

    killer = threading.Thread(target=kill_agent)
    killer.start()
    with pytest.raises(Unreachable):
        cluster.ensure(name, ["sleep", "600"], {})
    killer.join()
    # sbatch goes on alone; who comes next waits for it and finds its job.
    threading.Timer(1, hold.unlink).start()
    job = cluster.ensure(name, ["sleep", "600"], {})
    assert running(cluster, job).id
    assert submissions(slurm, name) == 1
    cluster.cancel([job])


def test_looks_go_on_over_a_new_connection(cluster: Cluster, slurm: Slurm, name: str) -> None:
    job = cluster.ensure(name, ["sleep", "600"], {})
    running(cluster, job)
    slurm.cut_ssh()
    until(lambda: is_seen(cluster, job), "another connection")


def test_without_controller_nothing_changes(cluster: Cluster, slurm: Slurm, name: str, hold: Path) -> None:
    job = cluster.ensure(name, ["bash", "-c", f"{while_there(hold)}; echo done"], {})
    running(cluster, job)
    slurm.stop("slurmctld")
    try:
        found = look(cluster, job)
        assert found.status.state is State.RUNNING
        assert found.trouble.startswith("squeue: ")
        assert not found.is_unknown
        with pytest.raises(Unreachable, match="contact slurm controller"):
            cluster.ensure(f"{name}-other", ["true"], {})
        # The job says for itself that it is done.
        hold.unlink()
        assert ended(cluster, job).log == ["done"]
    finally:
        slurm.start("slurmctld")
    assert ended(cluster, cluster.ensure(f"{name}-other", ["true"], {})).status.state is State.SUCCEEDED


def test_without_accounting_for_a_while_nothing_is_misjudged(
    cluster: Cluster, slurm: Slurm, name: str, hold: Path
) -> None:
    job = cluster.ensure(name, ["bash", "-c", while_there(hold)], {})
    running(cluster, job)
    slurm.stop("slurmdbd")
    try:
        killed = cluster.ensure(f"{name}-killed", ["sleep", "600"], {})
        slurm.run("scancel", running(cluster, killed).id)
        hold.unlink()
        assert ended(cluster, job).status.state is State.SUCCEEDED
        found = until(lambda: (seen := look(cluster, killed)).trouble and seen, "it to leave the queue")
        assert found.trouble.startswith("sacct: ")
        assert (found.status.state, found.is_unknown) == (State.RUNNING, False)
    finally:
        slurm.start("slurmdbd")
    assert "CANCELLED" in ended(cluster, killed).status.detail


def test_a_job_that_nobody_knows_is_given_up_only_when_told(cluster: Cluster, name: str) -> None:
    job = cluster.ensure(name, ["sleep", "600"], {})
    running(cluster, job)
    (Path(job) / "id").write_text("999999")
    found = look(cluster, job)
    assert found.is_unknown
    assert found.status.state is State.RUNNING
    assert cluster.ensure(name, ["sleep", "600"], {}) == job
    cluster.give_up(job)
    assert cluster.ensure(name, ["sleep", "600"], {}) == job.replace("/1", "/2")


def test_another_command_replaces_a_job_of_the_same_name(cluster: Cluster, slurm: Slurm, name: str) -> None:
    first = cluster.ensure(name, ["sleep", "600"], {})
    running(cluster, first)
    with pytest.raises(Unreachable, match="is told to stop"):
        cluster.ensure(name, ["sleep", "601"], {})
    assert ended(cluster, first).status.state is State.CANCELLED
    assert cluster.ensure(name, ["sleep", "601"], {}) != first


def test_of_an_array_only_the_tasks_that_failed_run_again(
    cluster: Cluster, slurm: Slurm, name: str, tmp_path: Path
) -> None:
    of_four = cluster.with_resources({}, array=range(4))
    log = tmp_path / "ran"
    script = (
        f"echo $SLURM_ARRAY_TASK_ID $KEY >> {log}; [ $SLURM_ARRAY_TASK_ID != 2 ] || [ -e {tmp_path}/mended ]"
    )
    command = ["bash", "-c", script]
    job = of_four.ensure(name, command, {"KEY": "k"})
    found = ended(of_four, job)
    assert (found.status.state, found.status.detail) == (
        State.FAILED,
        "1 of 4 tasks: task 2: failed with exit code 1",
    )
    assert sorted(log.read_text().splitlines()) == ["0 k", "1 k", "2 k", "3 k"]
    assert not list(Path(job).glob("secrets*"))
    of_four.consume(job)
    (tmp_path / "mended").touch()
    again = of_four.ensure(name, command, {"KEY": "k"})
    assert ended(of_four, again).status.state is State.SUCCEEDED
    assert log.read_text().splitlines()[4:] == ["2 k"]
    of_four.consume(again)
    running_all = of_four.ensure(name, ["sleep", "600"], {})
    until(lambda: "0 of 4" in look(of_four, running_all).status.detail, "all of them")
    of_four.cancel([running_all])
    assert ended(of_four, running_all).status.state is State.CANCELLED


def test_evalcore_is_sent_once_and_is_this_version(cluster: Cluster, slurm: Slurm, name: str) -> None:
    remote = slurm.remote_job_dir / name
    cluster.profile = cluster.profile.model_copy(update={"remote_job_dir": str(remote)})

    def sent() -> list[Path]:
        return list((remote / "evalcore").glob("*"))

    found = ended(cluster, cluster.ensure(name, ["evalcore", "--version"], {}))
    assert found.log == [__version__]
    [code] = sent()
    before = code.stat().st_mtime_ns
    ended(cluster, cluster.ensure(f"{name}-2", ["evalcore", "--version"], {}))
    assert [folder.stat().st_mtime_ns for folder in sent()] == [before]


def test_a_python_that_cannot_run_it_is_named(cluster: Cluster, slurm: Slurm, name: str) -> None:
    remote = slurm.remote_job_dir / name
    cluster.profile = cluster.profile.model_copy(
        update={"python": "/bin/false", "remote_job_dir": str(remote)}
    )
    with pytest.raises(JobError, match="cluster cluster: /bin/false: "):
        cluster.ensure(name, ["evalcore", "--version"], {})
    assert not list((remote / "evalcore").iterdir())


def test_many_jobs_are_looked_at_with_one_command(cluster: Cluster, name: str) -> None:
    jobs = [cluster.ensure(f"{name}-{i}", ["sleep", "600"], {}) for i in range(30)]
    asked = []
    shell = cluster.shell

    class Counting:
        def run(self, command: str, stdin: bytes, *, timeout: float) -> Finished:
            asked.append(json.loads(stdin.partition(b"\0")[2])["do"])
            return shell.run(command, stdin, timeout=timeout)

        def get(self, remote: str, local: str) -> None:
            raise AssertionError("nothing is copied here")

    cluster.shell = Counting()
    assert set(cluster.look(dict.fromkeys(jobs, 0))) == set(jobs)
    assert asked == ["look"]
    cluster.cancel(jobs)
    assert asked == ["look", "cancel"]


def test_without_any_accounting_the_controller_serves(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with cluster_folder() as folder, Slurm(folder, nodes=1, with_dbd=False, user="root") as slurm:
        for variable, value in slurm.env.items():
            monkeypatch.setenv(variable, value)
        here = {"name": "here", "executor": "slurm", "time": "10"}
        cluster = Cluster(SlurmProfile(**here, remote_job_dir=str(slurm.remote_job_dir)), Here())
        assert ended(cluster, cluster.ensure(f"{name}-a", ["true"], {})).status.state is State.SUCCEEDED
        failed = ended(cluster, cluster.ensure(f"{name}-b", ["sh", "-c", "exit 3"], {}))
        assert failed.status.exit_code == 3
        job = cluster.ensure(f"{name}-c", ["sleep", "600"], {})
        running(cluster, job)
        slurm.fail_node(slurm.nodes[0])
        lost = ended(cluster, job)
        assert (lost.status.detail, lost.trouble) == ("NODE_FAIL", "")
        slurm.resume_node(slurm.nodes[0])
        # And a job without its id is found in the queue.
        again = cluster.ensure(f"{name}-c", ["sleep", "600"], {})
        number = running(cluster, again).id
        (Path(again) / "id").unlink()
        assert cluster.ensure(f"{name}-c", ["sleep", "600"], {}) == again
        assert look(cluster, again).id == number
        slurm.run("scancel", number)
        assert ended(cluster, again).status.detail == "CANCELLED, not by us"
