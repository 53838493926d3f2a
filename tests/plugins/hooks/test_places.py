"""Where a tracked run's checkpoints are looked for, and an object store through Airflow's object storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach

from evalcore.discovery import ClusterFolder, Folder, find
from evalcore.errors import CheckpointError, ConfigError
from evalcore.sources.hub import Revisions
from evalcore.sources.object_store import Prefix
from evalcore.sources.wandb import Artifacts
from evalcore.tracked import Tracked
from hooks.places import place_of
from tiny_folder import write_checkpoint


def tracked(cluster: str = "local", **source: str) -> Tracked:
    return Tracked.model_validate(
        {"training_run": "run", "source": source, "suite": "tiny", "cluster": cluster}
    )


def test_each_source_has_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = tmp_path / "env.toml"
    env.write_text('[far]\nexecutor = "slurm"\nremote_job_dir = "/lustre/me"\n')
    monkeypatch.setenv("EVALCORE_ENV_TOML", str(env))
    place: Any = place_of(tracked(path="/ckpt"))
    assert (type(place), str(place.path), place.converted) == (Folder, "/ckpt", False)
    place = place_of(tracked("far", path="/ckpt"))
    assert (type(place), place.path, place.cluster.profile.name) == (ClusterFolder, "/ckpt", "far")
    assert not place.converted
    for cluster in ("local", "far"):
        place = place_of(tracked(cluster, path="/ckpt").model_copy(update={"overrides": ("converter=dcp",)}))
        assert place.converted
    assert isinstance(place_of(tracked(hub="org/repo")), Revisions)
    assert isinstance(place_of(tracked(wandb="team/llama/checkpoints:nightly")), Artifacts)
    assert isinstance(place_of(tracked(object=f"file://{tmp_path}")), Prefix)


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_an_object_store(tmp_path: Path, scheme: str) -> None:
    for name in ("step-20", "step-3", "step-9.tmp"):
        folder = write_checkpoint(tmp_path / name, shards=2)
        (folder / "tokenizer.json").write_text("{}")
    torn = write_checkpoint(tmp_path / "step-4") / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    iteration = write_checkpoint(tmp_path / "iter_0000050")
    (iteration / "tokenizer.json").write_text("{}")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("40")
    url = f"{scheme}://{tmp_path}"
    if scheme == "memory":
        attach("memory", fs=fsspec.filesystem("memory"))
        for file in filter(Path.is_file, tmp_path.rglob("*")):
            ObjectStoragePath(f"memory://{file}").write_bytes(file.read_bytes())
    training_run = tracked(object=url)
    findings = find(training_run, place_of(training_run), unknown=set, limit=9)
    assert [(f.name, f.step) for f in findings.found] == [("step-3", 3), ("step-20", 20)]
    assert findings.found[0].checkpoint.startswith(f"{scheme}://")
    assert findings.found[0].checkpoint.endswith("/step-3")
    first, second = findings.waiting
    assert "truncated or damaged" in first
    assert "latest_checkpointed_iteration.txt is at 40" in second
    with pytest.raises(CheckpointError, match="nowhere: no such folder"):
        place_of(tracked(object=f"{url}/nowhere")).list()
    with pytest.raises(CheckpointError, match="Unsupported filesystem"):
        place_of(tracked(object="nosuch://bucket/x")).list()
    # UPath knows it, and Airflow has no provider of it.
    with pytest.raises(ConfigError, match="No filesystem registered for scheme hdfs; it comes with"):
        place_of(tracked(object="hdfs://host/x")).list()
    with pytest.raises(CheckpointError, match="`nosuch` isn't defined"):
        place_of(tracked(object=url.replace("://", "://nosuch@"))).list()
