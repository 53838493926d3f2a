"""What of a cluster needs no real Slurm; the rest is in tests/e2e."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from evalcore import jobs
from evalcore.backends import Unreachable
from evalcore.config import load_config
from evalcore.errors import JobError
from evalcore.plan import Plan
from evalcore.profiles import SlurmProfile
from evalcore.slurm.cluster import MAX_ATTEMPTS, Cluster
from evalcore.slurm.shell import Finished, Here
from evalcore.slurm.shipping import archive
from fake_slurm import COMMAND, FakeSlurm, attempt, cluster_on, look

# They start processes, and wait for them.
pytestmark = pytest.mark.slow

CHECKPOINT = sorted((Path(__file__).parents[3] / "include" / "tiny" / "checkpoints").glob("step-*"))[1]

KILLED = '{"exit_code": null, "signal": 11, "terminated": false}\n'


def test_a_run_is_planned_by_the_login_nodes_python(tmp_path: Path) -> None:
    """That of jobs is in a container, which the login node cannot look into."""
    keys = {
        "name": "c",
        "executor": "slurm",
        "remote_job_dir": str(tmp_path),
        "container_image": "/images/e.sqsh",
    }
    profile = SlurmProfile.model_validate({**keys, "python": "/opt/e/python", "login_python": sys.executable})
    config = load_config("tiny", checkpoint=str(CHECKPOINT), results=str(tmp_path / "results"))
    asked = config.model_dump_json().encode()
    said = Cluster(profile, Here()).run("evalcore.plan", stdin=asked, timeout=60)
    assert Plan.from_json(said).convert[:2] == ["evalcore", "convert"]
    assert Plan.from_json(b"Welcome to login01\n" + said) == Plan.from_json(said)
    without = SlurmProfile.model_validate({**keys, "python": "/opt/e/python"})
    with pytest.raises(JobError, match="/opt/e/python"):
        Cluster(without, Here()).run("evalcore.plan", stdin=asked, timeout=60)


class Greeting(Here):
    """A login node whose users' .bashrc prints something, and does not end the line."""

    def run(self, command: str, stdin: bytes, *, timeout: float) -> Finished:
        return super().run(f"echo Welcome; printf 'loading modules ... '; {command}", stdin, timeout=timeout)


def test_what_a_login_shell_prints_is_no_answer(tmp_path: Path) -> None:
    keys = {"name": "c", "executor": "slurm", "remote_job_dir": str(tmp_path), "python": sys.executable}
    cluster = Cluster(SlurmProfile.model_validate(keys), Greeting())
    assert cluster.newest("nothing") is None
    config = load_config("tiny", checkpoint=str(CHECKPOINT), results=str(tmp_path / "results"))
    said = cluster.run("evalcore.plan", stdin=config.model_dump_json().encode(), timeout=60)
    assert Plan.from_json(said).convert[:2] == ["evalcore", "convert"]


def test_evalcore_runs_with_its_own_version_and_where_data_is(tmp_path: Path, slurm: FakeSlurm) -> None:
    cluster = cluster_on(tmp_path, python="/bin/true", env={"PYTHONPATH": "/mine", "OMP_NUM_THREADS": "4"})
    job = Path(cluster.ensure("eval", ["evalcore", "prepare", "x"], {}))
    remote, digest = tmp_path / "remote", archive().digest[:16]
    code = f"{remote}/evalcore/{digest}"
    command = json.loads((job / "command.json").read_text())
    assert command == {
        "argv": ["/bin/true", "-P", "-m", "evalcore.cli", "prepare", "x"],
        "env": {
            "EVALCORE_DATA": f"{remote}/data",
            "EVALCORE_ENV_TOML": "/dev/null",
            "PYTHONPATH": code,
            "OMP_NUM_THREADS": "4",
        },
    }
    elsewhere = cluster_on(tmp_path, python="/bin/true", env={"EVALCORE_DATA": "/data"})
    job = Path(elsewhere.ensure("other", ["evalcore", "prepare", "x"], {}))
    assert json.loads((job / "command.json").read_text())["env"]["EVALCORE_DATA"] == "/data"


