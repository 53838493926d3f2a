"""A checkpoint in an object store, read by fsspec itself."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from evalcore.errors import CheckpointError, ConfigError
from evalcore.fetch import fetch, resolve
from evalcore.sources.object_store import without_connection
from evalcore.sources.remote import Unavailable
from tiny_folder import write_checkpoint


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
