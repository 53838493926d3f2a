"""A checkpoint that lies elsewhere is here once it is whole, and once, whatever happens on the way."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from evalcore import fetch as module
from evalcore.checkpoints import load_checkpoint
from evalcore.config import EvalConfig, load_config
from evalcore.errors import CheckpointError, ConfigError, ResultsError
from evalcore.fetch import Outlook, fetch, fetched, folder_of, outlook, placed, planned, resolve
from evalcore.model_folder import digest
from evalcore.sources.remote import File, Remote, Unavailable, part_of
from hub import Hub, Model
from tiny_folder import write_checkpoint
from waiting import until

pytestmark = pytest.mark.slow

NAME = "org/olmo"
URL = f"hf://{NAME}@step1000"
FIRST, SECOND = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = write_checkpoint(tmp_path / "source", shards=2)
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture
def model(source: Path) -> Model:
    files = {file.name: file.read_bytes() for file in source.iterdir()}
    others = {
        "pytorch_model.bin": b"again",
        ".gitattributes": b"",
        "original/model.safetensors": b"and again",
    }
    return Model(branches={"main": files, "step1000": files | others})


@pytest.fixture
def hub(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub({}, models={NAME: model}) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + template[template.index("/{") :]
        )
        yield hub
        model.go_on.set()


def asked(hub: Hub) -> list[str]:
    """The files that were fetched, each as often as it was."""
    return sorted(r.rpartition("/")[2] for r in hub.requests if r.startswith("GET ") and "/resolve/" in r)


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_revision_of_the_hub(hub: Hub, source: Path, tmp_path: Path) -> None:
    remote = resolve(URL)
    assert (remote.run, remote.name, remote.step, remote.url) == ("olmo", "step1000", 1000, URL)
    folder = fetch(remote, tmp_path / "results")
    assert folder == tmp_path / "results" / ".checkpoints" / f"olmo-{remote.revision}" / "step1000"
    assert files(folder) == files(source)
    assert digest(folder) == digest(source)
    assert sorted(f.name for f in folder.parent.iterdir()) == [".lock", "step1000"]
    assert asked(hub) == sorted(files(source))
    hub.requests.clear()
    assert fetch(resolve(URL), tmp_path / "results") == folder
    assert asked(hub) == []
    # Without a revision it is main, whose files are the same.
    main = resolve(f"hf://{NAME}")
    assert (main.name, main.step, main.revision) == ("main", None, remote.revision)


@pytest.mark.usefixtures("hub")
def test_other_files_are_another_folder(model: Model, tmp_path: Path) -> None:
    before = fetch(resolve(URL), tmp_path)
    model.branches["step1000"] = {**model.branches["step1000"], "tokenizer.json": b"[]"}
    after = fetch(resolve(URL), tmp_path)
    assert after.name == before.name
    assert after.parent != before.parent
    assert (after / "tokenizer.json").read_bytes() == b"[]"
    assert (before / "tokenizer.json").read_bytes() == b"{}"


def unfinished(remote: Remote, results: Path) -> Path:
    folder = folder_of(remote, results)
    return folder.with_name(f".{folder.name}.tmp")


def test_what_is_whole_is_kept_and_the_rest_fetched_again(hub: Hub, source: Path, tmp_path: Path) -> None:
    remote = resolve(URL)
    shutil.copytree(source, unfinished(remote, tmp_path))
    left = unfinished(remote, tmp_path)
    (left / FIRST).write_bytes((left / FIRST).read_bytes()[:-1])  # cut
    (left / SECOND).write_bytes(bytes((left / SECOND).stat().st_size))  # as long as it should be
    (left / "tokenizer.json").write_bytes(b"[]")
    (left / "config.json").unlink()
    (left / ".cache" / "huggingface").mkdir(parents=True)
    (left / ".cache" / "huggingface" / "x.incomplete").write_bytes(b"half")
    (left / f".{FIRST}.part").write_bytes(b"half")
    elsewhere = shutil.copytree(source, tmp_path / "elsewhere")
    (left / "linked").symlink_to(elsewhere)
    folder = fetch(remote, tmp_path)
    assert files(folder) == files(source)
    assert files(elsewhere) == files(source), "what a link leads to is somebody else's"
    assert asked(hub) == sorted([FIRST, SECOND, "tokenizer.json", "config.json"])


@pytest.mark.usefixtures("hub")
def test_a_file_that_arrives_damaged_is_fetched_again_but_not_for_ever(
    model: Model, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remote = resolve(URL)
    model.damaged = {SECOND: 3}
    with pytest.raises(CheckpointError, match=f"{URL}: {SECOND} arrived damaged, .* bytes, 3 times"):
        fetch(remote, tmp_path)
    assert not folder_of(remote, tmp_path).exists()
    model.damaged = {SECOND: 2}
    assert files(fetch(remote, tmp_path)) == files(source)
    assert "fetching it again" in caplog.text


@pytest.mark.usefixtures("hub")
def test_what_lacks_a_shard_is_not_there(model: Model, tmp_path: Path) -> None:
    del model.branches["step1000"][SECOND]
    remote = resolve(URL)
    with pytest.raises(CheckpointError, match=f"1 of 2 shards missing, first {SECOND}"):
        fetch(remote, tmp_path)
    assert not folder_of(remote, tmp_path).exists()


@pytest.mark.usefixtures("hub")
def test_what_is_not_there(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (f"hf://{NAME}@step2000", "hf://org/nothing@step1"):
        with pytest.raises(CheckpointError, match=r"hf://.*Not Found") as failure:
            resolve(url)
        assert not isinstance(failure.value, Unavailable)
    with pytest.raises(CheckpointError, match="expected hf://organisation/repository@revision"):
        resolve("hf://olmo")
    remote = resolve(URL)
    del model.branches["step1000"]  # between a look and the download
    with pytest.raises(CheckpointError, match="404 Client Error") as failure:
        fetch(remote, tmp_path)
    assert not isinstance(failure.value, Unavailable)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Unavailable):
        resolve(URL)


@pytest.mark.usefixtures("hub")
def test_what_cannot_be_evaluated_is_refused_before_it_is_fetched(model: Model) -> None:
    model.branches["step1000"] = {".metadata": b"", "__0_0.distcp": b""}
    with pytest.raises(
        CheckpointError, match=f"checkpoint {URL}: no Hugging Face model .* distributed .*converter=NAME"
    ):
        resolve(URL)
    model.branches["step1000"] = {"config.json": b"{}", "pytorch_model.bin": b""}
    with pytest.raises(CheckpointError, match=r"it has config\.json, pytorch_model"):
        resolve(URL)


def test_of_two_at_once_one_fetches(
    hub: Hub, model: Model, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    remote = resolve(URL)
    model.held = {FIRST: 10}
    with ThreadPoolExecutor() as threads:
        first = threads.submit(fetch, remote, tmp_path)
        until(lambda: FIRST in asked(hub), "the first one's download")
        second = threads.submit(fetch, remote, tmp_path)
        until(lambda: f"waiting for another process, which fetches {URL}" in caplog.text, "the second one")
        model.go_on.set()
        assert first.result(timeout=60) == second.result(timeout=60)
    assert asked(hub) == sorted(files(source))


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on(hub: Hub, model: Model, source: Path, tmp_path: Path) -> None:
    model.held = {SECOND: 10}
    remote = resolve(URL)
    argv = [sys.executable, "-m", "evalcore.cli", "fetch", URL, "--results", str(tmp_path)]
    environment = {**os.environ, "HF_ENDPOINT": hub.url}
    process = subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL)
    try:
        rest = set(remote.files) - {SECOND}
        left = unfinished(remote, tmp_path)
        until(lambda: all((left / name).exists() for name in rest) and SECOND in asked(hub), "all but one")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (left / SECOND).exists()
    assert not folder_of(remote, tmp_path).exists()
    model.held = {}
    hub.requests.clear()
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"fetched: {folder_of(remote, tmp_path)}\n"
    assert f"{len(rest)} of them here already" in done.stderr
    assert hub.url not in done.stderr, "an address may let anybody in"
    assert asked(hub) == [SECOND]
    assert files(folder_of(remote, tmp_path)) == files(source)
    # What was planned is what is fetched, or nothing.
    argv += ["--revision", "0123456789ab"]
    refused = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert f"it has changed since it was planned: {remote.revision} is not 0123456789ab" in refused.stderr


@pytest.fixture
def local(source: Path) -> Remote:
    """A checkpoint in a folder, as if it were far away."""

    def get(name: str, folder: Path) -> None:
        shutil.copyfile(source / name, folder / name)

    sizes = {file.name: File(file.stat().st_size) for file in source.iterdir()}
    return Remote("far://run/step-1", "run", "step-1", 1, sizes, get)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The seconds that it is, and those that were slept."""
    clock = SimpleNamespace(now=0.0, slept=[])

    def sleep(seconds: float) -> None:
        clock.slept.append(seconds)
        clock.now += seconds

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    return clock


