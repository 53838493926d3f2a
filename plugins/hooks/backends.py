"""The backend of a cluster profile: local processes, containers, or a Slurm cluster over the profile's connection."""

from __future__ import annotations

import contextlib
import netrc
import os
from pathlib import Path

from evalcore.backends import Backend, Local
from evalcore.profiles import DockerProfile, LocalProfile, SlurmProfile, load_profiles
from evalcore.slurm.cluster import Cluster
from evalcore.slurm.shell import Here, Shell

_PROPAGATED = ("WANDB_API_KEY", "OPENAI_API_KEY", "HF_TOKEN")
"""Keys that a job gets if they are set where Airflow's workers run."""

_WANDB_HOST = "api.wandb.ai"


def backend(cluster: str, jobs_folder: str) -> Backend:
    """Where the jobs of a profile run. jobs_folder: that of local ones and of containers.

    Raises:
        ConfigError: no such profile.
    """
    profile = load_profiles().get(cluster)
    if isinstance(profile, LocalProfile):
        return Local(Path(jobs_folder))
    if isinstance(profile, DockerProfile):
        return _docker(profile, Path(jobs_folder))
    return Cluster(profile, _shell(profile))


def environment(cluster: str) -> dict[str, str]:
    """What a job inherits from here.

    A local one everything (API keys too) but Airflow's own settings and connections; one on a cluster only
    keys, and what its profile takes from here.
    """
    profile = load_profiles().get(cluster)
    if isinstance(profile, LocalProfile):
        inherited = {n: v for n, v in os.environ.items() if not n.lstrip("_").startswith("AIRFLOW_")}
        return inherited | profile.plain_env | _secrets(profile.secret_env)
    return _logged_in() | _secrets({name: name for name in _PROPAGATED} | profile.secret_env)


def _logged_in() -> dict[str, str]:
    """The key that ``wandb login`` has kept here, if it has."""
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        # Not that of the ``default`` entry, which is for other hosts.
        if found := netrc.netrc().hosts.get(_WANDB_HOST):
            return {"WANDB_API_KEY": found[2]}
    return {}


def _secrets(sources: dict[str, str]) -> dict[str, str]:
    return {name: os.environ[source] for name, source in sources.items() if source in os.environ}


def _shell(profile: SlurmProfile) -> Shell:
    if profile.tunnel == "local":
        return Here()
    from hooks.slurm import SshShell

    return SshShell(profile)


def _docker(profile: DockerProfile, jobs_folder: Path) -> Backend:
    from airflow.providers.docker.hooks.docker import DockerHook
    from docker.utils import kwargs_from_env

    from hooks.docker import Docker

    engine = {"base_url": "unix:///var/run/docker.sock", **kwargs_from_env()}
    return Docker(profile, jobs_folder, DockerHook(profile.docker_conn_id, **engine))
