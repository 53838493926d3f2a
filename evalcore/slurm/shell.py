"""How commands reach a cluster: over a connection that somebody else keeps (``Shell``), or right here.

>>> Here().run("hostname", b"", timeout=10.0)
Finished(code=0, stdout=b'login01\n', stderr=b'')
"""

from __future__ import annotations

import shutil
import subprocess
from typing import NamedTuple, Protocol

from evalcore.backends import Unreachable


class Finished(NamedTuple):
    code: int
    stdout: bytes
    stderr: bytes


class Shell(Protocol):
    """Runs commands on a cluster's login node and moves files there and back."""

    def run(self, command: str, stdin: bytes, *, timeout: float) -> Finished:
        """Run a command of sh; Unreachable where its end was not seen."""

    def get(self, remote: str, local: str) -> None:
        """Copy a file from there; Unreachable if the connection breaks, OSError if the file cannot be read."""


class Here:
    """This host is the login node."""

    def run(self, command: str, stdin: bytes, *, timeout: float) -> Finished:
        try:
            done = subprocess.run(["sh", "-c", command], input=stdin, capture_output=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Unreachable(f"no answer within {timeout:.0f} s") from None
        return Finished(done.returncode, done.stdout, done.stderr)

    def get(self, remote: str, local: str) -> None:
        shutil.copyfile(remote, local)
