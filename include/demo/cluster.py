"""A real Slurm cluster on this machine, for ``make cluster``, ``make demo-slurm`` and the end-to-end tests.

>>> with Cluster(Path("/var/lib/evalcore-cluster")) as cluster:
...     cluster.run("sbatch", "--parsable", "--wrap", "hostname")
'92004000\n'

munged, slurmctld, a slurmd per node, slurmdbd on MariaDB and an sshd, from the distribution's packages and
without systemd, on free ports. Jobs run as a user of their own, which is made if it is missing
and stays; everything else is in one folder, and every process is ended at exit. It needs root.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Self
from urllib.parse import quote, urlencode

import psutil

if __package__:
    from demo import packages, slurm_conf
    from demo.daemons import Daemons, kill, of_jobs, recorded, with_descendants
else:  # a script, or beside one
    import packages
    import slurm_conf
    from daemons import Daemons, kill, of_jobs, recorded, with_descendants

HOME = Path("/var/lib/evalcore-cluster")
START_TIMEOUT = 300.0  # seconds; where much else runs it takes a minute


class ClusterError(Exception):
    """The cluster did not start, or a command on it failed; one line."""


class Cluster:
    """One cluster in a folder of its own, started on ``with`` and ended after it with all its jobs.

    Each start is a new cluster; of the one before, only ``remote_job_dir`` and the ssh keys stay.

    :param root: configuration, state, logs; every user must be able to enter it.
    :param nodes: how many, named ``node1``, ``node2``, …, each with 4 CPUs, 4,000 MB and 2 GPUs (by name only).
    :param with_dbd: whether there is accounting (``sacct``).
    :param user: whom the jobs run as, and who may log in.
    :param progress: is told in a line what was done. plugins: lines of ``plugstack.conf``.
    """

    ssh_host = "127.0.0.1"
    ssh_conn_id = "cluster"

    def __init__(
        self,
        root: Path,
        nodes: int = 2,
        with_dbd: bool = True,
        user: str = "evalcore",
        progress: Callable[[str], None] = lambda line: None,
        plugins: tuple[str, ...] = (),
    ) -> None:
        self.root = root.absolute()
        self.nodes = tuple(f"node{n}" for n in range(1, nodes + 1))
        self.with_dbd = with_dbd
        self.user = user
        self.plugins = plugins
        self.progress = progress
        self.has_memory_limit = slurm_conf.memory_can_be_limited()
        self.slurm_conf = self.root / "etc" / "slurm.conf"
        self.key_file = self.root / "ssh" / "id"
        self.known_hosts = self.root / "ssh" / "known_hosts"
        self.ssh_config = self.root / "ssh" / "config"
        self.remote_job_dir = self.root / "jobs"
        self.env = {"SLURM_CONF": str(self.slurm_conf)}
        self.daemons = Daemons(self.root / "processes.json", self.root / "log")
        self.ports: dict[str, int] = {}
        self._lock: IO[str] | None = None

    @property
    def ssh_port(self) -> int:
        return self.ports["sshd"]

    def ssh(self, *argv: str) -> list[str]:
        """The command line that runs ``argv`` as the job user through ssh."""
        return ["ssh", "-F", str(self.ssh_config), "cluster", *([shlex.join(argv)] if argv else [])]

    def connection_uri(self) -> str:
        """For ``AIRFLOW_CONN_CLUSTER``: a connection of Airflow's ssh provider that knows key and host key."""
        extra = {
            "key_file": str(self.key_file),
            "host_key": (self.root / "ssh" / "host.pub").read_text().strip(),
            "look_for_keys": "false",
        }
        return (
            f"ssh://{quote(self.user)}@{self.ssh_host}:{self.ssh_port}/?{urlencode(extra, quote_via=quote)}"
        )

    def env_toml(self) -> Path:
        """Write the cluster profile of this cluster, and return its path."""
        values = {
            "executor": "slurm",
            "tunnel": "ssh",
            "host": self.ssh_host,
            "user": self.user,
            "ssh_conn_id": self.ssh_conn_id,
            "partition": "main",
            "remote_job_dir": str(self.remote_job_dir),
        }
        file = self.root / "env.toml"
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        file.write_text("\n".join(["[cluster]", *lines, ""]))
        return file

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.down()

    def up(self) -> None:
        """Start everything and wait until the nodes are idle. ClusterError if something is missing or fails."""
        if os.geteuid() != 0:
            raise ClusterError(
                "a Slurm cluster starts jobs as another user, and needs root for that: use sudo"
            )
        if missing := packages.missing():
            raise ClusterError(packages.how_to_install(missing))
        started = time.monotonic()
        _check_root(self.root)
        self.root.mkdir(parents=True, exist_ok=True)
        self._take_root()
        _empty(self.root)
        account = _account(self.user)
        names = ("slurmctld", "slurmdbd", "mariadb", "sshd", *self.nodes)
        self.ports = slurm_conf.free_ports(names)
        plan = self._plan()
        (self.root / "ports.json").write_text(json.dumps(self.ports))
        slurm_conf.write(plan)
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own; systemd makes it elsewhere
        self.daemons.record("cluster", os.getpid())
        os.chown(self.remote_job_dir, account.pw_uid, account.pw_gid)
        self.remote_job_dir.chmod(0o700)
        if (who := _reaches(account, self.remote_job_dir)) is not None:
            raise ClusterError(f"{self.user} cannot enter {who}: choose another folder than {self.root}")
        for name in self._names():
            self.start(name)
        self.env_toml()
        self.progress(f"Slurm is ready after {time.monotonic() - started:.1f} s")

    def down(self) -> None:
        """End everything, jobs too. Nothing if it does not run."""
        if self._lock is None:
            return
        # An impatient second Ctrl-C must not leave half of it running.
        previous = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            # No node starts a job that has not been seen here, and slurmctld does not start one anew.
            for name in ("slurmctld", *self.nodes):
                self.daemons.stop(name)
            if self.ports:
                _end_jobs(slurm_conf.job_ids(self.ports))
            for name in reversed(self._names()):
                self.stop(name)
            (self.root / "processes.json").unlink(missing_ok=True)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._lock.close()
            self._lock = None

    def start(self, daemon: str) -> None:
        """Start slurmctld, slurmdbd, sshd, a node … (again), and wait until it answers."""
        if daemon == "mariadb":
            self._install_database()
        environment = _environment(self.env)
        self.daemons.start(daemon, slurm_conf.command(self._plan(), daemon, environment["PATH"]), environment)
        ready, deadline = self._ready(daemon), time.monotonic() + START_TIMEOUT
        while not ready():
            if self.daemons.process(daemon) is None:
                raise ClusterError(f"{daemon} ended: {_last_line(self.daemons.log(daemon))}")
            if time.monotonic() > deadline:
                log = self.daemons.log(daemon)
                raise ClusterError(f"{daemon} is not ready after {START_TIMEOUT:.0f} s; see {log}")
            time.sleep(0.05)
        if daemon == "slurmdbd":
            self._admin("sacctmgr", "-i", "add", "cluster", slurm_conf.CLUSTER_NAME, "-Q", check=False)

    def stop(self, daemon: str) -> None:
        """Stop one daemon. The jobs of a node go on, as they do on a real one; sshd takes its connections along."""
        process = self.daemons.process(daemon)
        family = with_descendants([process])[1:] if process and daemon not in self.nodes else []
        if daemon == "sshd":
            kill(p for p in family if _is_sshd(p))
        self.daemons.stop(daemon)
        kill(family)

    def run(self, *argv: str, stdin: str = "", timeout: float = 300.0) -> str:
        """What a command on the cluster, run as the job user, prints. ClusterError with its words if it fails."""
        account = pwd.getpwnam(self.user)
        environment = _environment(self.env) | {
            "HOME": account.pw_dir,
            "USER": self.user,
            "LOGNAME": self.user,
        }
        return _output(
            subprocess.run(
                argv,
                input=stdin,
                env=environment,
                cwd=self.remote_job_dir,
                user=account.pw_uid,
                group=account.pw_gid,
                extra_groups=[],
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        )

    def state(self, job: str) -> str:
        """The state slurmctld knows a job in, such as ``RUNNING``. ClusterError if it does not know the job."""
        found = re.search(r" JobState=(\S+)", self._admin("scontrol", "show", "job", "-o", job))
        if not found:
            raise ClusterError(f"no state of job {job}")
        return found[1]

    def cut_ssh(self) -> None:
        """Cut the connections there are. The listener goes on, and so do the commands that were running."""
        if listener := self.daemons.process("sshd"):
            kill(p for p in with_descendants([listener])[1:] if _is_sshd(p))

    def end_now(self, job: str) -> None:
        """Let a running job reach its time limit; slurmctld looks every half minute."""
        self._admin("scontrol", "update", f"jobid={job}", "EndTime=now+1")

    def fail_node(self, name: str) -> None:
        """Lose a node, and what runs on it. Its slurmd lives, and may bring it back by itself."""
        self._admin("scontrol", "update", f"nodename={name}", "state=down", "reason=test")

    def resume_node(self, name: str) -> None:
        """Take a node that was lost back into service, and wait until it is."""
        # That is refused if the node is back already.
        self._admin("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        self._wait(lambda: self._in_service(name), f"{name} is not back")

    def preempt(self, job: str) -> str:
        """Requeue a running job of ``main`` by one of ``urgent``; that one's id, to cancel it by."""
        node = self._admin("squeue", "-h", "-j", job, "-o", "%N").strip()
        urgent = ("--partition=urgent", f"--nodelist={node}", "--exclusive", "--output=/dev/null")
        taker = self.run("sbatch", "--parsable", *urgent, "--wrap", "sleep 600").strip()
        self._wait(lambda: self.state(taker) == "RUNNING", f"job {taker} does not preempt {job}")
        return taker

    def _names(self) -> list[str]:
        accounting = ["mariadb", "slurmdbd"] if self.with_dbd else []
        return ["munged", *accounting, "slurmctld", *self.nodes, "sshd"]

    def _plan(self) -> slurm_conf.Plan:
        return slurm_conf.Plan(
            root=self.root,
            user=self.user,
            nodes=self.nodes,
            ports=self.ports,
            with_dbd=self.with_dbd,
            has_memory_limit=self.has_memory_limit,
            plugins=self.plugins,
        )

    def _ready(self, daemon: str) -> Callable[[], bool]:
        if daemon in self.nodes:
            # Without slurmctld, nobody says more of a node than that it listens.
            has_controller = self.daemons.process("slurmctld") is not None
            return lambda: self._in_service(daemon) if has_controller else _listens(self.ports[daemon])
        return {
            "munged": lambda: self._plan().munge_socket.exists(),
            "mariadb": lambda: _listens(self.ports["mariadb"]),
            "slurmdbd": lambda: _listens(self.ports["slurmdbd"]),
            "slurmctld": lambda: "UP" in self._admin("scontrol", "ping", check=False),
            "sshd": lambda: _listens(self.ports["sshd"]),
        }[daemon]

    def _install_database(self) -> None:
        if (self.root / "db" / "mysql").exists():
            return
        data = ("--no-defaults", "--user=root", f"--datadir={self.root}/db", "--skip-test-db")
        self._admin("mariadb-install-db", *data, "--auth-root-authentication-method=normal")

    def _in_service(self, node: str) -> bool:
        # A trailing * is a node that does not answer yet.
        return self._admin("sinfo", "-h", "-p", "main", "-n", node, "-o", "%T", check=False).strip() in (
            "idle",
            "mixed",
            "allocated",
        )

    def _wait(self, holds: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not holds():
            if time.monotonic() > deadline:
                raise ClusterError(f"{otherwise} after {START_TIMEOUT:.0f} s")
            time.sleep(0.1)

    def _admin(self, *argv: str, check: bool = True) -> str:
        done = subprocess.run(
            argv,
            env=_environment(self.env),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT,
            check=False,
        )
        return _output(done) if check else done.stdout

    def _take_root(self) -> None:
        lock = (self.root / "cluster.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise ClusterError(
                f"another cluster runs in {self.root}; stop it, or choose another folder"
            ) from None
        self._lock = lock
        _end_left(self.root)


def stop_other(root: Path) -> None:
    """End the cluster in ``root``, whoever started it, and if that one was killed."""
    owner = recorded(root / "processes.json").get("cluster")
    if owner:
        owner.terminate()
        deadline = time.monotonic() + START_TIMEOUT
        # One whose parent has not looked yet is over, too.
        while owner.is_running() and owner.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.1)
    if (root / "cluster.lock").exists():
        cluster = Cluster(root)
        cluster._take_root()
        cluster.down()


def _end_left(root: Path) -> None:
    """End what a cluster left whose owner was killed before it could."""
    left = recorded(root / "processes.json")
    left.pop("cluster", None)
    kill(with_descendants(process for process in left.values() if process))
    ports = root / "ports.json"
    if ports.is_file():
        _end_jobs(slurm_conf.job_ids(json.loads(ports.read_text())))


def _end_jobs(jobs: range) -> None:
    kill(of_jobs(jobs))
    slurm_conf.remove_cgroups(jobs)


def _is_sshd(process: psutil.Process) -> bool:
    # sshd itself up to OpenSSH 9.7, sshd-session and sshd-auth after it
    try:
        return Path(process.exe()).name.startswith("sshd")
    except psutil.Error:
        return False


def _check_root(root: Path) -> None:
    if not re.fullmatch(r"[\w./-]{1,80}", str(root)):
        raise ClusterError(f"{root}: Slurm's files and sockets need a short path without spaces or signs")
    if root.is_dir() and any(root.iterdir()) and not (root / "cluster.lock").exists():
        raise ClusterError(f"{root} is not empty, and no cluster of ours: choose another folder")


def _empty(root: Path) -> None:
    for name in slurm_conf.FOLDERS:
        if name not in ("jobs", "ssh") and (root / name).exists():
            shutil.rmtree(root / name)


def _account(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        # "*": no password fits, but unlike a locked account sshd accepts it.
        made = ["useradd", "--create-home", "--shell", "/bin/bash", "--password", "*", user]
        done = subprocess.run(made, env=_environment({}), capture_output=True, text=True, check=False)
        # Where it is there now, another cluster that starts was faster.
        if user not in {account.pw_name for account in pwd.getpwall()}:
            _output(done)
        return pwd.getpwnam(user)


def _reaches(account: pwd.struct_passwd, folder: Path) -> Path | None:
    """The first folder on the way that the user may not enter, or None."""
    for parent in [*reversed(folder.parents), folder]:
        found = subprocess.run(
            ["test", "-x", str(parent)],
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            check=False,
        )
        if found.returncode:
            return parent
    return None


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _environment(settings: dict[str, str]) -> dict[str, str]:
    # Another cluster's settings in the caller's shell must not reach this one, nor a job's secrets.
    path = f"{os.environ.get('PATH', os.defpath)}:{packages.SBIN}"
    return {"PATH": path, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **settings}


def _output(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split())
        raise ClusterError(f"{shlex.join(done.args)}: exit code {done.returncode}: {words[-500:]}")
    return done.stdout


def _last_line(file: Path) -> str:
    lines = [line.strip() for line in file.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it printed nothing")


def _up(root: Path) -> None:
    with Cluster(root, progress=lambda line: print(line, flush=True)) as cluster:
        print(f"""
{cluster._admin("sinfo").rstrip()}

On this machine:   export SLURM_CONF={cluster.slurm_conf}
As {cluster.user + ":":15} {shlex.join(cluster.ssh())}
Cluster profile:   {cluster.env_toml()}
For Airflow:       export AIRFLOW_CONN_CLUSTER={shlex.quote(cluster.connection_uri())}

Ctrl-C stops it, jobs included.""", flush=True)  # fmt: skip
        while not (gone := cluster.daemons.gone()):
            time.sleep(1)
        raise ClusterError(f"{gone[0]} ended: {_last_line(cluster.daemons.log(gone[0]))}")


def _status(root: Path) -> int:
    """Print which daemons run; 0 if all of them do, 3 if none was started (as init scripts have it)."""
    found = recorded(root / "processes.json")
    for name, process in found.items():
        print(f"{name:10} {f'pid {process.pid}' if process else 'gone'}")
    if not found:
        print(f"no cluster runs in {root}")
        return 3
    return 0 if all(found.values()) else 1


def main() -> int:
    """``up`` in the foreground until Ctrl-C, ``down``, ``status``; in HOME, or in the folder given after it."""
    verbs = ("up", "down", "status")
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in verbs:
        print(f"usage: {sys.argv[0]} {'|'.join(verbs)} [FOLDER]", file=sys.stderr)
        return 2
    root = Path(sys.argv[2]).absolute() if len(sys.argv) == 3 else HOME
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        if sys.argv[1] == "status":
            return _status(root)
        if sys.argv[1] == "down":
            stop_other(root)
        else:
            _up(root)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
