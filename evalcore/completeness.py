"""Whether a checkpoint is written to its end: checked by what its own files say, never slept for.

>>> check_complete(Path("/ckpt/run-7/step-1500"))      # or a Tree: a repository, an artifact, an object store
<Format.HF: 'hf'>

- Hugging Face: every shard of the index is there, each as long as its header says, and the tokenizer, which is
  saved after the weights.
- Distributed (FSDP, DCP, Megatron's torch_dist): ``.metadata``, which is written last, and every file that it
  names, as long as it says.
- Megatron: ``latest_checkpointed_iteration.txt`` beside the folders has reached this one's iteration.
"""

from __future__ import annotations

import json
import pickle
import re
from enum import StrEnum
from pathlib import Path
from typing import Any

from evalcore import model_folder
from evalcore.errors import CheckpointError

METADATA = ".metadata"
MARKER = "latest_checkpointed_iteration.txt"
_TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt")
_ITERATION = re.compile(r"iter_(\d+)")


class Format(StrEnum):
    HF = "hf"
    DISTRIBUTED = "distributed"
    MEGATRON = "megatron"


def check_complete(folder: Path) -> Format:
    """What kind of checkpoint a folder holds, complete.

    Raises:
        CheckpointError: it is of no known kind, or something is missing; says what.
    """
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint {folder}: no such folder")
    marked = _check_marker(folder)
    if is_hugging_face(folder):
        check_hugging_face(folder)
        return Format.HF
    parts = _distributed_parts(folder)
    for part in parts:
        _check_distributed(part)
    if parts:
        return Format.DISTRIBUTED
    if not marked:
        raise CheckpointError(
            f"checkpoint {folder}: no config.json, no {METADATA} and no {MARKER} beside it; still being written?"
        )
    _check_ranks(folder)
    return Format.MEGATRON


def is_hugging_face(folder: Path) -> bool:
    """Whether a folder is a Hugging Face model's, complete or not.

    One with a config.json that has no such weights, but a distributed checkpoint's, is none: trainers put config and
    tokenizer beside what they write.
    """
    if not (folder / "config.json").is_file():
        return False
    if any(file.name.endswith((".safetensors", ".safetensors.index.json")) for file in folder.iterdir()):
        return True
    # An optimizer's state alone may be written beside a model that is still to come.
    return all(part.name.startswith("optim") for part in _distributed_parts(folder))


def check_hugging_face(folder: Path) -> None:
    """Raise CheckpointError, naming what is missing, unless a model's weights, config and tokenizer are all there."""
    model_folder.check_complete(folder)
    _check_tokenizer(folder)


def _check_tokenizer(folder: Path) -> None:
    files = [folder / name for name in _TOKENIZERS if (folder / name).is_file()]
    if not files and not any(file.name.endswith(".model") for file in folder.iterdir()):
        raise CheckpointError(f"checkpoint {folder}: no tokenizer yet")
    for file in files:
        if file.name.endswith(".json"):
            try:
                json.loads(file.read_bytes())
            except ValueError as error:
                raise CheckpointError(f"{file}: not JSON ({error}); still being written?") from error


def _check_marker(folder: Path) -> bool:
    """Whether Megatron's marker counts here; CheckpointError if it has not reached this iteration."""
    iteration = _ITERATION.fullmatch(folder.name)
    if not iteration or not (marker := folder.parent / MARKER).is_file():
        return False
    reached = marker.read_bytes().decode(errors="replace").strip()
    if not reached.isdecimal() or int(reached) < int(iteration[1]):
        raise CheckpointError(f"checkpoint {folder}: {MARKER} is at {reached or 'nothing'}")
    return True


def _check_ranks(folder: Path) -> None:
    # mp_rank_00/model_optim_rng.pt and its like: nothing says how many, or how long they are.
    files = [file for part in _folders(folder) for file in part.iterdir() if file.is_file()]
    if not files:
        raise CheckpointError(f"checkpoint {folder}: no files of any rank")
    if empty := [file for file in files if not file.stat().st_size]:
        raise CheckpointError(f"{empty[0]}: empty; still being written?")


def _check_distributed(folder: Path) -> None:
    for name, length in _distributed_files(folder / METADATA).items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"checkpoint {folder}: {name} is missing, which {METADATA} names")
        if (size := file.stat().st_size) < length:
            raise CheckpointError(
                f"{file}: truncated, {size:,} bytes where {METADATA} says {length:,}; still being written?"
            )


def _distributed_files(metadata: Path) -> dict[str, int]:
    """The files that torch's ``Metadata.storage_data`` names, and how long each is at least.

    Layout: torch/distributed/checkpoint/metadata.py and filesystem.py (``_StorageInfo``), torch 2.13.
    """
    try:
        with metadata.open("rb") as stream:
            storage = _Unpickler(stream).load().state["storage_data"]
            infos = [info.state for info in storage.values()]
            lengths: dict[str, int] = {}
            for info in infos:
                end = int(info["offset"]) + int(info["length"])
                lengths[info["relative_path"]] = max(end, lengths.get(info["relative_path"], 0))
    except OSError:
        raise
    except Exception as error:  # a torn or foreign pickle can raise anything
        raise CheckpointError(f"{metadata}: unreadable ({type(error).__name__}: {error})") from error
    if bad := [name for name in lengths if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise CheckpointError(f"{metadata}: file {bad[0]!r} lies outside the checkpoint")
    if not lengths:
        raise CheckpointError(f"{metadata}: names no files")
    return lengths


class _Record:
    """Stands for an object of any class: keeps the state it was pickled with, and does nothing."""

    state: Any = None

    def __new__(cls, *_: object) -> _Record:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Of an OrderedDict, for instance."""


class _Unpickler(pickle.Unpickler):
    """Reads a pickle without torch, and without importing or calling what it names."""

    def find_class(self, module: str, name: str) -> Any:
        return _Record

    def persistent_load(self, pid: Any) -> None:
        return None


def _distributed_parts(folder: Path) -> list[Path]:
    return [part for part in (folder, *_folders(folder)) if (part / METADATA).is_file()]


def _folders(folder: Path) -> list[Path]:
    return sorted((part for part in folder.iterdir() if part.is_dir()), key=lambda part: part.name)