def test_a_python_that_cannot_import_evalcore_is_refused_but_for_a_containers(
    tmp_path: Path, slurm: FakeSlurm
) -> None:
    with pytest.raises(JobError, match="cluster c: /bin/false: "):
        cluster_on(tmp_path, python="/bin/false").ensure("eval", ["evalcore", "--version"], {})
    assert not list((tmp_path / "remote" / "evalcore").iterdir())
    in_image = cluster_on(tmp_path, python="/bin/false", container_image="/images/e.sqsh")
    assert in_image.ensure("eval", ["evalcore", "--version"], {})


def test_an_image_is_made_by_a_job_without_gpus(tmp_path: Path, slurm: FakeSlurm) -> None:
    keys = {"nodes": 2, "gpus_per_node": 8, "gres": "gpu:8", "exclusive": True, "partition": "cpu"}
    cluster = cluster_on(tmp_path, python="/bin/true", container_image="nvcr.io/nvidia/nemo:25.01", **keys)
    job = cluster.prepare()
    assert job is not None
    script = (Path(job) / "script.sh").read_text()
    assert "#SBATCH --nodes=1\n" in script
    assert "#SBATCH --partition=cpu\n" in script
    assert not [word for word in ("gpu", "gres", "exclusive") if f"--{word}" in script]


def test_a_job_is_submitted_once_with_what_only_its_user_may_read(cluster: Cluster, slurm: FakeSlurm) -> None:
    slurm.says("sbatch", "4711;cluster\n")  # of one cluster of several
    job = Path(cluster.ensure("eval", COMMAND, {"KEY": "hunter2"}))
    assert stat.S_IMODE(job.stat().st_mode) == 0o700
    assert stat.S_IMODE((job / "secrets.json").stat().st_mode) == 0o600
    assert (job / "result.json").read_text() == " " * 512, "room for its result on the fullest disk"
    [arguments] = slurm.calls("sbatch")
    assert arguments.startswith("--parsable --job-name=eval.1 ")
    assert arguments.endswith(f" {job}/script.sh")
    slurm.says("squeue", "4711|RUNNING|None\n")
    assert look(cluster, job).id == "4711"
    assert cluster.ensure("eval", COMMAND, {}) == str(job)
    assert len(slurm.calls("sbatch")) == 1


@pytest.mark.parametrize(
    ("said", "error", "secrets"),
    [
        ("sbatch: error: invalid partition specified: gpus", JobError, 0),
        # It may be in the queue all the same, and has to find its secrets.
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller", Unreachable, 2),
        ("sbatch: error: Resource temporarily unavailable", Unreachable, 2),
    ],
)
def test_what_slurm_does_not_take_is_submitted_in_its_place_later(
    tmp_path: Path, slurm: FakeSlurm, said: str, error: type[Exception], secrets: int
) -> None:
    of_two = cluster_on(tmp_path, array=[0, 1])
    slurm.says("sbatch", error=f"{said}\n", code=1)
    with pytest.raises(error, match="sbatch: sbatch: error: "):
        of_two.ensure("eval", COMMAND, {"KEY": "hunter2"})
    assert len(list(Path(of_two.folder("eval")).rglob("secrets*"))) == secrets
    slurm.says("sbatch", "4711\n")
    assert of_two.ensure("eval", COMMAND, {}).endswith("/eval/1")


def test_no_sbatch_at_all_is_said(tmp_path: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    (slurm.bin / "sbatch").unlink()
    monkeypatch.setenv("PATH", str(slurm.bin))
    with pytest.raises(JobError, match="sbatch: no such command on this host"):
        cluster_on(tmp_path).ensure("eval", COMMAND, {})


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, slurm: FakeSlurm) -> None:
    (tmp_path / "remote").touch()
    with pytest.raises(JobError, match=r"remote/jobs.*: Not a directory"):
        cluster_on(tmp_path).ensure("eval", COMMAND, {})


