"""A real Docker engine in a folder of its own, for the end-to-end tests; it needs root and Debian's docker.io.

>>> with Engine(Path("/var/lib/evalcore-engine")) as engine:
...     engine.url
'unix:///var/lib/evalcore-engine/docker.sock'

Without a bridge and without rules for the firewall: containers have the networks ``none`` and ``host``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Self

import psutil

from demo.daemons import Daemons, kill, recorded, with_descendants

START_TIMEOUT = 300.0
BUILD_TIMEOUT = 1200.0
BASE_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
_TRUSTED = Path("/usr/local/share/ca-certificates")
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


class EngineError(Exception):
    """The engine did not start, or an image could not be made; one line."""


class Engine:
    """dockerd, started on ``with`` and ended after it with all its containers."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.url = f"unix://{self.root}/docker.sock"
        self.daemons = Daemons(self.root / "processes.json", self.root)

    def __enter__(self) -> Self:
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for container in self.run("ps", "-aq").split():
            self.run("rm", "-f", container)
        left = with_descendants(p for p in recorded(self.root / "processes.json").values() if p)
        self.stop()
        kill(left)

    def start(self) -> None:
        """Start dockerd, and wait until it answers. EngineError if it does not."""
        options = {
            "storage-driver": "overlay2",
            "iptables": "false",
            "ip6tables": "false",
            "bridge": "none",
            "data-root": self.root / "data",
            "exec-root": self.root / "exec",
            "pidfile": self.root / "docker.pid",
            "host": self.url,
        }
        argv = ["dockerd", *(f"--{name}={value}" for name, value in options.items())]
        self.daemons.start("dockerd", argv, os.environ)
        deadline = time.monotonic() + START_TIMEOUT
        while self._docker("version").returncode:
            if self.daemons.process("dockerd") is None or time.monotonic() > deadline:
                said = self.daemons.log("dockerd").read_text(errors="replace").strip().splitlines() or [""]
                self.stop()
                raise EngineError(f"dockerd does not start: {said[-1][-300:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop dockerd, and with it all that runs in it, for which it has a grace of its own."""
        if process := self.daemons.process("dockerd"):
            process.terminate()
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(START_TIMEOUT)
        self.daemons.stop("dockerd")

    def run(self, *argv: str) -> str:
        """What a ``docker`` command prints. EngineError with its words if it fails."""
        done = self._docker(*argv)
        if done.returncode:
            raise EngineError(f"docker {argv[0]}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def load_base(self, archive: Path, tag: str) -> None:
        """Import Debian with Python, and the certificates that this machine trusts: for use here alone.

        Made by debootstrap (a minute) if the archive is not there yet.
        """
        if not archive.exists():
            archive.parent.mkdir(parents=True, exist_ok=True)
            made = archive.with_suffix(f".{os.getpid()}.tmp")  # others may make it at the same time
            folder = self.root / "base"
            _call("debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", str(folder))
            for certificate in _TRUSTED.glob("*.crt"):
                shutil.copy(certificate, folder / str(_TRUSTED).lstrip("/"))
            _call("chroot", str(folder), "update-ca-certificates")
            _call("tar", "-C", str(folder), "-cf", str(made), ".")
            shutil.rmtree(folder)
            made.replace(archive)
        self.run("import", "--change", f"ENV PIP_CERT={_BUNDLE} SSL_CERT_FILE={_BUNDLE}", str(archive), tag)

    def build(self, context: Path, tag: str, *, base: str, target: str) -> None:
        """Build a stage of a Dockerfile that takes its base as an argument, with this machine's package index."""
        index = os.environ.get("PIP_INDEX_URL", "")
        arguments = [f"--build-arg=BASE={base}", f"--build-arg=PIP_INDEX_URL={index}"][: 2 if index else 1]
        self.run("build", "--network=host", f"--target={target}", *arguments, "--tag", tag, str(context))

    def _docker(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "-H", self.url, *argv],
            # The one that is part of the engine: the other is a plugin of its own.
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT,
            check=False,
        )


def _call(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"{argv[0]}: {(done.stderr or done.stdout).strip()[-300:]}")
