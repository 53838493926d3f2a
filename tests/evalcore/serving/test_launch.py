from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from evalcore import supervise
from evalcore.client import Request, ask, get_json
from evalcore.config import Client, Sampling, Server
from evalcore.errors import ServerError
from evalcore.serving import launch
from evalcore.serving.embedded import running
from evalcore.serving.launch import server_command, serving
from seen_processes import is_alive
from waiting import started, until

# They start processes, and wait for them.
pytestmark = pytest.mark.slow

CHECKPOINT = sorted((Path(__file__).parents[3] / "include/tiny/checkpoints").iterdir())[1]

COMMANDS = {
    "embedded": "python -m evalcore.cli serve /ckpt --host 127.0.0.1 --port 4000 --model-name run-1",
    "vllm": (
        "python -m vllm.entrypoints.openai.api_server --model /ckpt --served-model-name run-1 "
        "--host 127.0.0.1 --port 4000 --tensor-parallel-size 4"
    ),
    "sglang": (
        "python -m sglang.launch_server --model-path /ckpt --served-model-name run-1 "
        "--host 127.0.0.1 --port 4000 --tp-size 4"
    ),
    "trtllm": "trtllm-serve /ckpt --host 127.0.0.1 --port 4000 --tp_size 4",
}


def children() -> set[psutil.Process]:
    """What this process has started and what those have, other tests' leftovers among them."""
    return set(psutil.Process().children(recursive=True))


@pytest.mark.parametrize("kind", COMMANDS)
def test_command_line(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "python")
    server = Server(type=kind, gpus=4, args=("--seed", "a b"))
    command = server_command(server, Path("/ckpt"), name="run-1", port=4000)

    assert shlex.join(command) == COMMANDS[kind] + " --seed 'a b'"


@pytest.mark.parametrize("kind", ["vllm", "sglang", "trtllm"])
def test_one_gpu_needs_no_option(kind: str) -> None:
    command = server_command(Server(type=kind), Path("/ckpt"), name="run-1", port=4000)

    assert not {"--tensor-parallel-size", "--tp-size", "--tp_size"} & set(command)


@pytest.mark.slow
def test_started_answers_and_is_stopped(tmp_path: Path) -> None:
    before = children()
    log_file = tmp_path / "results" / "server.log"
    with serving(Server(), CHECKPOINT, name="run-1", log_file=log_file) as endpoint:
        assert (endpoint.model, endpoint.type) == ("run-1", "embedded")
        assert get_json(f"{endpoint.address}/models")["data"][0]["id"] == "run-1"
        processes = children() - before
        assert any("evalcore.cli" in process.cmdline() for process in processes)

    assert not any(process.is_running() for process in processes)
    assert "127.0.0.1" in log_file.read_text()
    with pytest.raises(OSError, match="Cannot connect"):
        get_json(f"{endpoint.address}/models")


def test_exit_before_it_answers_shows_the_log(tmp_path: Path) -> None:
    server = Server(args=("--no-such-option",))
    with (
        pytest.raises(
            ServerError,
            match=r"embedded server died \(exit code 2\): it ended before it answered; .*ends with: .*no-such-option",
        ) as e,
        serving(server, CHECKPOINT, name="x", log_file=tmp_path / "server.log"),
    ):
        pass

    assert "\n" not in str(e.value)
    assert str(tmp_path / "server.log") in str(e.value)


@pytest.mark.slow
def test_death_half_way_shows_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_DYING", 60)  # its supervisor ends after it, and tells its exit code
    server = Server(args=("--faults", "die:after=3"))
    once = Request("a", "1", Sampling(endpoint="completions", temperature=0, tokens_to_generate=1))
    with (
        pytest.raises(ServerError, match=r"embedded server died \(exit code 137\): http.* ends with: "),
        serving(server, CHECKPOINT, name="x", log_file=tmp_path / "log") as endpoint,
    ):
        ask(
            [once] * 10,
            print,
            address=endpoint.address,
            model="x",
            client=Client(concurrency=1, max_retries=1),
        )


