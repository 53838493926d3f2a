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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from evalcore.profiles import SlurmProfile, walltime_seconds

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
        # Of a short job only the last quarter; told at its start it would do nothing.
        ("signal", f"B:TERM@{min(STOP_SECONDS, walltime_seconds(profile.time) // 4)}"),
        *_resources(profile),
    ]
    lines = [f"#SBATCH --{name}" if value is None else f"#SBATCH --{name}={value}" for name, value in header]
    lines += [f"#SBATCH {option}" for option in profile.extra_sbatch]
    run = shlex.join(["python3", f"{folder}/supervise.py", folder])
    return "\n".join(["#!/bin/sh", *lines, f"exec {run}"]) + "\n"


def in_container(profile: SlurmProfile, argv: Sequence[str], image: str, env: Mapping[str, str]) -> list[str]:
    """A command as pyxis runs it in a container, on the node that the job has; our folders are where they are.

    By srun within the script, not by the script's own header: a batch script with ``--container-image`` and an
    ``--export`` list runs on the host, silently.

    env: what goes before the image's own environment. The rest of the job's, secrets too, pyxis passes on, but
    only where the image has nothing of that name: an image with a PYTHONPATH would run another evalcore.
    """
    folders = [profile.remote_job_dir]
    if not PurePosixPath(profile.results).is_relative_to(profile.remote_job_dir):
        folders.append(profile.results)
    mounts = [*profile.mounts, *(f"{folder}:{folder}" for folder in folders)]
    return [
        "srun",
        "--nodes=1",
        "--ntasks=1",
        # One task has all that the job has; bound like one of many it would have a single core.
        "--cpu-bind=none",
        # Whatever a site or a user has set for srun (SLURM_EXPORT_ENV): without it there are no secrets.
        "--export=ALL",
        f"--container-image={image}",
        f"--container-mounts={','.join(mounts)}",
        "--no-container-remap-root",
        # Python packages in the user's home are for the host's python.
        "--no-container-mount-home",
        "env",
        *(f"{name}={value}" for name, value in env.items()),
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
