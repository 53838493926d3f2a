"""Checkpoints in a bucket, behind a real S3 API on loopback, read with Amazon's provider as users install it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from evalcore.discovery import find
from evalcore.errors import CheckpointError
from evalcore.fetch import fetch
from evalcore.sources.remote import Unavailable
from evalcore.tracked import Tracked
from flat_store import FlatStore
from hooks.places import place_of, remote_at
from tiny_folder import write_checkpoint

RUN = "bucket/llama"
KEY, SECRET = "AKIAXXXXXXXXXXXXXXXX", "of-the-connection"
LARGE = 20 << 20
"""Bytes of the largest file: more than two of the parts that are asked for at once."""


@dataclass
class S3:
    """A server of the S3 API, what was put there, and a client that puts more."""

    url: str
    client: Any
    objects: dict[str, bytes]

    def put(self, objects: dict[str, bytes]) -> None:
        for name, content in objects.items():
            bucket, _, key = name.partition("/")
            self.client.put_object(Bucket=bucket, Key=key, Body=content)
        self.objects |= objects


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A bucket with a whole checkpoint, a torn one, one not yet renamed, and the folders that a console makes."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("step-3", "step-4", "step-9.tmp"):
        folder = write_checkpoint(tmp_path / "llama" / name, shards=2)
        (folder / "tokenizer.json").write_text("{}")
    (folder.with_name("step-3") / "vocab.txt").write_bytes(bytes(range(256)) * (LARGE // 256) + b"end")
    torn = folder.with_name("step-4") / "model-00001-of-00002.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    files = {f"bucket/{f.relative_to(tmp_path)}": f for f in tmp_path.rglob("*") if f.is_file()}
    objects = {name: file.read_bytes() for name, file in files.items()}
    objects |= dict.fromkeys((f"{RUN}/", f"{RUN}/step-3/", f"{RUN}/step-30/", f"{RUN}/step-3/empty.txt"), b"")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        httpx.post(f"{url}/moto-api/reset")  # what it has is its process's, and so the test's before
        keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "eu-central-1"}
        client = boto3.client("s3", endpoint_url=url, **keys)
        client.create_bucket(
            Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
        found = S3(url, client, {})
        found.put(objects)
        yield found
    finally:
        server.stop()


@pytest.fixture
def connection(s3: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a Connection by which alone the server can be reached. Airflow keeps what it opened by that."""
    name = f"store{s3.url.rpartition(':')[2]}"
    extra = {"endpoint_url": s3.url, "region_name": "eu-central-1"}
    content = {"conn_type": "aws", "login": KEY, "password": SECRET, "extra": extra}
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(content))
    return name


def tracked(url: str) -> Tracked:
    return Tracked.model_validate({"training_run": "llama", "source": {"object": url}, "suite": "tiny"})


def test_a_run_is_followed_through_a_connection(s3: S3, connection: str) -> None:
    run = tracked(f"s3://{connection}@{RUN}")
    found, waiting = find(run, place_of(run), unknown=set, limit=9)
    assert [(f.name, f.step, f.checkpoint) for f in found] == [
        ("step-3", 3, f"s3://{connection}@{RUN}/step-3")
    ]
    torn, empty = waiting
    assert torn.startswith(
        f"s3://{connection}@{RUN}/step-4/model-00001-of-00002.safetensors: truncated or damaged"
    )
    assert empty == f"checkpoint s3://{connection}@{RUN}/step-30: no such folder"
    s3.put({name.replace("step-3/", "step-30/"): it for name, it in s3.objects.items() if "/step-3/" in name})
    assert [f.name for f in find(run, place_of(run), unknown=set, limit=9).found] == ["step-3", "step-30"]


