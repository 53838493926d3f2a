"""The versions of a W&B artifact are checkpoints, read by wandb itself from a server of ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import wandb_server
from evalcore.discovery import Findings, find
from evalcore.errors import CheckpointError
from evalcore.fetch import fetch, resolve
from evalcore.sources.remote import Unavailable
from evalcore.sources.wandb import Artifacts
from evalcore.tracked import Tracked
from tiny_folder import write_checkpoint
from wandb_server import Version

pytestmark = pytest.mark.slow  # wandb starts a process of its own

COLLECTION = "team/llama/checkpoints"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[wandb_server.Server]:
    with wandb_server.running() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
        yield server


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    folder = write_checkpoint(tmp_path / "c", shards=2)
    return {f.name: f.read_bytes() for f in folder.iterdir()}


def look(source: str) -> Findings:
    tracked = Tracked.model_validate({"training_run": "llama", "source": {"wandb": source}, "suite": "tiny"})
    return find(tracked, Artifacts(source), unknown=set, limit=500)


def test_all_versions_or_the_one_of_an_alias(server: wandb_server.Server, files: dict[str, bytes]) -> None:
    server.versions = [Version(files, {"step": 1000 * n}) for n in range(1, 60)]
    server.versions[3].aliases = ("nightly",)
    server.versions[4].metadata = {"global_step": 5}
    server.versions[5].metadata = {}
    found = look(COLLECTION).found
    assert len(found) == 59
    assert [(f.name, f.step) for f in found[:4]] == [
        ("checkpoints-v4", 5),
        ("checkpoints-v5", 5),
        ("checkpoints-v0", 1000),
        ("checkpoints-v1", 2000),
    ]
    assert found[0].place == found[0].checkpoint == f"wandb://{COLLECTION}:v4"
    [nightly] = look(f"{COLLECTION}:nightly").found
    # However it was come by, it is the same checkpoint.
    assert nightly == next(f for f in found if f.name == "checkpoints-v3")
    assert not server.unknown


def test_incomplete_ones_wait(server: wandb_server.Server, files: dict[str, bytes]) -> None:
    without = {n: c for n, c in files.items() if not n.startswith("model-00002")}
    index = "model.safetensors.index.json"
    server.versions = [
        Version(without),
        Version({**files, index: b"{"}),
        Version({n: c for n, c in files.items() if n != "config.json"}),
        Version({n: c for n, c in files.items() if n != index}),
        Version(files, state="PENDING"),
        Version({".metadata": b"m", "__0_0.distcp": b"d"}),
    ]
    found, waiting = look(COLLECTION)
    assert not found
    shard, torn, config, single, distributed = waiting
    assert (
        shard
        == f"wandb://{COLLECTION}:v0: 1 of 2 weight files missing, first model-00002-of-00002.safetensors"
    )
    assert torn.startswith(f"wandb://{COLLECTION}:v1: unreadable {index}")
    assert config == f"wandb://{COLLECTION}:v2: no config.json"
    assert single == f"wandb://{COLLECTION}:v3: 1 of 1 weight files missing, first model.safetensors"
    assert distributed == f"wandb://{COLLECTION}:v5: no config.json"


def test_a_collection_that_is_not_there(server: wandb_server.Server) -> None:
    with pytest.raises(CheckpointError, match="wandb://team/llama/nothing: "):
        look("team/llama/nothing")


def test_a_version_is_fetched(
    server: wandb_server.Server, files: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files |= {"tokenizer.json": b"{}"}
    server.versions = [Version(files), Version(files | {"optimizer.pt": b"o"}, {"step": 2000}, ("nightly",))]
    remote = resolve(f"wandb://{COLLECTION}:nightly")
    # What a name of a collection says nothing about, the project does.
    assert (remote.run, remote.name, remote.step) == ("llama", "checkpoints-v1", 2000)
    assert remote.url == f"wandb://{COLLECTION}:v1"
    folder = fetch(remote, tmp_path)
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == files
    cached = [f for f in (tmp_path / "cache").rglob("artifacts/obj/**/*") if f.is_file()]
    assert not cached, "it would lie there a second time"

    shard = "model-00002-of-00002.safetensors"
    server.versions[1].files = {n: c for n, c in files.items() if n != shard}
    server.versions[0].files = {**files, "config.json": b'{"architectures": ["X"]}'}
    with pytest.raises(CheckpointError, match=f"1 of 2 shards missing, first {shard}"):
        fetch(resolve(f"wandb://{COLLECTION}:v1"), tmp_path)
    assert resolve(f"wandb://{COLLECTION}:v0").revision != remote.revision


def test_a_version_that_is_gone(server: wandb_server.Server, files: dict[str, bytes]) -> None:
    server.versions = [Version(files)]
    with pytest.raises(CheckpointError, match=f"wandb://{COLLECTION}: .*v7") as failure:
        resolve(f"wandb://{COLLECTION}:v7")
    assert not isinstance(failure.value, Unavailable)
    with pytest.raises(CheckpointError, match="expected wandb://entity/project/name:version"):
        resolve(f"wandb://{COLLECTION}")
