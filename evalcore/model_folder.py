"""A Hugging Face folder with safetensors weights: what is in it, whether it is complete, and its digest.

>>> folder = Path("include/tiny/checkpoints/step-001800")
>>> read_config(folder)["architectures"], [file.name for file in weight_files(folder)]
(['LlamaForCausalLM'], ['model.safetensors'])

Completeness is checked, never slept for: every shard of the index is there, and each file is as long as its own
header says.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

from evalcore.errors import CheckpointError

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
# A safetensors header is JSON of some 100 bytes a tensor; the format itself caps it at 100 MB.
_MAX_HEADER = 100_000_000
_HASH_WHOLE = 64 << 20
_BLOCK = 1 << 20
_BLOCKS = 16


def check_complete(folder: Path) -> None:
    """Raise CheckpointError, naming the first thing missing, unless every weight is there in full."""
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint {folder}: no such folder")
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"checkpoint {folder}: no config.json; expected a Hugging Face model folder")
    read_config(folder)
    tensors = {shard.name: set(read_header(shard)) for shard in weight_files(folder)}
    index = folder / _INDEX
    if index.is_file():
        for name, shard_name in _weight_map(index).items():
            if name not in tensors.get(shard_name, ()):
                raise CheckpointError(
                    f"checkpoint {folder}: tensor {name} is not in {shard_name}, where {_INDEX} puts it"
                )


def read_config(folder: Path) -> dict[str, Any]:
    """The contents of ``config.json``; CheckpointError if it is no JSON object."""
    return read_object(folder / "config.json")


def read_object(file: Path) -> dict[str, Any]:
    """The contents of a file of settings; CheckpointError if it is no JSON object."""
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{file}: not JSON ({error}); still being written?") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: not a JSON object but {type(content).__name__}")
    return content


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, sorted by name; CheckpointError if one is missing."""
    index = folder / _INDEX
    if index.is_file():
        names = sorted(set(_weight_map(index).values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise CheckpointError(
                f"checkpoint {folder}: {len(missing)} of {len(names)} shards missing, first {missing[0]}; "
                "still being written?"
            )
        return [folder / name for name in names]
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    raise CheckpointError(f"checkpoint {folder}: no weights; expected {_SINGLE} or {_INDEX}")


def read_header(file: Path) -> dict[str, dict[str, Any]]:
    """The tensor table of a safetensors file: name -> {dtype, shape, data_offsets}.

    Raises:
        CheckpointError: the header cannot be read, or the file is not as long as it says.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else None
        if length is None or length > min(size, _MAX_HEADER):
            raise CheckpointError(f"{file}: not a safetensors file, or truncated ({size:,} bytes)")
        try:
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            end = 8 + length + max((t["data_offsets"][1] for t in header.values()), default=0)
        except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
            raise CheckpointError(f"{file}: unreadable safetensors header ({error})") from error
    if size != end:
        raise CheckpointError(
            f"{file}: truncated or damaged, {size:,} bytes where its header says {end:,}; still being written?"
        )
    return dict(header)


def digest(folder: Path) -> str:
    """SHA-256 over the checkpoint's files, by name: 64 hex digits.

    Files above 64 MiB enter with their size and 16 blocks of 1 MiB spread over them: another training
    step changes every block of a weight file, and a 140 GB checkpoint is told apart in a second.
    """
    total = hashlib.sha256()
    files = [file for file in sorted(folder.iterdir()) if is_model_file(file)]
    for file in files:
        # As the bytes they are: a name need not be UTF-8.
        total.update(os.fsencode(file.name) + f"\0{file.stat().st_size}\0".encode())
        total.update(sampled(file, _HASH_WHOLE, _BLOCK, _BLOCKS)[1])
    return total.hexdigest()


def sampled(file: str | Path, whole: int, block: int, blocks: int) -> tuple[int, bytes]:
    """A file's size, and SHA-256 over so many blocks spread over it; over all of it up to ``whole`` bytes."""
    with open(file, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size <= whole:
            return size, hashlib.file_digest(stream, "sha256").digest()
        total = hashlib.sha256()
        for i in range(blocks):
            stream.seek((size - block) * i // (blocks - 1))
            total.update(stream.read(block))
        return size, total.digest()


def is_model_file(file: Path) -> bool:
    """Whether a file changes the model's answers: weights, configs, tokenizer, template; no notes or markers."""
    if not file.is_file():
        return False
    return file.suffix in {".safetensors", ".jinja", ".model", ".txt"} or (
        file.suffix == ".json" and file.name not in {"trainer_state.json", "training.json"}
    )


def files_beside_weights(folder: Path) -> list[Path]:
    """Config, tokenizer, chat template and their like, sorted by name: model files that hold or list no weights."""
    return [
        file
        for file in sorted(folder.iterdir())
        if is_model_file(file) and not file.name.endswith((".safetensors", ".safetensors.index.json"))
    ]


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = dict(json.loads(index.read_bytes())["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index}: unreadable index ({error})") from error
    if not weight_map:
        raise CheckpointError(f"{index}: names no weights; still being written?")
    names = set(map(str, weight_map.values()))
    if bad := [name for name in names if Path(name).name != name]:
        raise CheckpointError(f"{index}: shard {bad[0]!r} lies outside the checkpoint")
    return {str(tensor): str(shard) for tensor, shard in weight_map.items()}
