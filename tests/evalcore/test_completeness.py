"""A checkpoint of any kind is complete only when its last byte is there."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest

from distributed_checkpoint import LENGTH, METADATA
from distributed_checkpoint import write_distributed as distributed
from evalcore.completeness import Format, check_complete
from evalcore.errors import CheckpointError
from tiny_folder import write_checkpoint


def hf(folder: Path, shards: int = 2) -> Path:
    write_checkpoint(folder, shards)
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_hugging_face(tmp_path: Path) -> None:
    assert check_complete(hf(tmp_path / "step-1")) is Format.HF


def test_every_truncation_of_a_shard_and_of_the_tokenizer_is_noticed(tmp_path: Path) -> None:
    folder = hf(tmp_path / "step-1")
    for file in (folder / "model-00002-of-00002.safetensors", folder / "tokenizer.json"):
        whole = file.read_bytes()
        for length in range(len(whole)):
            file.write_bytes(whole[:length])
            with pytest.raises(CheckpointError, match=file.name):
                check_complete(folder)
        file.write_bytes(whole)
    check_complete(folder)


def test_the_index_names_a_shard_that_is_not_there(tmp_path: Path) -> None:
    folder = hf(tmp_path / "step-1")
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="1 of 2 shards missing, first model-00001-of-00002"):
        check_complete(folder)


def test_the_tokenizer_is_saved_last(tmp_path: Path) -> None:
    folder = hf(tmp_path / "step-1")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="no tokenizer yet"):
        check_complete(folder)
    for name in ("tokenizer.model", "vocab.json", "vocab.txt"):
        (folder / name).write_text("{}")
        assert check_complete(folder) is Format.HF
        (folder / name).unlink()


@pytest.mark.parametrize("inside", ["", "model", "weights"])
def test_distributed(tmp_path: Path, inside: str) -> None:
    folder = tmp_path / "step-100"
    distributed(folder / inside)
    assert check_complete(folder) is Format.DISTRIBUTED


@pytest.mark.parametrize("inside", ["", "pytorch_model_fsdp_0"])
def test_config_and_tokenizer_beside_a_distributed_checkpoint_make_no_hugging_face_folder(
    tmp_path: Path, inside: str
) -> None:
    folder = tmp_path / "step-100"
    distributed(folder / inside)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    assert check_complete(folder) is Format.DISTRIBUTED
    # Whose weights come last, after the optimizer's state for instance.
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no weights; expected model\.safetensors"):
        check_complete(folder)


def test_an_optimizers_state_alone_is_no_checkpoint_in_the_place_of_weights_to_come(tmp_path: Path) -> None:
    folder = tmp_path / "step-100"
    distributed(folder / "optimizer_0")
    (folder / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no weights; expected model\.safetensors"):
        check_complete(folder)
    distributed(folder / "pytorch_model_fsdp_0")
    assert check_complete(folder) is Format.DISTRIBUTED


def test_a_distributed_checkpoint_without_its_last_file_or_byte(tmp_path: Path) -> None:
    folder = distributed(tmp_path / "step-100")
    (folder / "__0_0.distcp").write_bytes(bytes(LENGTH - 1))
    with pytest.raises(
        CheckpointError, match=r"__0_0\.distcp: truncated, 3,153 bytes where .metadata says 3,154"
    ):
        check_complete(folder)
    (folder / "__0_0.distcp").unlink()
    with pytest.raises(CheckpointError, match=r"__0_0\.distcp is missing"):
        check_complete(folder)
    (folder / ".metadata").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json, no \.metadata"):
        check_complete(folder)


def test_a_file_may_be_longer_than_what_is_named_of_it(tmp_path: Path) -> None:
    folder = distributed(tmp_path / "step-1")
    with (folder / "__0_0.distcp").open("ab") as file:
        file.write(bytes(8))
    assert check_complete(folder) is Format.DISTRIBUTED


def test_metadata_that_names_nothing_is_not_complete(tmp_path: Path) -> None:
    folder = distributed(tmp_path / "step-1")
    (folder / ".metadata").write_bytes(pickle.dumps(_Metadata()))
    with pytest.raises(CheckpointError, match="metadata: names no files"):
        check_complete(folder)


@pytest.mark.parametrize("order", [1, -1])
def test_a_file_is_as_long_as_the_last_of_what_it_holds_wherever_that_is_named(
    tmp_path: Path, order: int
) -> None:
    folder = distributed(tmp_path / "step-1")
    stored = [_Stored("__0_0.distcp", 0, 100), _Stored("__0_0.distcp", 100, 50)]
    (folder / ".metadata").write_bytes(pickle.dumps(_Metadata(*stored[::order])))
    (folder / "__0_0.distcp").write_bytes(bytes(150))
    assert check_complete(folder) is Format.DISTRIBUTED
    (folder / "__0_0.distcp").write_bytes(bytes(149))
    with pytest.raises(CheckpointError, match=r"truncated, 149 bytes where \.metadata says 150"):
        check_complete(folder)


@pytest.mark.parametrize("name", ["{}/step-2/__0_0.distcp", "../step-2/__0_0.distcp"])
def test_a_file_outside_is_none_of_the_checkpoints(tmp_path: Path, name: str) -> None:
    folder = distributed(tmp_path / "step-1")
    distributed(tmp_path / "step-2")
    stored = _Stored(name.format(tmp_path), 0, 1)
    (folder / ".metadata").write_bytes(pickle.dumps(_Metadata(stored)))
    with pytest.raises(CheckpointError, match="lies outside the checkpoint"):
        check_complete(folder)


class _Stored:
    """As torch's _StorageInfo."""

    def __init__(self, path: str, offset: int, length: int) -> None:
        self.relative_path, self.offset, self.length = path, offset, length


