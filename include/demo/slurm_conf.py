"""The files a small Slurm cluster is configured by, all in one folder: ``slurm.conf``, ``slurmdbd.conf``, sshd's, …

Every daemon has a port of its own; sshd and MariaDB listen on 127.0.0.1, Slurm's as ever on all addresses,
and they hear only who has the key of this cluster's munged. The nodes ``node1``, ``node2``, … are all this
machine. Times are short, so that a test sees a lost node or a preempted job in seconds.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import shutil
import socket
import stat
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CLUSTER_NAME = "demo"
DATABASE = "slurm_acct"
GPUS_PER_NODE = 2
# Below the ports that the kernel hands out: one is still free when its daemon is started again.
PORTS = range(20_000, 32_768)
JOBS_PER_CLUSTER = 4_000
FOLDERS = ("db", "etc", "gres", "jobs", "log", "munge", "run", "spool", "ssh", "state")


@dataclass(frozen=True)
class Plan:
    """What the files depend on."""

    root: Path
    user: str
    nodes: tuple[str, ...]
    ports: dict[str, int]
    with_dbd: bool
    has_memory_limit: bool
    plugins: tuple[str, ...] = ()

    @property
    def munge_socket(self) -> Path:
        return self.root / "munge" / "socket"


def memory_can_be_limited() -> bool:
    """Whether Slurm can keep a job within its memory: cgroup v1 that we may write to."""
    return all(
        os.access(Path("/sys/fs/cgroup", part, "cgroup.procs"), os.W_OK) for part in ("freezer", "memory")
    )


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """A port for each name that nobody uses. OSError if there are none left."""
    ports: dict[str, int] = {}
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        ports[names[len(ports)]] = port
        if len(ports) == len(names):
            return ports
    raise OSError(f"no {len(names)} ports between {PORTS.start} and {PORTS.stop} are free")


def job_ids(ports: dict[str, int]) -> range:
    """The ids of a cluster's jobs. They follow from slurmctld's port, so that no two clusters share any."""
    first = (ports["slurmctld"] - PORTS.start + 1) * JOBS_PER_CLUSTER
    return range(first, first + JOBS_PER_CLUSTER)


def remove_cgroups(jobs: range) -> None:
    """Remove the cgroups of jobs that Slurm was not there to remove."""
    for job in Path("/sys/fs/cgroup").glob("*/slurm_node*/uid_*/job_*"):
        if int(job.name.removeprefix("job_")) in jobs:
            for folder, _, _ in os.walk(job, topdown=False):
                with suppress(OSError):  # it is empty in a moment; an empty one harms nobody
                    os.rmdir(folder)


def write(plan: Plan) -> None:
    """Write everything the daemons read into ``plan.root``, keys included."""
    root = plan.root
    for name in FOLDERS:
        (root / name).mkdir(exist_ok=True)
        (root / name).chmod(0o755)
    (root / "db").chmod(0o700)
    _private(root / "etc" / "munge.key", secrets.token_bytes(1024))
    _private(root / "etc" / "slurmdbd.conf", _slurmdbd_conf(plan).encode())
    (root / "etc" / "slurm.conf").write_text(_slurm_conf(plan))
    (root / "etc" / "cgroup.conf").write_text(_cgroup_conf(plan))
    (root / "etc" / "plugstack.conf").write_text("".join(f"{line}\n" for line in plan.plugins))
    gpus = [root / "gres" / f"nvidia{n}" for n in range(GPUS_PER_NODE)]
    for gpu in gpus:
        # Slurm takes nothing but a device node for a GPU; this one is another /dev/null.
        if not gpu.exists():
            os.mknod(gpu, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (root / "etc" / "gres.conf").write_text(
        "".join(
            f"NodeName={node} Name=gpu File={root}/gres/nvidia[0-{len(gpus) - 1}]\n" for node in plan.nodes
        )
    )
    _private(root / "etc" / "init.sql", _init_sql().encode())
    _write_ssh(plan)


def command(plan: Plan, daemon: str, path: str) -> list[str]:
    """The command line of a daemon that stays in the foreground; ``path`` is where programs are searched."""
    root = plan.root
    if daemon in plan.nodes:
        return ["slurmd", "-D", "-N", daemon]
    if daemon == "munged":
        return [
            "munged",
            "--foreground",
            f"--socket={plan.munge_socket}",
            f"--key-file={root}/etc/munge.key",
            f"--pid-file={root}/run/munged.pid",
            f"--seed-file={root}/run/munged.seed",
            "--num-threads=4",
        ]
    if daemon == "mariadb":
        return [
            "mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={root}/db",
            f"--socket={root}/run/mariadb.socket",
            f"--pid-file={root}/run/mariadb.pid",
            f"--port={plan.ports['mariadb']}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            f"--init-file={root}/etc/init.sql",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=64M",
            "--innodb-lock-wait-timeout=900",
        ]
    if daemon == "sshd":
        # It starts itself anew for each connection, and asks for a whole path for that.
        return [shutil.which("sshd", path=path) or "sshd", "-D", "-e", "-f", f"{root}/ssh/sshd_config"]
    return {"slurmctld": ["slurmctld", "-D", "-i"], "slurmdbd": ["slurmdbd", "-D"]}[daemon]


def version() -> tuple[int, int]:
    """The version of Slurm that is installed, such as ``(22, 5)``."""
    text = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _slurm_conf(plan: Plan) -> str:
    root, ports, host = plan.root, plan.ports, socket.gethostname().split(".")[0]
    accounting = (
        f"""AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports["slurmdbd"]}
