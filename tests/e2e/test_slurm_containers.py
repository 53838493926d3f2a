"""Containers on a real Slurm: what pyxis and enroot are given, by stand-ins that write it down."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_folder import cluster_folder
from demo.cluster import Cluster as Slurm
from evalcore import __version__
from evalcore.backends import Look, reason
from evalcore.jobs import State, job_name
from evalcore.profiles import SlurmProfile
from evalcore.slurm.cluster import Cluster
from evalcore.slurm.images import file_name
from evalcore.slurm.shell import Here
from waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.beside]

REFERENCE = "registry.local/models/eval:25.01"
# Writes slowly, so that what is half-written can be seen; dies after the half of it where it is told to.
ENROOT = """#!/bin/sh
echo "$PPID $SLURM_JOB_ID $*" >> {calls}
printf half > "$3"
while [ -e {pause} ]; do sleep 0.05; done
if [ -e {broken} ]; then echo "no space left" >&2; exit 7; fi
printf ' and half' >> "$3"
"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with cluster_folder() as folder, cluster_folder() as tools:
        plugin, source = tools / "container_stub.so", Path(__file__).with_name("container_stub.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-o", plugin, source], check=True)
        record = f"required {plugin} {tools}/record"
        with Slurm(folder, user="root", with_dbd=False, plugins=(record,)) as running:
            yield running


class Site:
    """A cluster with enroot and pyxis, and what they were given."""

    def __init__(self, slurm: Slurm, folder: Path) -> None:
        self.record = Path(slurm.plugins[0].split()[-1])
        self.record.write_text("")
        self.calls, self.pause, self.broken = folder / "calls", folder / "pause", folder / "broken"
        self.calls.write_text("")
        enroot = folder / "bin" / "enroot"
        enroot.parent.mkdir()
        enroot.write_text(ENROOT.format(calls=self.calls, pause=self.pause, broken=self.broken))
        enroot.chmod(0o755)
        self.remote = slurm.remote_job_dir / folder.name
        self.python = folder / "bin" / "python-of-image"
        self.python.write_text(f'#!/bin/sh\necho "$PYTHONPATH"\nexec {shlex.quote(sys.executable)} "$@"\n')
        self.python.chmod(0o755)
        self.profile = SlurmProfile(
            name="cluster",
            executor="slurm",
            partition="main",
            time="10",
            remote_job_dir=str(self.remote),
            results=str(folder / "results"),
            python=str(self.python),
            container_image=REFERENCE,
            mounts=("/data:/data:ro",),
            env={"PATH": f"{enroot.parent}:/usr/local/bin:/usr/bin:/bin"},
        )

    @property
    def image(self) -> Path:
        return self.remote / "containers" / file_name(REFERENCE)

    @property
    def imports(self) -> list[str]:
        return self.calls.read_text().splitlines()

    def halves(self) -> list[Path]:
        return list((self.remote / "containers").glob(".*.tmp"))

    def with_(self, **change: object) -> Cluster:
        return Cluster(self.profile.model_copy(update=change), Here())


