"""A Hugging Face folder counts when it is complete, and says what is missing when it is not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from evalcore import model_folder
from evalcore.errors import CheckpointError
from evalcore.model_folder import check_complete, digest, read_header
from tiny_folder import write_checkpoint


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

    monkeypatch.setattr(model_folder, "read_header", reading)
    check_complete(folder)
    assert read == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


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


def test_a_file_beside_the_weights_may_have_any_name(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "ckpt")
    before = digest(folder)
    (folder / os.fsdecode(b"notes-\xff.txt")).touch()
    assert digest(folder) != before


def test_the_digest_of_a_large_file_follows_its_ends_and_its_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "_HASH_WHOLE", 1 << 10)
    monkeypatch.setattr(model_folder, "_BLOCK", 64)
    large = tmp_path / "large.safetensors"
    content = bytearray(1 << 14)
    large.write_bytes(content)
    first = digest(tmp_path)
    for place in (0, (len(content) - 64) * 7 // 15, len(content) - 1):
        changed = content.copy()
        changed[place] = 1
        large.write_bytes(changed)
        assert digest(tmp_path) != first