def test_a_checkpoint_is_fetched_through_a_connection(s3: S3, connection: str, tmp_path: Path) -> None:
    remote = remote_at(f"s3://{connection}@{RUN}/step-3")
    assert (remote.run, remote.name, remote.step) == ("llama", "step-3", 3)
    folder = fetch(remote, tmp_path / "results")
    there = {name.rpartition("/")[2]: it for name, it in s3.objects.items() if f"{RUN}/step-3/" in name}
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == {n: it for n, it in there.items() if n}
    assert remote_at(f"s3://{connection}@{RUN}/step-3").revision == remote.revision
    s3.put({f"{RUN}/step-3/tokenizer.json": b"[]"})
    with pytest.raises(Unavailable, match="has changed"):
        fetch(remote, tmp_path / "again")
    assert remote_at(f"s3://{connection}@{RUN}/step-3").revision != remote.revision


def test_what_cannot_be_reached_is_said(s3: S3, connection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (f"s3://{connection}@{RUN}/nowhere", f"s3://{connection}@nobucket/llama"):
        with pytest.raises(CheckpointError, match="no such folder or bucket") as failure:
            place_of(tracked(url)).list()
        assert not isinstance(failure.value, Unavailable)
    with pytest.raises(CheckpointError, match="`nosuch` isn't defined"):
        place_of(tracked(f"s3://nosuch@{RUN}")).list()
    # Nothing listens there.
    gone = json.loads(os.environ[f"AIRFLOW_CONN_{connection.upper()}"])
    gone["extra"] |= {"endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"max_attempts": 1}}}
    monkeypatch.setenv("AIRFLOW_CONN_GONE", json.dumps(gone))
    with pytest.raises(Unavailable) as away:
        place_of(tracked(f"s3://gone@{RUN}")).list()
    assert SECRET not in str(away.value)


def test_evalcore_fetches_with_the_credentials_of_its_environment(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    command = [
        sys.executable,
        "-m",
        "evalcore.cli",
        "fetch",
        f"s3://{RUN}/step-3",
        "--results",
        str(tmp_path / "r"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "r" / ".checkpoints").glob("*/*/")
    assert (folder / "vocab.txt").read_bytes() == s3.objects[f"{RUN}/step-3/vocab.txt"]


def test_the_fake_store_answers_as_the_real_one(s3: S3) -> None:
    fs = s3fs.S3FileSystem(key=KEY, secret=SECRET, endpoint_url=s3.url, skip_instance_cache=True)
    fake = FlatStore(dict(s3.objects))

    def told(entries: Any) -> list[tuple[str, str, int]]:
        return sorted((e["name"], e["type"], e["size"]) for e in entries)

    for folder in (RUN, f"{RUN}/step-3", f"{RUN}/step-30"):
        fs.invalidate_cache()  # what it finds, it takes for what is listed
        assert told(fs.ls(folder, detail=True)) == told(fake.ls(folder)), folder
        fs.invalidate_cache()
        assert told(fs.find(folder, detail=True).values()) == told(fake.find(folder).values()), folder
    large = f"{RUN}/step-3/vocab.txt"
    for name, start, end in [
        (large, 10, 20),
        (large, LARGE, LARGE + 50),
        (f"{RUN}/step-4/config.json", 0, 9),
    ]:
        assert fs.cat_file(name, start=start, end=end) == fake.cat_file(name, start=start, end=end)
    for store in (fs, fake):
        with pytest.raises(OSError, match=r"InvalidRange|range"):
            store.cat_file(f"{RUN}/step-3/empty.txt", start=0, end=8)
        with pytest.raises(FileNotFoundError):
            store.ls(f"{RUN}/nowhere")
        with pytest.raises(FileNotFoundError):
            store.cat_file(f"{RUN}/nowhere", start=0, end=8)
    listed = told(fake.ls(f"{RUN}/step-3"))
    assert told(fs.ls(f"{RUN}/step-3", detail=True)) == listed
    s3.put({f"{RUN}/step-3/new.txt": b"new"})
    fake.objects[f"{RUN}/step-3/new.txt"] = b"new"
    for store in (fs, fake):
        assert told(store.ls(f"{RUN}/step-3", detail=True)) == listed
        store.invalidate_cache()
        now = told(store.ls(f"{RUN}/step-3", detail=True))
        assert now == sorted([*listed, (f"{RUN}/step-3/new.txt", "file", 3)])