def test_a_source_that_is_away_is_asked_again(local: Remote, tmp_path: Path, clock: SimpleNamespace) -> None:
    comes_back = 300.0

    def get(name: str, folder: Path) -> None:
        if clock.now < comes_back:
            raise Unavailable("far away")
        local.get(name, folder)

    away = replace(local, get=get, workers=1)
    assert fetch(away, tmp_path).is_dir()
    assert clock.now >= comes_back
    comes_back = clock.now + 10 * module.PATIENCE
    with pytest.raises(Unavailable, match="far away"):
        fetch(away, tmp_path / "other")
    assert clock.now < comes_back


def test_it_is_asked_less_and_less_often_until_it_was_away_for_long(
    local: Remote, tmp_path: Path, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    def get(name: str, folder: Path) -> None:
        if not clock.slept:
            clock.now = 10 * module.PATIENCE  # it was slow before it failed
        raise Unavailable("far away")

    only = {"config.json": local.files["config.json"]}
    with pytest.raises(Unavailable, match="far away"):
        fetch(replace(local, files=only, get=get), tmp_path)
    assert clock.slept == [1, 2, 4, 8, 16, 32, *[60] * 8], "in all as long as there is patience for"
    said = "far away; asking again for config.json in"
    assert [message for message in caplog.messages if "far away" in message][:2] == [
        f"{said} 1 s",
        f"{said} 2 s",
    ]


@pytest.mark.usefixtures("clock")
def test_files_that_others_take_the_place_of_are_no_checkpoint(local: Remote, tmp_path: Path) -> None:
    asked = []

    def now() -> dict[str, File]:
        asked.append(1)
        if len(asked) < 3:
            raise Unavailable("far away")
        return there

    there = {**local.files, "of no interest.txt": File(1)}
    assert fetch(replace(local, now=now), tmp_path / "same").is_dir()
    assert len(asked) == 3, "it was away twice"
    first, second, *_ = sorted(local.files)
    del there[second]
    there[first] = File(there[first].size, "another's hash")
    with pytest.raises(
        Unavailable, match=rf"{local.url}: {first} has changed while it was fetched; fetch it"
    ):
        fetch(replace(local, now=now), tmp_path / "other")
    assert not folder_of(local, tmp_path / "other").exists()


def test_it_is_said_how_far_it_is(
    local: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ticks = itertools.count(step=2)  # seconds from one look to the next
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    monkeypatch.setattr(module, "_LOG_SECONDS", 0.01)

    def said(message: str) -> None:
        until(lambda: f"{local.url}: {message}" in caplog.messages, message)

    def get(name: str, folder: Path) -> None:
        said("0 B of 40 MB, 0 B/s")
        (folder / "gone").symlink_to("nowhere")  # as what is renamed while it is looked at
        (folder / "library").mkdir()
        with (folder / "library" / "half").open("wb") as file:
            for megabytes in (8, 16):
                file.truncate(megabytes * 1_000_000)
                said(f"{megabytes} MB of 40 MB, 4 MB/s")
                said(f"{megabytes} MB of 40 MB, 0 B/s")
        (folder / "library" / "half").unlink()
        until(lambda: " k" in caplog.messages[-1] or " 0 B of" in caplog.messages[-1], "that it is gone")
        raise CheckpointError("enough")

    with pytest.raises(CheckpointError, match="enough"):
        fetch(replace(local, files={"weights": File(40_000_000)}, get=get), tmp_path)
    assert ", -" not in caplog.text, "nothing is fetched backwards"
    assert not any("say" in thread.name for thread in threading.enumerate())


def test_a_folder_that_is_removed_while_it_is_looked_through_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").write_bytes(bytes(1000))
    (tmp_path / "library").mkdir()
    real = os.scandir

    def scandir(path: str | Path) -> object:
        if Path(path).name == "library":
            Path(path).rmdir()
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert module._bytes(tmp_path) == 1000
    assert not (tmp_path / "library").exists()


def test_a_disk_that_is_too_small(local: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=local.size - 1))
    can_go = f"what was fetched can be deleted: {tmp_path}/.checkpoints"
    with pytest.raises(ResultsError, match=rf"\d+ B are wanted for {local.url}, and .* are free; {can_go}"):
        fetch(local, tmp_path)
    monkeypatch.undo()

    def get(name: str, folder: Path) -> None:
        Path("/dev/full").write_bytes(b"x")

    with pytest.raises(ResultsError, match=f"No space left on device; {can_go}"):
        fetch(replace(local, get=get), tmp_path)


def test_what_is_here_already_wants_no_room(
    local: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = unfinished(local, tmp_path)
    left.mkdir(parents=True)
    local.get(FIRST, left)
    (left / part_of(SECOND)).write_bytes(b"begun")
    (left / part_of(FIRST)).write_bytes(bytes(local.size))
    missing = local.size - local.files[FIRST].size - len(b"begun")
    usage = shutil.disk_usage(tmp_path)
    free = missing - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    with pytest.raises(ResultsError, match=f": {module.size_text(missing)} are wanted for {local.url}, "):
        fetch(local, tmp_path)
    free = missing
    assert fetch(local, tmp_path).is_dir()


def test_a_disk_that_is_full_while_the_hub_is_asked_is_not_the_hubs_fault(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(ResultsError, match="No space left on device"):
        fetch(resolve(URL), tmp_path)


def test_names_that_lead_elsewhere_are_not_read(local: Remote) -> None:
    from evalcore.sources.remote import remote_of

    listed = {
        **local.files,
        "../evil.json": File(1),
        "..": File(1),
        "a/../../b.json": File(1),
        "/etc/x": File(1),
    }
    assert remote_of("u://x", ("run",), "step-1", 1, listed, local.get).files == local.files


def config(tmp_path: Path, **options: object) -> EvalConfig:
    return load_config("tiny", checkpoint=URL, results=str(tmp_path / "results"), **options)  # type: ignore[arg-type]


@pytest.mark.usefixtures("hub")
def test_a_configs_checkpoint_keeps_its_run_name_and_step(tmp_path: Path) -> None:
    done = fetched(config(tmp_path))
    assert done.checkpoint
    checkpoint = load_checkpoint(Path(done.checkpoint), run=done.training_run, step=done.step)
    assert (checkpoint.run, checkpoint.name, checkpoint.step) == ("olmo", "step1000", 1000)
    said = fetched(config(tmp_path, training_run="mine", step=7))
    assert (said.training_run, said.step, said.checkpoint) == ("mine", 7, done.checkpoint)
    path = load_config("tiny", checkpoint="/a/path")
    assert fetched(path) is path


def test_the_rest_of_a_request_is_checked_first(hub: Hub, tmp_path: Path) -> None:
    remote = resolve(URL)
    good = placed(config(tmp_path), remote, folder_of(remote, tmp_path / "results"))
    is_here, commands = outlook(good)
    assert not is_here
    lines = commands.splitlines()
    results = tmp_path / "results" / "olmo" / "step1000" / "tiny-arithmetic"
    assert f"evalcore grade {results}" in lines  # whose settings nobody knows before it is here
    assert lines[0].startswith(f"evalcore convert checkpoint={good.checkpoint} ")
    named = outlook(good.model_copy(update={"name": "other"})).commands
    assert f"evalcore grade {results.parents[1] / 'other' / 'tiny-arithmetic'}" in named.splitlines()
    with pytest.raises(ConfigError, match="unknown benchmark 'nope'"):
        outlook(
            good.model_copy(update=dict(config(tmp_path, benchmarks="nope:1"), checkpoint=good.checkpoint))
        )
    first = planned(config(tmp_path)).splitlines()[0]
    assert first.startswith(f"evalcore fetch {URL} --results {tmp_path}/results --revision {remote.revision}")
    assert first.endswith(f"  # {len(remote.files)} files, {module.size_text(remote.size)}")
    assert asked(hub) == []
    fetch(remote, tmp_path / "results")
    assert outlook(good) == Outlook(True)
    assert "--settings" in planned(config(tmp_path))
    assert "evalcore fetch" not in planned(config(tmp_path))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1 kB"),
        (1_000, "1 kB"),
        (15_400, "15 kB"),
        (999_999, "1 MB"),
        (1_290_000, "1 MB"),
        (13.51e9, "13.5 GB"),
        (1.2345e12, "1,234.5 GB"),
    ],
)
def test_sizes(size: float, text: str) -> None:
    assert module.size_text(size) == text


def test_a_cluster_is_asked_for_the_outlook(source: Path, tmp_path: Path) -> None:
    def asked_there(config: EvalConfig) -> subprocess.CompletedProcess[bytes]:
        argv = [sys.executable, "-m", "evalcore.fetch"]
        said = config.model_dump_json(exclude_unset=True).encode()
        return subprocess.run(argv, input=said, capture_output=True, check=False)

    here = config(tmp_path).model_copy(update={"checkpoint": str(source)})
    absent = here.model_copy(update={"checkpoint": str(tmp_path / "absent")})
    for asked in (here, absent):
        done = asked_there(asked)
        assert (done.returncode, done.stderr) == (0, b"")
        assert Outlook.from_json(done.stdout) == outlook(asked)
    refused = asked_there(
        config(tmp_path, benchmarks="nope:1").model_copy(update={"checkpoint": absent.checkpoint})
    )
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert refused.stderr.decode().startswith("evalcore: error: unknown benchmark 'nope'")


def test_what_a_login_shell_says_is_no_outlook() -> None:
    assert Outlook.from_json(b'Welcome to the cluster!\n{"is_here":true}') == Outlook(True)
