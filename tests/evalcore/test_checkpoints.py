"""A checkpoint counts when it is complete, and says what is missing when it is not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from evalcore import checkpoints
from evalcore.checkpoints import check_complete, digest, load_checkpoint, path_component, read_header
from evalcore.errors import CheckpointError
from tiny_folder import write_checkpoint


@pytest.mark.parametrize("shards", [1, 2])
def test_a_complete_checkpoint(tmp_path: Path, shards: int) -> None:
    folder = write_checkpoint(tmp_path / "run-a" / "iter_0001500", shards)
    checkpoint = load_checkpoint(folder)
    assert (checkpoint.run, checkpoint.name, checkpoint.step) == ("run-a", "iter_0001500", 1500)
    assert load_checkpoint(folder, run="other run", step=7).run == "other-run"
    assert load_checkpoint(folder, step=7).step == 7
    named = load_checkpoint(folder, name="night 3")
    assert (named.name, named.step, named.digest) == ("night-3", 1500, checkpoint.digest)
    stamped = write_checkpoint(tmp_path / "run-20261121020000123456", shards)
    assert load_checkpoint(stamped).step is None, "no database's integer is that long"
    below = write_checkpoint(tmp_path / "run-b" / "checkpoints" / "step-1", shards)
    assert load_checkpoint(below).run == "run-b"


def test_every_truncation_of_the_weights_is_noticed(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "ckpt")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for length in range(len(whole)):
        weights.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            check_complete(folder)
    weights.write_bytes(whole + b"x")
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        check_complete(folder)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda f: (f / "model-00002-of-00002.safetensors").unlink(),
            "1 of 2 shards missing, first model-00002",
        ),
        (lambda f: (f / "model.safetensors.index.json").unlink(), "no weights; expected"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{"), "unreadable index"),
        (
            lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": ["a"]}'),
            "unreadable index",
        ),
        (
            lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {}}'),
            "index.json: names no weights",
        ),
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (
            lambda f: (f / "config.json").write_text('{"model_'),
            r"config\.json: not JSON .*still being written",
        ),
        (lambda f: (f / "config.json").write_text("[]"), r"config\.json: not a JSON object but list"),
        (lambda f: (f / "config.json").write_bytes(b"\xff\xfe{"), r"config\.json: not JSON"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, harm, message: str) -> None:  # type: ignore[no-untyped-def]
    folder = write_checkpoint(tmp_path / "ckpt", shards=2)
    harm(folder)
    with pytest.raises(CheckpointError, match=message):
        check_complete(folder)


def test_an_index_cannot_point_outside_or_at_a_tensor_that_is_not_there(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "ckpt", shards=2)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    index.write_text(json.dumps({"weight_map": {"a.weight": "../../etc/passwd"}}))
    with pytest.raises(CheckpointError, match="lies outside the checkpoint"):
        check_complete(folder)
    content["weight_map"]["ghost"] = content["weight_map"]["a.weight"]
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="tensor ghost is not in"):
        check_complete(folder)


def test_each_header_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not once for each tensor: the large mixtures of experts have 90,000 of them.
    folder = write_checkpoint(tmp_path / "ckpt", shards=2)
    read: list[str] = []

    def reading(file: Path) -> dict[str, dict[str, Any]]:
        read.append(file.name)
        return read_header(file)

    monkeypatch.setattr(checkpoints, "read_header", reading)
    check_complete(folder)
    assert read == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def test_no_such_folder() -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        load_checkpoint(Path("/nowhere/step-1"))


def test_the_digest_follows_weights_and_tokenizer_and_nothing_else(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "ckpt")
    first = digest(folder)
    (folder / "training.json").write_text("{}")
    (folder / "DONE").touch()
    assert digest(folder) == first
    (folder / "tokenizer.json").write_text("{}")
    second = digest(folder)
    assert second != first
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert digest(folder) != second


@pytest.mark.parametrize("name", ["", "..", "/", "  "])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be used as a folder name"):
        path_component(name, "training run")


def test_a_name_too_long_for_a_folder_is_refused_before_anything_is_written() -> None:
    assert path_component("n" * 200, "training run") == "n" * 200
    with pytest.raises(CheckpointError, match=r"training run: 'nnn.*has 201 characters.*at most 200"):
        path_component("n" * 201, "training run")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("~nobody-of-this-name/ckpt", "~nobody-of-this-name/ckpt: there is no such user's home"),
        (os.fsdecode(b"/ckpt-\xff"), "the path is not UTF-8; rename"),
    ],
)
def test_a_path_that_cannot_be_used_is_one_line(path: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(Path(path))
    assert len(str(caught.value).splitlines()) == 1


def test_results_below_a_home_that_is_not_there(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write_checkpoint(tmp_path / "run" / "step-1"))
    with pytest.raises(CheckpointError, match="there is no such user's home"):
        checkpoint.folder("~nobody-of-this-name/results")


def test_a_file_beside_the_weights_may_have_any_name(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "ckpt")
    before = digest(folder)
    (folder / os.fsdecode(b"notes-\xff.txt")).touch()
    assert digest(folder) != before


def test_a_hostile_name_stays_one_component() -> None:
    assert path_component("../../etc/$(reboot)", "run") == "..-..-etc-reboot"


def test_the_digest_of_a_large_file_follows_its_ends_and_its_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_HASH_WHOLE", 1 << 10)
    monkeypatch.setattr(checkpoints, "_BLOCK", 64)
    large = tmp_path / "large.safetensors"
    content = bytearray(1 << 14)
    large.write_bytes(content)
    first = digest(tmp_path)
    for place in (0, (len(content) - 64) * 7 // 15, len(content) - 1):
        changed = content.copy()
        changed[place] = 1
        large.write_bytes(changed)
        assert digest(tmp_path) != first
