"""A checkpoint in an object store, read by fsspec itself."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest

from evalcore.discovery import Findings, find
from evalcore.errors import CheckpointError, ConfigError
from evalcore.fetch import fetch, folder_of, resolve
from evalcore.sources.object_store import Prefix, stored, without_connection
from evalcore.sources.remote import Unavailable
from evalcore.tracked import Tracked
from flat_store import FlatStore
from tiny_folder import write_checkpoint

RUN = "bucket/llama"


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_a_folder_of_a_store(tmp_path: Path, scheme: str) -> None:
    source = write_checkpoint(tmp_path / "llama" / "checkpoints" / "step-30", shards=2)
    (source / "tokenizer.json").write_text("{}")
    (source / "optimizer").mkdir()
    (source / "optimizer" / "state.json").write_text("{}")
    fs = fsspec.filesystem(scheme)
    if scheme == "memory":
        for file in filter(Path.is_file, source.rglob("*")):
            fs.pipe_file(str(file), file.read_bytes())
    url = f"{scheme}://{source}"
    remote = resolve(url)
    assert (remote.run, remote.name, remote.step) == ("llama", "step-30", 30)
    folder = fetch(remote, tmp_path / "results")
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == {
        f.name: f.read_bytes() for f in source.iterdir() if f.is_file()
    }
    # Of the same size, and another one.
    if scheme == "file":
        os.utime(source / "config.json", (1, 1))
    else:
        fs.pipe_file(str(source / "config.json"), (source / "config.json").read_bytes())
    assert resolve(url).revision != remote.revision
    if scheme == "file":
        weights = source / "model-00002-of-00002.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
        with pytest.raises(CheckpointError, match="truncated or damaged"):
            fetch(resolve(url), tmp_path / "results")


def test_what_is_not_there(tmp_path: Path) -> None:
    for url in (f"file://{tmp_path}/nowhere", f"memory://{tmp_path}/nowhere"):
        with pytest.raises(CheckpointError, match="nowhere: ") as failure:
            resolve(url)
        assert not isinstance(failure.value, Unavailable)
    with pytest.raises(ConfigError, match="nosuch://bucket/x: Protocol not known: nosuch"):
        resolve("nosuch://bucket/x")


def test_a_connection_is_airflows_business() -> None:
    assert without_connection("s3://aws_default@bucket/a/step-1") == "s3://bucket/a/step-1"
    assert without_connection("file:///a/step-1") == "file:///a/step-1"
    with pytest.raises(CheckpointError, match="credentials do not belong") as failure:
        without_connection("s3://key:secret@bucket/a")
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize("end", ["step-1?versionId=3", "run#2/step-1"])
def test_what_would_be_left_out_of_an_address_is_refused(end: str) -> None:
    with pytest.raises(CheckpointError, match=r"an address without \? and # is wanted"):
        without_connection(f"s3://bucket/{end}")


def test_an_address_that_is_none_is_said() -> None:
    with pytest.raises(CheckpointError, match=r"s3://\[a/b: Invalid IPv6 URL"):
        without_connection("s3://[a/b")


@pytest.fixture
def store(tmp_path: Path) -> FlatStore:
    """One that a checkpoint lies in."""
    folder = write_checkpoint(tmp_path / "step-30", shards=2)
    (folder / "tokenizer.json").write_text("{}")
    return FlatStore({f"{RUN}/step-30/{file.name}": file.read_bytes() for file in folder.iterdir()})


def prefix(store: FlatStore) -> Prefix:
    return Prefix(f"s3://{RUN}/", lambda: (store, f"{RUN}/"))


def findings(store: FlatStore) -> Findings:
    tracked = Tracked.model_validate(
        {"training_run": "r", "source": {"object": f"s3://{RUN}"}, "suite": "tiny"}
    )
    return find(tracked, prefix(store), unknown=set, limit=9)


def test_empty_objects_stand_for_folders(store: FlatStore, tmp_path: Path) -> None:
    there = {key.rpartition("/")[2] for key in store.objects}
    store.objects |= dict.fromkeys(
        (f"{RUN}/", f"{RUN}/step-30/", f"{RUN}/step-30/more/", f"{RUN}/step-40/"), b""
    )
    found, waiting = findings(store)
    assert [(f.name, f.place) for f in found] == [("step-30", f"s3://{RUN}/step-30")]
    assert waiting == [f"checkpoint s3://{RUN}/step-40: no such folder"]
    remote = stored(found[0].place, store, f"{RUN}/step-30")
    assert {f.name for f in fetch(remote, tmp_path / "results").iterdir()} == there


def test_of_weights_only_the_headers_are_read(store: FlatStore) -> None:
    key = f"{RUN}/step-30/model.safetensors"
    header = b'{"a":{"dtype":"U8","shape":[1000000],"data_offsets":[0,1000000]}}'
    whole = len(header).to_bytes(8, "little") + header + bytes(1_000_000)
    store.objects = {
        k: v for k, v in store.objects.items() if not k.endswith((".safetensors", ".index.json"))
    }
    store.objects[key] = whole
    assert [f.name for f in findings(store).found] == ["step-30"]
    assert sum(end - start for name, start, end in store.read if name == key) < 20_000
    store.objects[key] = whole[:-1]
    assert "truncated or damaged" in findings(store).waiting[0]


def test_an_empty_file_is_one_that_is_still_being_written(store: FlatStore) -> None:
    store.objects[f"{RUN}/step-30/config.json"] = b""
    [waiting] = findings(store).waiting
    assert waiting.startswith(f"s3://{RUN}/step-30/config.json: not JSON")


def test_megatrons_marker_lies_beside_the_folders(store: FlatStore) -> None:
    marker = f"{RUN}/latest_checkpointed_iteration.txt"
    store.objects = {key.replace("step-30", "iter_0000030"): it for key, it in store.objects.items()}
    store.objects[marker] = b"20"
    assert findings(store) == ([], [f"checkpoint s3://{RUN}/iter_0000030: {Path(marker).name} is at 20"])
    store.objects[marker] = b"30"
    assert [f.name for f in findings(store).found] == ["iter_0000030"]


def test_what_was_listed_before_is_no_answer(store: FlatStore) -> None:
    config = store.objects.pop(f"{RUN}/step-30/config.json")
    place = prefix(store)
    found = place.list().found
    assert "no config.json" in place.missing(found)[0]
    store.objects[f"{RUN}/step-30/config.json"] = config
    assert place.missing(found) == [""]
    store.objects[f"{RUN}/step-40/config.json"] = config
    assert [f.name for f in place.list().found] == ["step-30", "step-40"]


def test_a_large_file_comes_in_parts(
    store: FlatStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalcore.sources.object_store._PART", 50)
    store.objects[f"{RUN}/step-30/chat_template.jinja"] = b""
    folder = fetch(stored("s3://x", store, f"{RUN}/step-30"), tmp_path / "results")
    assert {f"{RUN}/step-30/{f.name}": f.read_bytes() for f in folder.iterdir()} == store.objects
    assert max(end - start for _, start, end in store.read) == 50


@pytest.mark.parametrize("broken_by", [OSError("connection lost"), KeyboardInterrupt()])
def test_a_file_is_gone_on_with_where_it_broke_off(
    store: FlatStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_by: BaseException
) -> None:
    monkeypatch.setattr("evalcore.sources.object_store._PART", 50)
    monkeypatch.setattr(
        "evalcore.fetch.time", SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda seconds: None)
    )
    cat_file, key = store.cat_file, f"{RUN}/step-30/vocab.txt"
    store.objects[key] = bytes(range(256))

    def breaking(path: str, start: int, end: int) -> bytes:
        if (path, start) == (key, 150) and not broken:
            broken.append(start)
            raise broken_by
        return cat_file(path, start=start, end=end)

    broken: list[int] = []
    monkeypatch.setattr(store, "cat_file", breaking)
    remote = stored("s3://x", store, f"{RUN}/step-30")
    if isinstance(broken_by, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            fetch(remote, tmp_path)
        # Killed in the middle of what it wrote.
        [part] = tmp_path.rglob(".vocab.txt.begun")
        os.truncate(part, 130)
    folder = fetch(remote, tmp_path)
    assert {f"{RUN}/step-30/{f.name}": f.read_bytes() for f in folder.iterdir()} == store.objects
    then = [130, 180, 230] if isinstance(broken_by, KeyboardInterrupt) else [150, 200, 250]
    assert [start for name, start, _ in store.read if name == key] == [0, 50, 100, *then]


def test_nothing_is_written_behind_an_answer_that_was_cut_off(
    store: FlatStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalcore.sources.object_store._PART", 50)
    cat_file, key = store.cat_file, f"{RUN}/step-30/vocab.txt"
    store.objects[key] = bytes(range(256))
    met = set()

    def ailing(path: str, start: int, end: int) -> bytes:
        if path != key or start in met:
            return cat_file(path, start=start, end=end)
        met.add(start)
        if start == 150:
            raise KeyboardInterrupt
        return cat_file(path, start=start, end=70 if start == 50 else end)

    monkeypatch.setattr(store, "cat_file", ailing)
    remote = stored("s3://x", store, f"{RUN}/step-30")
    with pytest.raises(KeyboardInterrupt):
        fetch(remote, tmp_path)
    assert (fetch(remote, tmp_path) / "vocab.txt").read_bytes() == store.objects[key]


def test_what_an_older_version_began_is_not_gone_on_with(store: FlatStore, tmp_path: Path) -> None:
    remote = stored("s3://x", store, f"{RUN}/step-30")
    target = folder_of(remote, tmp_path)
    left = target.with_name(f".{target.name}.tmp")
    left.mkdir(parents=True)
    # s3fs makes a file as long as it is to be before it has any of it.
    (left / ".tokenizer.json.part").write_bytes(bytes(remote.files["tokenizer.json"].size))
    assert (fetch(remote, tmp_path) / "tokenizer.json").read_bytes() == b"{}"


def test_a_store_that_is_away_when_all_is_here_is_asked_again(
    store: FlatStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = stored("s3://x", store, f"{RUN}/step-30")
    store.error = OSError("connection lost")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        store.error = None

    monkeypatch.setattr("evalcore.fetch.time", SimpleNamespace(monotonic=lambda: 0.0, sleep=sleep))
    of = {key.rpartition("/")[2]: content for key, content in store.objects.items()}

    def get(name: str, folder: Path) -> None:
        (folder / name).write_bytes(of[name])

    assert fetch(replace(remote, get=get), tmp_path).is_dir()
    assert slept == [1.0]


@pytest.mark.parametrize("content", [b"[]", b"1", None])
def test_what_is_replaced_while_it_is_fetched_is_no_checkpoint(
    store: FlatStore, tmp_path: Path, content: bytes | None
) -> None:
    remote = stored("s3://x", store, f"{RUN}/step-30")

    def get(name: str, folder: Path) -> None:
        remote.get(name, folder)
        # What training still needs may come and go.
        store.objects[f"{RUN}/step-30/optimizer.pt"] = b"new"
        if name != "config.json":
            return
        if content is None:
            del store.objects[f"{RUN}/step-30/tokenizer.json"]
        else:
            store.objects[f"{RUN}/step-30/tokenizer.json"] = content

    # One after the other: config.json is the first.
    files = dict(sorted(remote.files.items()))
    said = "tokenizer.json$" if content is None else "tokenizer.json has changed while it was fetched"
    with pytest.raises(CheckpointError, match=said) as failure:
        fetch(replace(remote, files=files, get=get, workers=1), tmp_path)
    # What is replaced is there, and another try brings it.
    assert isinstance(failure.value, Unavailable) is (content is not None)
    assert not folder_of(remote, tmp_path).exists()
    if content is not None:
        now = stored("s3://x", store, f"{RUN}/step-30")
        assert (fetch(now, tmp_path) / "tokenizer.json").read_bytes() == content


def test_nothing_is_kept_of_files_that_were_replaced_for_a_while(store: FlatStore, tmp_path: Path) -> None:
    key = f"{RUN}/step-30/tokenizer.json"
    remote = stored("s3://x", store, f"{RUN}/step-30")

    def get(name: str, folder: Path) -> None:
        store.objects[key] = b"[]"
        remote.get(name, folder)

    with pytest.raises(Unavailable, match="has changed while it was fetched"):
        fetch(replace(remote, get=get), tmp_path)
    store.objects[key] = b"{}"
    assert (fetch(remote, tmp_path) / "tokenizer.json").read_bytes() == b"{}"


@pytest.mark.parametrize(
    ("error", "status", "is_final"),
    [
        (OSError(22, "AuthorizationHeaderMalformed"), 400, True),
        (OSError(16, "SlowDown"), 503, False),
        (OSError("connection lost"), None, False),
        (PermissionError("InvalidAccessKeyId"), 403, True),
        (PermissionError("of a store that tells no status"), None, True),
        (ValueError("no name of a bucket"), None, True),
        (RuntimeError("of the library's own"), None, False),
    ],
)
def test_what_another_try_would_not_mend_is_final(
    store: FlatStore, error: Exception, status: int | None, is_final: bool
) -> None:
    # As s3fs does: botocore's error is the cause, and has the answer as a dict.
    cause = Exception("of botocore's")
    cause.response = {"Error": {}, "ResponseMetadata": {"HTTPStatusCode": status}}  # type: ignore[attr-defined]
    error.__cause__ = cause if status else None
    store.error = error
    for ask in (prefix(store).list, lambda: stored("s3://x", store, f"{RUN}/step-30")):
        with pytest.raises(CheckpointError) as failure:
            ask()
        assert isinstance(failure.value, Unavailable) is not is_final