class _Metadata:
    """As torch's Metadata."""

    def __init__(self, *stored: _Stored) -> None:
        self.storage_data = dict(enumerate(stored))


def test_what_cannot_be_read_is_not_said_to_be_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = distributed(tmp_path / "step-1")

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(PermissionError):
        check_complete(folder)


def test_the_marker_is_of_iterations_alone(tmp_path: Path) -> None:
    hf(tmp_path / "iter_0000020-hf")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("10")
    assert check_complete(tmp_path / "iter_0000020-hf") is Format.HF


def test_both_halves_of_a_distributed_checkpoint_count(tmp_path: Path) -> None:
    distributed(tmp_path / "step-100" / "model")
    (distributed(tmp_path / "step-100" / "optim") / "__0_0.distcp").unlink()
    with pytest.raises(CheckpointError, match=r"optim: __0_0\.distcp is missing"):
        check_complete(tmp_path / "step-100")


def test_every_torn_metadata_is_noticed(tmp_path: Path) -> None:
    folder = distributed(tmp_path / "step-100")
    for length in range(len(METADATA)):
        (folder / ".metadata").write_bytes(METADATA[:length])
        with pytest.raises(CheckpointError, match="unreadable"):
            check_complete(folder)


class Malicious:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.file),)


def test_what_a_pickle_names_is_not_called(tmp_path: Path) -> None:
    folder = distributed(tmp_path / "step-100")
    for content in (Malicious(tmp_path / "harm"), OrderedDict(a=Malicious(tmp_path / "harm")), [1], None):
        (folder / ".metadata").write_bytes(pickle.dumps(content))
        with pytest.raises(CheckpointError, match="unreadable"):
            check_complete(folder)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("marker", "message"),
    [("900", "is at 900"), ("release", "is at release"), ("", "is at nothing"), ("1000", ""), ("1100\n", "")],
)
@pytest.mark.parametrize("write", [distributed, hf])
def test_megatrons_marker_goes_before(tmp_path: Path, write: object, marker: str, message: str) -> None:
    folder = write(tmp_path / "iter_0001000")  # type: ignore[operator]
    (tmp_path / "latest_checkpointed_iteration.txt").write_text(marker)
    if not message:
        check_complete(folder)
        return
    with pytest.raises(CheckpointError, match=message):
        check_complete(folder)


def test_megatron_of_old(tmp_path: Path) -> None:
    rank = tmp_path / "iter_0001000" / "mp_rank_00" / "model_optim_rng.pt"
    rank.parent.mkdir(parents=True)
    rank.write_bytes(b"weights")
    with pytest.raises(CheckpointError, match=r"no latest_checkpointed_iteration\.txt beside it"):
        check_complete(rank.parents[1])
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("1000")
    assert check_complete(rank.parents[1]) is Format.MEGATRON
    rank.write_bytes(b"")
    with pytest.raises(CheckpointError, match="empty"):
        check_complete(rank.parents[1])
    rank.unlink()
    with pytest.raises(CheckpointError, match="no files of any rank"):
        check_complete(rank.parents[1])
