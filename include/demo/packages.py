"""The system packages of local Slurm cluster, Docker engine and PostgreSQL: what is missing, and its installation."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

# Debian and Ubuntu: each program the cluster starts, and the package it comes in.
SLURM = {
    "munged": "munge",
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "slurmdbd": "slurmdbd",
    "sbatch": "slurm-wlm",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "mariadbd": "mariadb-server-core",
    "mariadb-install-db": "mariadb-server-core",
    "my_print_defaults": "mariadb-client-core",
}
# Without a program of its own: slurmdbd loads it.
MYSQL_PLUGIN = "slurm-wlm-mysql-plugin"
# What the tests on it build a Slurm plugin with; headers have no program of their own.
COMPILER = {"gcc": "gcc"}
HEADERS = {"stdio.h": "libc6-dev", "slurm/spank.h": "libslurm-dev"}
# A Docker engine, and what makes the base of an image where no hub can be reached.
DOCKER = {"dockerd": "docker.io", "docker": "docker.io", "debootstrap": "debootstrap"}
# A plugin of docker's. Debian 12 has only the program of that name, which knows half of our file.
COMPOSE = "docker-compose"
COMPOSE_UBUNTU = "docker-compose-v2"
COMPOSE_DEBIAN = "trixie"
PLUGINS = Path("/usr/local/lib/docker/cli-plugins")
# Its programs are in a folder of its version, and not in PATH.
POSTGRES = "postgresql"
POSTGRES_PROGRAMS = "/usr/lib/postgresql"
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def missing() -> list[str]:
    """The packages of the cluster to install, sorted; empty if every program is there."""
    found = _without(SLURM)
    if not list(Path("/usr/lib").glob("*/slurm*/accounting_storage_mysql.so")):
        found.add(MYSQL_PLUGIN)
    return sorted(found)


def missing_for_tests() -> list[str]:
    """The packages to install beside those of ``missing``, for the tests on the cluster."""
    headers = {package for header, package in HEADERS.items() if not Path("/usr/include", header).is_file()}
    return sorted(headers | _without(COMPILER))


def missing_for_docker() -> list[str]:
    """The packages to install for the tests on a Docker engine."""
    return sorted(_without(DOCKER))


def missing_for_compose() -> list[str]:
    """The packages to install beside those of ``missing_for_docker``, for the tests on Docker Compose."""
    asked = shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True)
    if asked and asked.returncode == 0:
        return []
    return [COMPOSE_UBUNTU if _system("ID") == "ubuntu" else COMPOSE]


def missing_for_postgres() -> list[str]:
    """The packages to install for the tests on PostgreSQL."""
    return [] if postgres_programs() else [POSTGRES]


def postgres_programs() -> Path | None:
    """The folder of ``initdb`` and ``postgres``, of the newest version; None if there is none."""
    found = [file.parent for file in Path(POSTGRES_PROGRAMS).glob("*/bin/postgres")]
    return max(found, key=lambda folder: float(folder.parent.name), default=None)


def _system(key: str) -> str:
    with contextlib.suppress(OSError):  # no Linux
        return platform.freedesktop_os_release().get(key, "")
    return ""


def _without(programs: Mapping[str, str]) -> set[str]:
    path = f"{os.environ.get('PATH', os.defpath)}:{SBIN}"
    return {package for program, package in programs.items() if not shutil.which(program, path=path)}


def how_to_install(packages: list[str]) -> str:
    """One line for whoever has to do it."""
    return f"needed, but not installed: {', '.join(packages)}; sudo apt-get install {' '.join(packages)}"


def install(packages: list[str]) -> None:
    """Install with apt; no daemon is started by it. CalledProcessError with apt's words if it cannot."""
    # Debian's way to say that an installation must start nothing; the cluster starts its own daemons.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    elsewhere = {COMPOSE} if (_system("ID"), _system("VERSION_ID")) == ("debian", "12") else set()
    here = [package for package in packages if package not in elsewhere]
    try:
        for command in (["update"], ["install", "-y", "--no-install-recommends", *here]):
            subprocess.run(
                ["apt-get", "-qq", *command],
                env=env,
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        if elsewhere.intersection(packages):
            _install_compose()
    finally:
        if ours:
            policy.unlink()


def _install_compose() -> None:
    """Compose 2 of the next Debian, of which one file is taken; apt checks where it comes from, as ever."""
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "lists" / "partial").mkdir(parents=True)
        source = f"deb [signed-by={keys}] {_mirror()} {COMPOSE_DEBIAN} main\n"
        (folder / "sources.list").write_text(source)
        options = {
            "Dir::Etc::SourceList": folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": folder / "lists",
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "APT::Sandbox::User": "root",
        }
        apt = ["apt-get", "-qq", *(f"-o{option}={value}" for option, value in options.items())]
        for command in (["update"], ["download", COMPOSE]):
            subprocess.run([*apt, *command], check=True, cwd=folder, stdin=subprocess.DEVNULL)
        [package] = folder.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", str(package), f"{folder}/x"], check=True)
        PLUGINS.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "x/usr/libexec/docker/cli-plugins/docker-compose", PLUGINS)


def _mirror() -> str:
    """Where this Debian's own packages come from: the next one's are in the same place."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    release = _system("VERSION_CODENAME")
    return next(line.split()[0] for line in listed.splitlines() if line.split()[1] == release)


def main() -> int:
    """``make cluster-packages``: install what is missing if we may, say what is missing otherwise.

    With ``tests`` after it also what the tests need.
    """

    def wanted() -> list[str]:
        docker = missing_for_docker() + missing_for_compose()
        tests = missing_for_tests() + docker + missing_for_postgres()
        return missing() + (tests if "tests" in sys.argv[1:] else [])

    packages = wanted()
    if packages and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"Installing {' '.join(packages)} ...", flush=True)
        try:
            install(packages)
        except subprocess.CalledProcessError as error:
            print(f"error: {' '.join(error.cmd)} failed", file=sys.stderr)
        packages = wanted()
    if packages:
        print(f"error: {how_to_install(packages)}", file=sys.stderr)
    return 1 if packages else 0


if __name__ == "__main__":
    sys.exit(main())