def test_the_newest_of_several_jobs_of_a_name_is_the_attempts(cluster: Cluster, slurm: FakeSlurm) -> None:
    job = attempt(cluster, 1)
    (job / "id").unlink()
    slurm.says("sacct", "4711\n4712\n")
    assert cluster.ensure("eval", COMMAND, {}) == str(job)
    assert (job / "id").read_text() == "4712"
    assert slurm.calls("sbatch") == []


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("squeue", "slurm_load_jobs error: Unable to contact slurm controller"),
        ("sacct", "sacct: error: no dbd"),
    ],
)
def test_while_it_cannot_be_known_whether_there_is_a_job_none_is_submitted(
    cluster: Cluster, slurm: FakeSlurm, command: str, error: str
) -> None:
    (attempt(cluster, 1) / "id").unlink()
    slurm.says(command, error=error, code=1)
    with pytest.raises(Unreachable, match=f"{command}: "):
        cluster.ensure("eval", COMMAND, {})
    assert slurm.calls("sbatch") == []


def test_a_job_of_another_command_is_cancelled_first(cluster: Cluster, slurm: FakeSlurm) -> None:
    first = attempt(cluster, 1, command=["another"])
    slurm.says("squeue", "4711|RUNNING|None\n")
    with pytest.raises(Unreachable, match=f"job {first} is told to stop, and has not yet"):
        cluster.ensure("eval", COMMAND, {})
    assert slurm.calls("scancel") == ["--quiet 4711"]
    assert slurm.calls("sbatch") == [], "both would write the same files"
    slurm.says("squeue")
    slurm.says("sacct", "4711|CANCELLED by 0|0:0|node1\n")
    assert cluster.ensure("eval", COMMAND, {}) == cluster.folder("eval") + "/2"


def test_attempts_are_counted_as_numbers(cluster: Cluster, slurm: FakeSlurm) -> None:
    slurm.says("sacct", "4711|TIMEOUT|0:0|node1\n")
    for number in range(1, MAX_ATTEMPTS):
        attempt(cluster, number)
    assert cluster.ensure("eval", COMMAND, {}) == cluster.folder("eval") + f"/{MAX_ATTEMPTS}"
    with pytest.raises(JobError, match=f"job eval: lost \\(TIMEOUT\\), {MAX_ATTEMPTS} times in a row"):
        cluster.ensure("eval", COMMAND, {})
    # Who saw that it failed and wants it again begins to count anew.
    assert cluster.ensure("eval", COMMAND, {}) == cluster.folder("eval") + f"/{MAX_ATTEMPTS + 1}"
    assert cluster.ensure("eval", COMMAND, {}) == cluster.folder("eval") + f"/{MAX_ATTEMPTS + 2}"


def ensured(cluster: Cluster) -> Path:
    return Path(cluster.ensure("eval", ["true"], {}))


def test_a_command_that_a_signal_kills_is_not_tried_for_ever(cluster: Cluster) -> None:
    for _ in range(jobs.MAX_ATTEMPTS):
        (ensured(cluster) / "result.json").write_text(KILLED)
    with pytest.raises(JobError, match="killed by SIGSEGV, 3 times in a row"):
        ensured(cluster)
    assert ensured(cluster).name == "4", "whoever asks once more wants it tried again"


def test_clearing_a_task_often_is_no_failure(cluster: Cluster) -> None:
    for _ in range(MAX_ATTEMPTS + 1):
        cluster.cancel([str(ensured(cluster))])
    assert ensured(cluster).name == str(MAX_ATTEMPTS + 2)


def test_a_submission_that_was_cut_off_and_cancelled_is_not_taken_up_again(
    cluster: Cluster, slurm: FakeSlurm
) -> None:
    first = ensured(cluster)
    (first / "id").unlink()
    slurm.says("squeue", code=1)
    with pytest.raises(Exception, match="squeue"):
        cluster.cancel([str(first)])
    slurm.does("squeue", 'case "$*" in *"--name eval.1 "*) echo 4711;; esac')
    assert ensured(cluster).name == "2"
    assert slurm.calls("scancel") == ["--quiet 4711"]
