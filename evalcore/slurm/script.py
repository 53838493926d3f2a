"""The script that is submitted: a short header, then the one command that supervises the job on its node.

>>> print(render(profile, "evaluate-generate-1f0a", "/lustre/me/jobs/evaluate-generate-1f0a/1"))
#!/bin/sh
#SBATCH --job-name=evaluate-generate-1f0a.1
#SBATCH --output=/lustre/me/jobs/evaluate-generate-1f0a/1/log.txt
#SBATCH --open-mode=append
#SBATCH --no-requeue
#SBATCH --signal=B:TERM@120
#SBATCH --partition=batch
#SBATCH --time=4:00:00
exec python3 /lustre/me/jobs/evaluate-generate-1f0a/1/supervise.py /lustre/me/jobs/evaluate-generate-1f0a/1

Secrets are never in it, and neither is the command: what users can see of a job (``scontrol show job``, ``ps``)
is this text.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from evalcore.profiles import SlurmProfile

STOP_SECONDS = 120
"""How long before its time is up a job is told to stop: generation ends the samples it has begun, or leaves them."""


def render(profile: SlurmProfile, job_name: str, folder: str, tasks: Sequence[int] = ()) -> str:
    """The script of one attempt, whose files lie in ``folder``. tasks: of an array, those to run."""
    header = [
        ("job-name", job_name),
        ("output", f"{folder}/log-%a.txt" if tasks else f"{folder}/log.txt"),
        *([("array", ",".join(map(str, tasks)))] if tasks else []),
        ("open-mode", "append"),
        # A job that Slurm would start again by itself is made again by us: with its secrets, and counted.
        ("no-requeue", None),
        ("signal", f"B:TERM@{STOP_SECONDS}"),
        *_resources(profile),
    ]
    lines = [f"#SBATCH --{name}" if value is None else f"#SBATCH --{name}={value}" for name, value in header]
    lines += [f"#SBATCH {option}" for option in profile.extra_sbatch]
    run = shlex.join(["python3", f"{folder}/supervise.py", folder])
    return "\n".join(["#!/bin/sh", *lines, f"exec {run}"]) + "\n"


def in_container(profile: SlurmProfile, argv: list[str], image: str, folders: list[str]) -> list[str]:
    """A command as pyxis runs it in a container, on the node that the job has; folders are mounted as they are.

    By srun within the script, not by the script's own header: a batch script with ``--container-image`` and an
    ``--export`` list runs on the host, silently.
    """
    mounts = [*profile.mounts, *(f"{folder}:{folder}" for folder in folders)]
    return [
        "srun",
        "--ntasks=1",
        f"--container-image={image}",
        f"--container-mounts={','.join(mounts)}",
        "--no-container-remap-root",
        *argv,
    ]


def _resources(profile: SlurmProfile) -> Iterator[tuple[str, str | int | None]]:
    for option, value in (
        ("account", profile.account),
        ("partition", profile.partition),
        ("qos", profile.qos),
        ("time", profile.time),
        ("nodes", profile.nodes),
        ("gpus-per-node", profile.gpus_per_node),
        ("cpus-per-task", profile.cpus_per_task),
        ("mem", profile.mem),
        ("gres", profile.gres),
        ("constraint", profile.constraint),
    ):
        if value is not None:
            yield option, value
    if profile.exclusive:
        yield "exclusive", None
