"""The way to a login node that misbehaves; tests/e2e/test_slurm.py has a real sshd."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import paramiko
import pytest

from evalcore.backends import Unreachable
from evalcore.errors import JobError
from evalcore.profiles import SlurmProfile
from evalcore.slurm.shell import Finished
from hooks import slurm
from hooks.slurm import SshShell
from waiting import until

# They start processes, and wait for them.
pytestmark = pytest.mark.slow

KEY = paramiko.ECDSAKey.generate()


class Login(paramiko.ServerInterface):
    """Lets everybody in who says so, and answers no request but ``greet``: that once it is time for it."""

    greet = threading.Event()

    def __init__(self, transport: paramiko.Transport) -> None:
        self.transport = transport

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_auth_password(self, username: str, password: str) -> int:
        if password == "hang-up":
            self.transport.close()
        return paramiko.AUTH_SUCCESSFUL if password == "right" else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if command == b"greet":
            threading.Thread(target=self._greet, args=(channel,), daemon=True).start()
            return True
        time.sleep(300)
        return False

    def _greet(self, channel: paramiko.Channel) -> None:
        self.greet.wait(300)
        channel.sendall(b"hello")
        channel.sendall_stderr(b"there")
        channel.send_exit_status(0)
        channel.close()

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        time.sleep(300)
        return False


@pytest.fixture
def port() -> Iterator[int]:
    """Where it listens."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(accepted)
            transport.add_server_key(KEY)
            transport.start_server(event=threading.Event(), server=Login(transport))

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def shell(monkeypatch: pytest.MonkeyPatch, port: int, password: str = "right", extra: str = "") -> SshShell:
    key = quote(f"{KEY.get_name()} {KEY.get_base64()}", safe="")
    address = f"ssh://me:{password}@127.0.0.1:{port}/?host_key={key}&look_for_keys=false{extra}"
    monkeypatch.setenv("AIRFLOW_CONN_LOGIN", address)
    return SshShell(
        SlurmProfile(
            name="c", executor="slurm", tunnel="ssh", ssh_conn_id="login", remote_job_dir="/lustre/me"
        )
    )


@pytest.mark.parametrize("way", ["run", "get"])
def test_a_login_node_that_stops_answering_holds_nobody_for_ever(
    monkeypatch: pytest.MonkeyPatch, port: int, tmp_path: Path, way: str
) -> None:
    to_it = shell(monkeypatch, port)
    to_it._connected()  # with all the time that it may take: what is asked then is not answered
    monkeypatch.setattr(slurm, "_CONNECT_SECONDS", 2)
    began = time.monotonic()
    asked = {
        "run": lambda: to_it.run("hostname", b"", timeout=0.5),
        "get": lambda: to_it.get("/etc/hostname", str(tmp_path / "copy")),
    }
    with pytest.raises(Unreachable):
        asked[way]()
    assert time.monotonic() - began < 200


def test_an_answer_that_comes_with_the_end_is_read(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    class Greeted(paramiko.Channel):
        def recv_stderr_ready(self) -> bool:
            is_ready = super().recv_stderr_ready()
            Login.greet.set()
            until(lambda: self.eof_received and self.exit_status_ready(), "the end")
            return is_ready

    Login.greet.clear()
    monkeypatch.setattr(paramiko.transport, "Channel", Greeted)
    assert shell(monkeypatch, port).run("greet", b"", timeout=60) == Finished(0, b"hello", b"there")


def test_a_command_that_ends_without_its_input_has_ended_as_it_says(
    monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    class Closed(paramiko.Channel):
        def send(self, s: bytes) -> int:
            if not self.transport.server_mode:
                Login.greet.set()
                until(lambda: self.closed, "the end")
            return super().send(s)

    Login.greet.clear()
    monkeypatch.setattr(paramiko.transport, "Channel", Closed)
    assert shell(monkeypatch, port).run("greet", b"much", timeout=60) == Finished(0, b"hello", b"there")


def test_who_hangs_up_while_we_log_in_has_not_refused_us(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    with pytest.raises(Unreachable, match="transport shut down"):
        shell(monkeypatch, port, "hang-up").run("hostname", b"", timeout=60)
    with pytest.raises(JobError, match="cluster c: login refuses the login: "):
        shell(monkeypatch, port, "wrong").run("hostname", b"", timeout=60)


def test_a_key_that_is_not_there_is_named_at_once(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    with pytest.raises(JobError, match=r"cluster c: cannot log in: .*no-such-key"):
        shell(monkeypatch, port, extra="&key_file=/no-such-key").run("hostname", b"", timeout=60)


def test_a_connection_that_nobody_has_defined_is_named_at_once() -> None:
    profile = SlurmProfile(
        name="c", executor="slurm", tunnel="ssh", ssh_conn_id="no-such", remote_job_dir="/lustre/me"
    )
    with pytest.raises(JobError, match=r"cluster c: cannot log in: .*no-such"):
        SshShell(profile).run("hostname", b"", timeout=60)


def test_a_connection_ends_with_its_shell(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    to_it = shell(monkeypatch, port)
    transport = to_it._connected().get_transport()
    assert transport is not None
    assert transport.is_active()
    del to_it
    gc.collect()
    until(lambda: not transport.is_active(), "its end", timeout=20)
