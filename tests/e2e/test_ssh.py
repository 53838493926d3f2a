"""The way to a login node, over a real sshd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from demo.cluster import Cluster
from evalcore.backends import Unreachable
from evalcore.errors import JobError
from evalcore.profiles import SlurmProfile
from evalcore.slurm.shell import Finished
from hooks.slurm import SshShell

pytestmark = [pytest.mark.e2e, pytest.mark.beside]


def shell_of(cluster: Cluster, **keys: str) -> SshShell:
    said = {"host": cluster.ssh_host, "ssh_conn_id": cluster.ssh_conn_id, **keys}
    remote = {
        "name": "c",
        "executor": "slurm",
        "tunnel": "ssh",
        "remote_job_dir": str(cluster.remote_job_dir),
    }
    return SshShell(SlurmProfile.model_validate({**remote, **said}))


@pytest.fixture
def shell(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshShell]:
    monkeypatch.setenv("AIRFLOW_CONN_CLUSTER", cluster.connection_uri())
    found = shell_of(cluster)
    yield found
    found.close()


def test_a_command_gets_its_input_and_says_how_it_ended(shell: SshShell) -> None:
    much = bytes(range(256)) * 8192
    assert shell.run("cat; echo said >&2; exit 3", much, timeout=60) == Finished(3, much, b"said\n")
    assert shell.run("cat", b"", timeout=60) == Finished(0, b"", b"")


def test_a_command_whose_end_is_not_seen_may_have_done_anything(shell: SshShell) -> None:
    with pytest.raises(Unreachable, match="no answer within 1 s"):
        shell.run("sleep 30", b"", timeout=1)
    with pytest.raises(Unreachable, match="without an exit code"):
        shell.run("kill -9 $$", b"", timeout=60)
    assert shell.run("true", b"", timeout=60).code == 0


def test_a_file_that_is_not_there_is_no_matter_of_the_connection(
    shell: SshShell, cluster: Cluster, tmp_path: Path
) -> None:
    shell.run("true", b"", timeout=60)
    client = shell._client
    with pytest.raises(FileNotFoundError):
        shell.get(f"{cluster.remote_job_dir}/nothing", str(tmp_path / "nothing"))
    shell.run(f"echo here > {cluster.remote_job_dir}/something", b"", timeout=60)
    shell.get(f"{cluster.remote_job_dir}/something", str(tmp_path / "something"))
    assert (tmp_path / "something").read_text() == "here\n"
    assert shell._client is client, "the connection is kept"


def test_who_is_refused_need_not_ask_again(
    shell: SshShell, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the profile says goes before the Connection.
    with pytest.raises(JobError, match=f"cluster c: {cluster.ssh_host} refuses the login: "):
        shell_of(cluster, user="nobody").run("true", b"", timeout=60)
    other, ours = ((cluster.root / "ssh" / f"{name}.pub").read_text().split()[1] for name in ("id", "host"))
    wrong = cluster.connection_uri().replace(quote(ours, safe=""), quote(other, safe=""))
    monkeypatch.setenv("AIRFLOW_CONN_CLUSTER", wrong)
    with pytest.raises(JobError, match="refuses the login: Host key"):
        shell_of(cluster).run("true", b"", timeout=60)


def test_a_host_where_nobody_listens_may_come_back(shell: SshShell, cluster: Cluster) -> None:
    cluster.stop("sshd")
    try:
        with pytest.raises(Unreachable, match=cluster.ssh_host):
            shell.run("true", b"", timeout=60)
    finally:
        cluster.start("sshd")
    assert shell.run("true", b"", timeout=60).code == 0
