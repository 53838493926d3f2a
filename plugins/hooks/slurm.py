"""The way to a Slurm cluster: its login node over SSH, on one connection that is kept.

>>> SshShell(load_profiles().get("cluster")).run("hostname", b"", timeout=10.0)
Finished(code=0, stdout=b'login01\n', stderr=b'')
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from airflow.providers.ssh.hooks.ssh import SSHHook
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
from paramiko import SSHClient, SSHException

from evalcore.backends import Unreachable
from evalcore.errors import JobError
from evalcore.profiles import SlurmProfile
from evalcore.slurm.shell import Finished

_CONNECT_SECONDS = 20
_KEEPALIVE_SECONDS = 15
_STALLED_SECONDS = 60.0  # without a byte of a file that is wanted
_REFUSALS = ("Authentication failed", "Host key", "not found in known_hosts")


class SshShell:
    """Runs commands on a profile's login node, one at a time; a connection that broke is made again.

    The Connection ``ssh_conn_id`` holds the secret; what the profile says beside it goes before.
    """

    def __init__(self, profile: SlurmProfile) -> None:
        self.profile = profile
        self._client: SSHClient | None = None
        self._lock = threading.Lock()

    def run(self, command: str, stdin: bytes, *, timeout: float) -> Finished:
        """Run a command of sh.

        Raises:
            Unreachable: the connection cannot be made, or broke before the command's end was seen.
            JobError: the host refuses us, or is not the one that is known.
        """
        with self._lock, self._unreachable_if_it_breaks():
            client = self._connected()
            with _closed_after(timeout + _CONNECT_SECONDS, client):
                return _run(client, command, stdin, timeout)

    def get(self, remote: str, local: str) -> None:
        """Copy a file from there, checked by its size."""
        with self._lock, self._unreachable_if_it_breaks():
            client = self._connected()
            with _closed_after(_CONNECT_SECONDS, client):
                sftp = client.open_sftp()
            with sftp:
                sftp.get_channel().settimeout(_STALLED_SECONDS)
                sftp.get(remote, local)

    def close(self) -> None:
        """End the connection; the next command makes another."""
        client, self._client = self._client, None
        if client:
            client.close()

    def __del__(self) -> None:
        # paramiko's thread would keep the connection for as long as this process lives.
        self.close()

    def _connected(self) -> SSHClient:
        transport = self._client.get_transport() if self._client else None
        if self._client is None or transport is None or not transport.is_active():
            self.close()
            given: dict[str, Any] = {
                "remote_host": self.profile.host,
                "username": self.profile.user,
                "port": self.profile.port,
                "key_file": self.profile.identity,
            }
            try:
                hook = SSHHook(
                    ssh_conn_id=self.profile.ssh_conn_id,
                    conn_timeout=_CONNECT_SECONDS,
                    banner_timeout=_CONNECT_SECONDS,
                    auth_timeout=_CONNECT_SECONDS,
                    keepalive_interval=_KEEPALIVE_SECONDS,
                    conn_retry_attempts=1,
                    **{name: value for name, value in given.items() if value is not None},
                )
                self._client = hook.get_conn()
            # A Connection or a key that is not there, or wrong.
            except (AirflowNotFoundException, FileNotFoundError, PermissionError, ValueError) as error:
                raise JobError(f"cluster {self.profile.name}: cannot log in: {error}") from error
        return self._client

    @contextlib.contextmanager
    def _unreachable_if_it_breaks(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, PermissionError):
            raise  # a file's, over a connection that holds
        except (OSError, EOFError, SSHException, AirflowException) as error:
            self.close()
            where = self.profile.host or self.profile.ssh_conn_id
            said = str(error).strip() or type(error).__name__
            # paramiko says that authentication failed, too, of a host that hung up meanwhile.
            if "transport shut down" not in said and any(refusal in said for refusal in _REFUSALS):
                raise JobError(f"cluster {self.profile.name}: {where} refuses the login: {said}") from error
            raise Unreachable(f"{where}: {said}") from error


@contextlib.contextmanager
def _closed_after(seconds: float, client: SSHClient) -> Iterator[None]:
    """Close a connection that has stuck by then: where a host is to answer, paramiko may wait without end."""
    timer = threading.Timer(seconds, client.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _run(client: SSHClient, command: str, stdin: bytes, timeout: float) -> Finished:
    transport = client.get_transport()
    assert transport is not None, "it was active just now"
    deadline = time.monotonic() + timeout
    with transport.open_session(timeout=_CONNECT_SECONDS) as channel:
        channel.settimeout(1.0)
        channel.exec_command(command)
        output: list[list[bytes]] = [[], []]
        rest = memoryview(stdin)
        while True:
            # Asked before what has come is read: what comes in between would be left.
            is_active = transport.is_active()
            is_over, busy = channel.exit_status_ready() and channel.eof_received, False
            if rest and channel.send_ready():
                try:
                    rest = rest[channel.send(bytes(rest[: 1 << 15])) :]
                except OSError:
                    if not channel.closed:
                        raise
                    rest = rest[:0]  # it has ended without all of its input
                busy = True
                if not rest:
                    channel.shutdown_write()
            elif not stdin:
                stdin = b" "
                channel.shutdown_write()
            if channel.recv_ready():
                output[0].append(channel.recv(1 << 16))
                busy = True
            if channel.recv_stderr_ready():
                output[1].append(channel.recv_stderr(1 << 16))
                busy = True
            if is_over and not busy:
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"no answer within {timeout:.0f} s")
            if not is_active and not busy:
                raise EOFError("the connection was closed")
            if not busy:
                time.sleep(0.01)
        code = channel.recv_exit_status()
    if code < 0:
        raise EOFError("the command ended without an exit code")
    return Finished(code, b"".join(output[0]), b"".join(output[1]))