AccountingStoragePass={plan.munge_socket}"""
        if plan.with_dbd
        else "AccountingStorageType=accounting_storage/none"
    )
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[node]} CPUs=4 RealMemory=4000 "
        f"Gres=gpu:{GPUS_PER_NODE} State=UNKNOWN"
        for node in plan.nodes
    )
    tracking = ("cgroup", "cgroup") if plan.has_memory_limit else ("linuxproc", "none")
    jobs = job_ids(ports)
    # cred_expire: a job that was preempted does not start again before its credential has expired.
    # FirstJobId: cgroups are named after node and job, and another cluster here has nodes of the same names.
    return f"""ClusterName={CLUSTER_NAME}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports["slurmctld"]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={plan.munge_socket},cred_expire=5
CredType=cred/munge
StateSaveLocation={root}/state
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd-%n.pid
SlurmdSpoolDir={root}/spool/%n
ProctrackType=proctrack/{tracking[0]}
TaskPlugin=task/{tracking[1]}
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2,sched_min_interval=0,batch_sched_delay=0,requeue_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
FirstJobId={jobs.start}
MaxJobId={jobs.stop - 1}
MinJobAge=300
KillWait=10
SlurmctldTimeout=10
SlurmdTimeout=30
MessageTimeout=10
TCPTimeout=2
BatchStartTimeout=10
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
SlurmctldDebug=info
SlurmdDebug=info
{accounting}
{nodes}
PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE DefaultTime=10 DefMemPerCPU=200 State=UP
PartitionName=main PriorityTier=1 Default=YES
PartitionName=urgent PriorityTier=10 PreemptMode=OFF Default=NO
"""


def _cgroup_conf(plan: Plan) -> str:
    if not plan.has_memory_limit:
        # An older Slurm asks for no cgroup if no plugin needs one, and does not know the word.
        return "CgroupPlugin=disabled\n" if version() >= (23, 11) else "CgroupPlugin=cgroup/v1\n"
    swap = Path("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists()
    return f"""CgroupPlugin=cgroup/v1
ConstrainRAMSpace=yes
ConstrainSwapSpace={"yes" if swap else "no"}
"""


def _slurmdbd_conf(plan: Plan) -> str:
    return f"""AuthType=auth/munge
AuthInfo=socket={plan.munge_socket}
DbdHost={socket.gethostname().split(".")[0]}
DbdAddr=127.0.0.1
DbdPort={plan.ports["slurmdbd"]}
SlurmUser=root
PidFile={plan.root}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={plan.ports["mariadb"]}
StorageUser=slurm
StoragePass=slurm
StorageLoc={DATABASE}
"""


def _init_sql() -> str:
    # MariaDB reads one statement per line here.
    return f"""CREATE DATABASE IF NOT EXISTS {DATABASE};
CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY 'slurm';
GRANT ALL ON {DATABASE}.* TO slurm@'127.0.0.1';
"""


def _write_ssh(plan: Plan) -> None:
    folder, port = plan.root / "ssh", plan.ports["sshd"]
    for key in ("host", "id"):
        if not (folder / key).exists():
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / key)], check=True
            )
    (folder / "authorized_keys").write_text((folder / "id.pub").read_text())
    host_key = (folder / "host.pub").read_text().strip()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    # SHLVL: Debian's bash takes itself for no outermost shell then and leaves .bashrc alone, which is the business of
    # whoever this machine belongs to: it may be slow, or write what it likes.
    (folder / "sshd_config").write_text(f"""Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile {plan.root}/run/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
AllowUsers {plan.user}
SetEnv SLURM_CONF={plan.root}/etc/slurm.conf SHLVL=1
Subsystem sftp internal-sftp
MaxStartups 100:30:200
MaxSessions 100
""")
    (folder / "config").write_text(f"""Host cluster
  HostName 127.0.0.1
  Port {port}
  User {plan.user}
  IdentityFile {folder}/id
  IdentitiesOnly yes
  BatchMode yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  LogLevel ERROR
""")


def _private(file: Path, content: bytes) -> None:
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(content)