@pytest.mark.parametrize(
    ("patience", "said"),
    [(0.01, "^hung up$"), (60, r"died \(exit code 3\): hung up; .* ends with: no memory$")],
)
def test_a_server_that_has_hung_up_has_the_time_to_die(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float, said: str
) -> None:
    # Its port is closed before it is gone.
    program = "import sys, time; print('no memory', flush=True); time.sleep(1); sys.exit(3)"
    monkeypatch.setitem(launch._COMMANDS, "vllm", lambda *_: [sys.executable, "-c", program])
    endpoint = launch.Endpoint("http://127.0.0.1:9/v1", "x", "vllm", None)
    for name, answer in (("_wait_until_up", None), ("_probe", endpoint)):
        monkeypatch.setattr(launch, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(launch, "_DYING", patience)
    with (
        pytest.raises(ServerError, match=said),
        serving(Server(type="vllm"), CHECKPOINT, name="x", log_file=tmp_path / "log"),
    ):
        raise ServerError("hung up")


@pytest.mark.slow
def test_silence_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = children()
    sleep = [sys.executable, "-c", "import time; print('loading'); time.sleep(600)"]
    monkeypatch.setitem(launch._COMMANDS, "vllm", lambda *_: [*sleep])
    with (
        pytest.raises(ServerError, match=r"vllm server does not answer after 0.5 s \(server.start_timeout\)"),
        serving(Server(type="vllm", start_timeout=0.5), CHECKPOINT, name="x", log_file=tmp_path / "log"),
    ):
        pass

    assert not children() - before


def test_program_that_is_not_installed(tmp_path: Path) -> None:
    server = Server(type="vllm")
    with (
        pytest.raises(ServerError, match=r"vllm server died \(exit code 1\): .*No module named"),
        serving(server, CHECKPOINT, name="x", log_file=tmp_path / "log"),
    ):
        pass


def test_what_the_log_says_cannot_steer_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = r"print('\x1b[1;31mno GPU\x1b[0m\x1b[2J\r\n \x1b[?25h \n bye\x07'); exit(3)"
    monkeypatch.setitem(launch._COMMANDS, "vllm", lambda *_: [sys.executable, "-c", program])
    with (
        pytest.raises(ServerError, match=r"\(exit code 3\): .* ends with: no GPU \| bye$"),
        serving(Server(type="vllm"), CHECKPOINT, name="x", log_file=tmp_path / "log"),
    ):
        pass


@pytest.mark.slow
def test_hanging_workers_are_seen_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # /health and /v1/models are fine; no completion ever comes.
    monkeypatch.setattr(launch, "_PROBE", launch._PROBE.model_copy(update={"request_timeout": 0.3}))
    with (
        running(CHECKPOINT, faults="hang") as address,
        pytest.raises(ServerError, match=r"no answer within 0.3 s"),
        serving(Server(type="openai", address=address), None, name="x", log_file=tmp_path / "log"),
    ):
        pass


def test_address_is_probed_and_its_first_model_taken(tmp_path: Path) -> None:
    log_file = tmp_path / "log"
    with (
        running(CHECKPOINT) as address,
        serving(Server(type="openai", address=address + "/"), None, name="x", log_file=log_file) as endpoint,
    ):
        assert endpoint[:3] == (address, CHECKPOINT.name, "openai")

    assert not log_file.exists()


def test_address_of_nobody(tmp_path: Path) -> None:
    server = Server(type="openai", address="http://127.0.0.1:9/v1")
    with (
        pytest.raises(ServerError, match=r"http://127.0.0.1:9/v1: does not list its models"),
        serving(server, None, name="x", log_file=tmp_path / "log"),
    ):
        pass


def test_no_checkpoint_to_serve(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match=r"server.type=embedded: give a checkpoint"),
        serving(Server(), None, name="x", log_file=tmp_path / "log"),
    ):
        pass


def test_reserved_ports_differ_and_can_be_served_on() -> None:
    with launch._reserved_port() as first, launch._reserved_port() as second:
        assert first != second
        with started(
            [sys.executable, "-m", "http.server", str(first), "--bind", "127.0.0.1"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as serve:
            until(lambda: psutil.Process(serve.pid).net_connections(), "a listener")


STARTER = """
import sys, time
from pathlib import Path
from evalcore.config import Server
from evalcore.serving.launch import serving
with serving(Server(), Path(sys.argv[1]), name="x", log_file=Path(sys.argv[2])) as endpoint:
    print(endpoint.address, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_server_dies_with_its_starter(how: signal.Signals, tmp_path: Path) -> None:
    with started(
        [sys.executable, "-c", STARTER, str(CHECKPOINT), str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as starter:
        assert starter.stdout
        assert starter.stdout.readline().startswith(b"http://127.0.0.1:")
        server = psutil.Process(starter.pid).children(recursive=True)
        assert len(server) == 2  # the supervisor, and the server in a group of its own
        assert os.getpgid(server[1].pid) == server[1].pid != os.getpgid(server[0].pid)

        starter.send_signal(how)
        starter.wait(120)

        until(lambda: not any(process.is_running() for process in server), "the end of the server")


@pytest.mark.slow
def test_supervisor_kills_a_group_that_ignores_sigterm() -> None:
    stubborn = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); "
        "os.write(1, b'up\\n'); time.sleep(600)"
    )
    script = Path(supervise.__file__).read_text().replace("GRACE = 10.0", "GRACE = 0.3")
    with supervisor("-c", script, sys.executable, "-c", stubborn) as process:
        assert process.stdin
        assert process.stdout
        assert [process.stdout.readline() for _ in range(2)] == [b"up\n"] * 2
        group = psutil.Process(process.pid).children(recursive=True)
        assert len(group) == 2

        process.stdin.close()

        assert process.wait(120) == 128 + signal.SIGKILL
        until(lambda: not any(member.is_running() for member in group), "the end of the group")


def test_supervisor_that_is_terminated_takes_its_server_along() -> None:
    program = "import time; print('up', flush=True); time.sleep(600)"
    with supervisor(supervise.__file__, sys.executable, "-c", program) as process:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        [server] = psutil.Process(process.pid).children()

        process.terminate()

        assert process.wait(120) == 128 + signal.SIGTERM
        assert not server.is_running()


TERMINATED_AT_ONCE = """
import os, signal, subprocess
from evalcore import supervise

class Popen(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        os.kill(os.getpid(), signal.SIGTERM)

subprocess.Popen = Popen
supervise.main()
"""


def test_supervisor_that_is_terminated_as_soon_as_there_is_a_server_takes_it_along() -> None:
    with supervisor("-c", TERMINATED_AT_ONCE, "sleep", "600") as process:
        assert process.wait(120) == 128 + signal.SIGTERM


def test_supervisor_ends_as_its_command_and_kills_what_it_leaves() -> None:
    leaver = (
        "import os, sys, time; pid = os.fork(); (pid or time.sleep(600)); print(pid, flush=True); os._exit(3)"
    )
    with supervisor(supervise.__file__, sys.executable, "-c", leaver) as process:
        assert process.stdout
        left = int(process.stdout.readline())

        assert process.wait(120) == 3
        until(lambda: not is_alive(left), "its end")


def supervisor(*arguments: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return started([sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
