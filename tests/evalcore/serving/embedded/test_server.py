from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evalcore.errors import CheckpointError, ConfigError, ServerError
from evalcore.serving.embedded import running, serve
from random_llama import write_llama

# They start processes, and wait for them.
pytestmark = pytest.mark.slow

_SERVE = "import sys; from pathlib import Path; from evalcore.serving.embedded import serve; "


@contextmanager
def process(checkpoint: Path, options: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server as its own process, and its base URL."""
    code = f"{_SERVE}serve(Path(sys.argv[1]), port=0{options})"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(checkpoint)], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            match = re.fullmatch(r"serving random-llama on (http://\S+/v1) \(context 128 tokens\)\n", line)
            assert match, line
            yield server, match[1]
        finally:
            server.kill()


def complete(url: str) -> dict[str, object]:
    body = json.dumps({"model": "random-llama", "prompt": "abc", "max_tokens": 2}).encode()
    with urllib.request.urlopen(f"{url}/completions", body, timeout=30) as response:
        return dict(json.load(response))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(number: signal.Signals, checkpoint: Path) -> None:
    with process(checkpoint) as (server, url):
        assert complete(url)["object"] == "text_completion"
        server.send_signal(number)
        assert server.wait(60) == 0


def test_die_is_a_kill(checkpoint: Path) -> None:
    with process(checkpoint, ", faults='die:after=1'") as (server, url):
        complete(url)
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            complete(url)
        assert server.wait(60) == -signal.SIGKILL


def test_arithmetic_uses_one_core(checkpoint: Path) -> None:
    code = "import sys; from evalcore.serving.embedded import running; from pathlib import Path; import os\n"
    code += "assert 'numpy' not in sys.modules\n"
    code += "with running(Path(sys.argv[1])): print(os.environ['OPENBLAS_NUM_THREADS'])"
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "7"}
    result = subprocess.run(
        [sys.executable, "-c", code, str(checkpoint)], capture_output=True, text=True, env=environment
    )
    assert (result.stdout, result.stderr) == ("1\n", "")


def test_a_port_in_use(checkpoint: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*in use"):
            serve(checkpoint, port=port)


@pytest.mark.parametrize("host", ["no such host", "192.0.2.1"])
def test_a_host_that_is_not_ours(host: str, checkpoint: Path) -> None:
    with pytest.raises(ServerError, match=re.escape(f"cannot listen on {host}:0")):
        serve(checkpoint, host=host, port=0)


@pytest.mark.parametrize(
    "options", [{"max_batch": 0}, {"max_model_len": 129}, {"max_model_len": 1}, {"faults": "explode"}]
)
def test_bad_settings(options: dict[str, object], checkpoint: Path) -> None:
    with pytest.raises(ConfigError), running(checkpoint, **options):  # type: ignore[arg-type]
        pass


def test_max_model_len(checkpoint: Path) -> None:
    with running(checkpoint, max_model_len=8) as url, urllib.request.urlopen(f"{url}/models") as response:
        assert json.load(response)["data"][0]["max_model_len"] == 8


def test_bad_tokenizers(tmp_path: Path) -> None:
    folder = write_llama(tmp_path)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: no usable tokenizer"), running(folder):
        pass
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: no usable tokenizer"), running(folder):
        pass


async def test_it_runs_beside_an_event_loop(checkpoint: Path) -> None:
    with running(checkpoint) as url:
        answer = await asyncio.to_thread(complete, url)
    assert answer["object"] == "text_completion"