@pytest.fixture
def site(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("SLURM_CONF", str(slurm.slurm_conf))
    folder = tmp_path / job_name(tmp_path.name, time.time_ns())
    folder.mkdir()
    yield Site(slurm, folder)
    slurm.run("scancel", "--user=root")
    until(lambda: not slurm.run("squeue", "-h"), "an empty queue")


@pytest.fixture
def cluster(site: Site) -> Cluster:
    return site.with_()


def ended(cluster: Cluster, job: str | None) -> Look:
    assert job is not None
    until(lambda: cluster.look({job: 0})[job].status.state.is_over, f"the end of {job}")
    return cluster.look({job: 0})[job]


def test_a_command_runs_in_the_container_by_srun(site: Site) -> None:
    cluster = site.with_(container_image="/images/eval.sqsh", env={"GREETING": "hello"})
    script = 'echo "$SLURM_STEP_ID $GREETING ${#KEY}"'
    found = ended(cluster, cluster.ensure("in-container", ["sh", "-c", script], {"KEY": "hunter2"}))
    assert (found.status.state, found.log) == (State.SUCCEEDED, ["0 hello 7"])
    mounts = ["/data:/data:ro", *(f"{f}:{f}" for f in (site.remote, site.profile.results))]
    assert site.record.read_text() == f"{found.id}.0|/images/eval.sqsh|{','.join(mounts)}\n"


def test_secrets_reach_it_where_jobs_do_not_inherit(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    cluster = site.with_(container_image="/images/eval.sqsh")
    found = ended(cluster, cluster.ensure("no-export", ["sh", "-c", "echo ${#KEY}"], {"KEY": "hunter2"}))
    assert found.log == ["7"]
    assert site.record.read_text().startswith(f"{found.id}.0|")


def test_evalcore_is_the_one_sent_whatever_the_image_has(site: Site) -> None:
    cluster = site.with_(container_image="/images/eval.sqsh")
    found = ended(cluster, cluster.ensure("evalcore", ["evalcore", "--version"], {}))
    [code] = (site.remote / "evalcore").iterdir()
    assert found.log == [str(code), __version__]


@pytest.mark.parametrize(
    ("script", "said"),
    [("exit 3", "failed with exit code 3"), ("kill -9 $$", "killed by SIGKILL")],
)
def test_how_a_command_in_a_container_ends(site: Site, script: str, said: str) -> None:
    cluster = site.with_(container_image="/images/eval.sqsh")
    assert str(ended(cluster, cluster.ensure("ends", ["bash", "-c", script], {})).status) == said


def test_too_much_memory_in_a_container_fails_and_says_so(site: Site, slurm: Slurm) -> None:
    if not slurm.has_memory_limit:
        pytest.skip("this machine's cgroups cannot limit memory")
    cluster = site.with_(container_image="/images/eval.sqsh", mem="300M")
    found = ended(cluster, cluster.ensure("memory", [sys.executable, "-c", "bytearray(3 << 30)"], {}))
    assert found.status.state is State.FAILED
    assert any("Out Of Memory" in line for line in found.log)


def test_time_that_is_up_lets_a_container_stop_cleanly(site: Site, slurm: Slurm) -> None:
    cluster = site.with_(container_image="/images/eval.sqsh")
    script = "trap 'sleep 1; echo stopped cleanly; exit 143' TERM; echo begun; sleep 600 & wait"
    job = cluster.ensure("time-is-up", ["bash", "-c", script], {})
    until(lambda: "begun" in cluster.look({job: 0})[job].log, "it to run")
    slurm.run("scancel", "--batch", "--signal=TERM", cluster.look({job: 0})[job].id)
    until(lambda: (Path(job) / "result.json").read_text().strip(), "its result")
    assert "stopped cleanly" in cluster.look({job: 0})[job].log
    assert '"terminated": true' in (Path(job) / "result.json").read_text()


def test_a_reference_becomes_a_file_once(site: Site, cluster: Cluster) -> None:
    first = cluster.prepare()
    found = ended(cluster, first)
    assert found.status.state is State.SUCCEEDED
    [call] = site.imports
    assert f" {found.id} import -o {site.remote}/containers/." in call
    assert call.endswith(".tmp docker://registry.local#models/eval:25.01")
    assert site.image.read_text() == "half and half"
    assert not site.halves()
    assert cluster.prepare() is None
    ended(cluster, cluster.ensure("uses-it", ["true"], {}))
    assert f"|{site.image}|" in site.record.read_text()


def test_asked_by_many_at_once_it_is_made_once(site: Site, cluster: Cluster) -> None:
    found: list[str | None] = []
    threads = [threading.Thread(target=lambda: found.append(site.with_().prepare())) for _ in range(4)]
    site.pause.touch()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: site.imports, "the import")
    assert len(found) == 4
    assert len(set(found)) == 1
    assert not site.image.exists(), "it is half-written"
    assert cluster.prepare() == found[0]
    site.pause.unlink()
    ended(cluster, found[0])
    assert len(site.imports) == 1


def test_two_jobs_that_make_the_same_file_take_turns(site: Site, cluster: Cluster) -> None:
    site.pause.touch()
    first = cluster.prepare()
    until(lambda: site.halves(), "the first to write")
    second = cluster.prepare(anew="run-1")
    assert first is not None
    assert second not in (None, first)
    until(lambda: cluster.look({str(second): 0})[str(second)].status.detail == "RUNNING", "the second to run")
    time.sleep(0.5)
    assert len(site.imports) == 1
    site.pause.unlink()
    assert [ended(cluster, job).status.state for job in (first, second)] == [State.SUCCEEDED] * 2
    assert len(site.imports) == 2


def test_one_that_breaks_off_leaves_nothing_and_says_why(site: Site, cluster: Cluster) -> None:
    site.broken.touch()
    job = cluster.prepare()
    found = ended(cluster, job)
    assert found.status.state is State.FAILED
    assert "no space left" in found.log
    assert reason(found) == "enroot import docker://registry.local#models/eval:25.01: exit code 7"
    assert not site.image.exists()
    assert not site.halves()
    site.broken.unlink()
    cluster.consume(str(job))
    again = cluster.prepare()
    assert again not in (None, job)
    assert ended(cluster, again).status.state is State.SUCCEEDED


def test_what_a_kill_left_is_removed_and_never_used(site: Site, cluster: Cluster) -> None:
    site.pause.touch()
    job = str(cluster.prepare())
    until(lambda: site.halves(), "it to write")
    os.kill(int(site.imports[0].split()[0]), signal.SIGKILL)
    assert ended(cluster, job).status.state is State.KILLED
    assert not site.image.exists()
    assert site.halves()
    site.pause.unlink()
    again = cluster.prepare()
    assert ended(cluster, again).status.state is State.SUCCEEDED
    assert site.image.read_text() == "half and half"
    assert not site.halves()


def test_it_is_made_anew_once_for_each_run_that_wants_it(site: Site, cluster: Cluster) -> None:
    ended(cluster, cluster.prepare())
    ended(cluster, cluster.prepare(anew="run-1"))
    assert len(site.imports) == 2
    assert cluster.prepare(anew="run-1") is None
    assert cluster.prepare() is None
    ended(cluster, cluster.prepare(anew="run-2"))
    assert len(site.imports) == 3


@pytest.mark.parametrize("image", ["/images/eval.sqsh", "images/eval.sqsh", None])
def test_a_file_needs_no_making(site: Site, image: str | None) -> None:
    assert site.with_(container_image=image).prepare() is None
    assert not site.imports
