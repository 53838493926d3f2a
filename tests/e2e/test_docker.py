"""Jobs as containers of a real engine: made once, found again, and over when a user would say so."""

from __future__ import annotations

import gc
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from airflow.providers.docker.hooks.docker import DockerHook
from docker.api.client import APIClient

from demo.engine import Engine
from evalcore.backends import Look, Unreachable
from evalcore.errors import JobError
from evalcore.jobs import State, job_name
from evalcore.profiles import DockerProfile
from evalcore.slurm.shipping import archive
from hooks.docker import Docker
from waiting import until

pytestmark = pytest.mark.e2e

_hooks: list[DockerHook] = []


def backend(engine: Engine, root: Path, **settings: object) -> Docker:
    values = {"name": "docker", "executor": "docker", "container_image": "evalcore:test", "network": "none"}
    profile = DockerProfile.model_validate({**values, "memory": "64m", **settings})
    _hooks.append(DockerHook(None, base_url=engine.url))
    return Docker(profile, root, _hooks[-1])


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALCORE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("EVALCORE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "results" / ".jobs"


@pytest.fixture
def docker(engine: Engine, image: str, root: Path) -> Iterator[Docker]:
    yield backend(engine, root)
    for container in engine.run("ps", "-aq").split():
        engine.run("rm", "-f", container)
    while _hooks:
        if (hook := _hooks.pop()).client_created:
            hook.get_conn().close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return job_name(request.node.name, time.time_ns())


def ended(docker: Docker, job: str) -> Look:
    def over() -> Look | None:
        found = docker.look({job: 0})[job]
        return found if found.status.state.is_over else None

    found = until(over, f"the end of {job}")
    assert found is not None
    return found


def prints(docker: Docker, job: str, line: str) -> None:
    until(lambda: line in docker.look({job: 0})[job].log, f"{line!r} in the log")


def containers(engine: Engine, name: str) -> list[str]:
    return engine.run("ps", "-aq", "--filter", f"label=evalcore.job={name}").split()


@pytest.mark.parametrize(
    ("script", "state", "said"),
    [
        ("echo done", State.SUCCEEDED, "succeeded"),
        ("exit 3", State.FAILED, "failed with exit code 3"),
        ("kill -9 $$", State.KILLED, "killed by SIGKILL"),
        ("python3 -c 'bytearray(500 << 20)'; exit $?", State.FAILED, "failed (exit code 137, out of memory)"),
        ("exec python3 -c 'bytearray(500 << 20)'", State.FAILED, "failed (out of memory)"),
    ],
)
def test_how_a_command_ends(docker: Docker, name: str, script: str, state: State, said: str) -> None:
    found = ended(docker, docker.ensure(name, ["sh", "-c", script], {}))
    assert (found.status.state, str(found.status)) == (state, said)


def test_a_job_gets_its_secrets_and_leaves_none(docker: Docker, engine: Engine, name: str) -> None:
    secret = "hunter2-and-more"
    job = docker.ensure(name, ["sh", "-c", 'echo "key of ${#KEY} letters"; sleep 60'], {"KEY": secret})
    prints(docker, job, "key of 16 letters")
    assert secret not in engine.run("inspect", *containers(engine, name))
    assert stat.S_IMODE(Path(job).stat().st_mode) == 0o700
    assert not [f for f in Path(job).iterdir() if secret in f.read_text()]


def test_two_at_once_get_one_container(docker: Docker, engine: Engine, root: Path, name: str) -> None:
    got: list[str] = []
    both = [
        threading.Thread(
            target=lambda: got.append(
                backend(engine, root).ensure(name, ["sh", "-c", "echo x; sleep 60"], {})
            )
        )
        for _ in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert got == [docker.folder(name) + "/1"] * 2
    prints(docker, got[0], "x")
    assert len(containers(engine, name)) == 1


def test_cancelled_within_the_grace(docker: Docker, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalcore.jobs.GRACE", 300.0)
    job = docker.ensure(name, ["sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; sleep 600 & wait"], {})
    prints(docker, job, "up")
    started = time.monotonic()
    docker.cancel([job])
    assert time.monotonic() - started < 200
    assert "bye" in docker.look({job: 0})[job].log


def test_cancelled_by_several_at_once(docker: Docker, engine: Engine, root: Path, name: str) -> None:
    job = docker.ensure(name, ["sleep", "60"], {})
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(backend(engine, root).cancel, [job]) for _ in range(8)]
    assert [it.exception() for it in asked] == [None] * 8
    assert not containers(engine, name)


def test_a_job_is_stopped_by_another_path_to_it(
    engine: Engine, docker: Docker, root: Path, name: str
) -> None:
    """Whoever marks a task knows its job's folder by its real path (operators.job.find_job)."""
    link = root.parents[1] / "run:7"  # a colon, which separates the parts of a mount
    root.mkdir(parents=True)
    link.symlink_to(root.parent)
    job = backend(engine, link / root.name).ensure(name, ["sleep", "60"], {})
    assert Path(job).is_relative_to(link)
    docker.cancel([docker.newest(name) or ""])
    assert not containers(engine, name)


def test_killed_too_often_is_a_failure(docker: Docker, engine: Engine, name: str) -> None:
    argv = ["sleep", "60"]
    for attempt in ("1", "2", "3"):
        job = docker.ensure(name, argv, {})
        assert Path(job).name == attempt
        engine.run("kill", *containers(engine, name))
        assert ended(docker, job).status.state is State.KILLED
    with pytest.raises(JobError, match="3 times in a row"):
        docker.ensure(name, argv, {})
    assert not containers(engine, name)


def test_a_container_that_is_gone_is_lost_and_made_again(docker: Docker, engine: Engine, name: str) -> None:
    job = docker.ensure(name, ["sleep", "60"], {})
    engine.run("rm", "-f", *containers(engine, name))
    assert ended(docker, job).status.state is State.LOST
    assert docker.ensure(name, ["sleep", "60"], {}) == docker.folder(name) + "/2"


def test_after_it_is_consumed_no_container_is_left(docker: Docker, engine: Engine, name: str) -> None:
    job = docker.ensure(name, ["true"], {})
    ended(docker, job)
    docker.consume(job)
    assert not containers(engine, name)
    assert ended(docker, job).status.state is State.SUCCEEDED
    assert docker.ensure(name, ["true"], {}) == docker.folder(name) + "/2"


def test_what_a_container_may(docker: Docker, name: str, root: Path) -> None:
    script = f"grep -E '^(CapEff|NoNewPrivs):' /proc/self/status; ls {root}; touch {root.parent}/made"
    found = ended(docker, docker.ensure(name, ["sh", "-c", script], {}))
    assert found.log == ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", name]
    assert (root.parent / "made").exists()


def test_an_evalcore_command_runs_this_version_on_what_is_kept_here(
    docker: Docker, name: str, root: Path, tmp_path: Path
) -> None:
    job = docker.ensure(name, ["evalcore", "prepare", "tiny-arithmetic"], {})
    assert docker.ensure(name, ["evalcore", "prepare", "tiny-arithmetic"], {}) == job
    found = ended(docker, job)
    assert found.status.state is State.SUCCEEDED, "".join(docker.log(job))
    assert list((tmp_path / "data").glob("tiny-arithmetic/*.jsonl"))
    # What the image has installed is not what runs.
    code = root / ".evalcore" / archive().digest[:16] / "evalcore" / "cli.py"
    code.write_text("print('sent along'); raise SystemExit(4)")
    found = ended(docker, docker.ensure(f"{name}-again", ["evalcore", "prepare", "tiny-arithmetic"], {}))
    assert (found.log, str(found.status)) == (["sent along"], "failed with exit code 4")


def test_what_was_cut_off_while_it_was_made_is_finished_in_the_same_attempt(
    docker: Docker, engine: Engine, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["sh", "-c", 'echo "key of ${#KEY} letters"; sleep 60']
    first = docker.folder(name) + "/1"
    Path(first).mkdir(parents=True)  # all that one left who came this far
    for step in ("_create", "_start"):  # then before there is a container, then before it runs
        with monkeypatch.context() as patch:
            patch.setattr(docker, step, cut_off)
            with pytest.raises(KeyboardInterrupt):
                docker.ensure(name, argv, {"KEY": "hunter2"})
        assert not (Path(first) / "secrets.json").exists()
    assert docker.look({first: 0})[first].status.state is State.RUNNING
    assert docker.ensure(name, argv, {"KEY": "hunter2"}) == first
    prints(docker, first, "key of 7 letters")
    assert len(containers(engine, name)) == 1


def cut_off(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_is_cancelled_before_it_runs_never_does(
    docker: Docker, engine: Engine, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = docker._create

    def cancelled_meanwhile(client: APIClient, folder: Path) -> None:
        create(client, folder)
        (folder / "cancelled").touch()

    monkeypatch.setattr(docker, "_create", cancelled_meanwhile)
    job = docker.ensure(name, ["sh", "-c", "echo up; sleep 60"], {})
    assert ended(docker, job).status.state is State.CANCELLED
    assert ended(docker, job).log == []
    assert not containers(engine, name)


def test_another_command_replaces_a_job_of_the_same_name(docker: Docker, engine: Engine, name: str) -> None:
    first = docker.ensure(name, ["sh", "-c", "echo up; sleep 60"], {})
    prints(docker, first, "up")
    second = docker.ensure(name, ["sh", "-c", "echo up; sleep 61"], {})
    assert second == docker.folder(name) + "/2"
    assert ended(docker, first).status.state is State.CANCELLED
    assert len(containers(engine, name)) == 1


def test_what_the_profile_says_is_what_the_container_has(
    engine: Engine, docker: Docker, root: Path, name: str, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("there\n")
    settings = {"shm_size": "8m", "cpus": 0.5, "user": "1234:1235", "env": {"PLAIN": "seen"}}
    mounts = [f"{tmp_path}/data:/mounted:ro"]
    size = "df -k /dev/shm | tail -1 | awk '{print $2}'"
    script = f"{size}; id -u; id -g; echo $PLAIN; cat /mounted/file; touch /mounted/x"
    made = backend(engine, root, mounts=mounts, **settings)
    found = ended(made, job := made.ensure(name, ["sh", "-c", script], {"KEY": "k"}))
    assert found.log[:5] == ["8192", "1234", "1235", "seen", "there"]
    assert "Read-only file system" in found.log[5]
    assert found.status.exit_code == 1
    assert found.id
    asked = engine.run("inspect", "--format", "{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}}", found.id)
    assert asked.split() == ["500000000", str(64 << 20)]
    assert Path(job).stat().st_uid == 1234


class Registry(BaseHTTPRequestHandler):
    """Knows no image; or does not know today."""

    code = 404

    def do_GET(self) -> None:
        body = b"" if self.path == "/v2/" else b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "no"}]}'
        self.send_response(200 if self.path == "/v2/" else self.code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("code", "error"), [(404, JobError), (503, Unreachable)])
def test_an_image_that_cannot_be_had(
    docker: Docker, engine: Engine, root: Path, name: str, code: int, error: type[Exception]
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), type("_", (Registry,), {"code": code})) as registry:
        threading.Thread(target=registry.serve_forever, daemon=True).start()
        image = f"127.0.0.1:{registry.server_port}/evalcore:1"
        with pytest.raises(error, match=f"pulling {image}: .+"):
            backend(engine, root, container_image=image).ensure(name, ["true"], {})
        registry.shutdown()
    # Asked again with an image that is there, it runs.
    assert ended(docker, docker.ensure(name, ["true"], {})).status.state is State.SUCCEEDED


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"memory": "1k"}, "memory limit"),
        ({"network": "no-such"}, "network no-such not found"),
        ({"gpus": 1}, "gpu"),
        ({"mounts": ["/proc/nowhere:/nowhere"]}, "/proc/nowhere"),
    ],
)
def test_what_the_engine_refuses_is_said_and_not_tried_again(
    docker: Docker, engine: Engine, root: Path, name: str, settings: dict[str, object], said: str
) -> None:
    for _ in range(4):  # and never counts as an attempt that was lost
        with pytest.raises(JobError, match=f"(?i){said}"):
            backend(engine, root, **settings).ensure(name, ["true"], {"KEY": "secret"})
    assert not containers(engine, name)
    assert not list(root.rglob("secrets.json"))


# The docker package leaves a socket that finds nobody to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_engine_that_was_away_is_asked_again(
    docker: Docker, engine: Engine, root: Path, name: str
) -> None:
    job = docker.ensure(name, ["sleep", "60"], {})
    engine.stop()
    try:
        with pytest.raises(Unreachable):
            docker.look({job: 0})
        with pytest.raises(Unreachable):
            backend(engine, root).ensure(name, ["sleep", "60"], {})
    finally:
        engine.start()
    # Its end took the container along; what comes after it finds that, and goes on in another.
    anew = backend(engine, root)
    assert ended(anew, job).status.state is State.KILLED
    assert anew.ensure(name, ["sleep", "60"], {}) == docker.folder(name) + "/2"
    gc.collect()
