"""convert: the checkpoint in the format and precision the server is to have.

Training often keeps float32 or bfloat16 where serving wants another precision::

    evalcore convert ckpt/step-1500 --suite default convert_to=hf:bfloat16

``hf`` alone changes nothing: the checkpoint is checked and served where it lies. One that is no Hugging Face folder
becomes one first, by its converter (``converters``). A conversion runs once for a (checkpoint digest, converter,
target), into a temp folder that is renamed when it is whole.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from evalcore import converters
from evalcore.checkpoints import Checkpoint, digest
from evalcore.completeness import check_hugging_face
from evalcore.errors import CheckpointError, ConfigError, ResultsError
from evalcore.model_folder import (
    check_complete,
    is_model_file,
    read_config,
    read_header,
    weight_files,
)
from evalcore.processes import locked, unwound_by_sigterm
from evalcore.records import write_file

log = logging.getLogger(__name__)

TARGETS = ("hf", "hf:bfloat16", "hf:float16", "hf:float32")

# safetensors' names of the floating dtypes that can be cast, by the name used in config.json.
_SHORT = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_FLOATS = frozenset(_SHORT.values())
_WIDTH = {"BF16": 2, "F16": 2, "F32": 4}
_QUANTISED = ("F8_", "F4", "F6_")


def convert(checkpoint: Checkpoint, target: str, folder: Path) -> Path | None:
    """The model folder to serve: ``checkpoint`` as ``target`` (one of TARGETS), made below ``folder`` if needed.

    None for a model that somebody else serves.

    Raises:
        ConfigError: unknown target. CheckpointError: tensors that cannot be cast, a converter that failed or made
            no complete folder, or a checkpoint that is no longer what ``checkpoint`` describes. ResultsError: disk
            full.
    """
    if target not in TARGETS:
        raise ConfigError(f"convert_to: unknown target {target!r}; valid: {', '.join(TARGETS)}")
    if checkpoint.path is None:
        return None
    if target == "hf" and not checkpoint.conversion:
        return Path(checkpoint.path)
    converted = _converted(checkpoint, target, folder)
    if converted.exists():
        return converted
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One process converts, others wait for it; so what is half made here, a killed one left behind.
        with locked(folder / ".convert.lock", f"converts in {folder}") as lock, unwound_by_sigterm():
            for orphan in folder.glob(".hf-*.tmp"):
                shutil.rmtree(orphan, ignore_errors=True)
            source = Path(checkpoint.path)
            if checkpoint.conversion:
                source = _converted(checkpoint, "hf", folder)
                if not source.exists():
                    _make(checkpoint, source, lock)
            if not converted.exists():
                with _appearing(converted, checkpoint) as temporary:
                    _cast(source, temporary, target.removeprefix("hf:"))
    except OSError as error:
        raise ResultsError(f"cannot convert to {converted}: {error.strerror or error}") from error
    log.info("converted %s to %s: %s", checkpoint.path, target, converted)
    return converted


def _converted(checkpoint: Checkpoint, target: str, folder: Path) -> Path:
    of = "-".join(part[:12] for part in checkpoint.served_id.split("-"))
    return folder / f"{target.replace(':', '-')}-{of}"


@contextmanager
def _appearing(folder: Path, checkpoint: Checkpoint) -> Iterator[Path]:
    """A folder to write into that becomes ``folder`` if it is a whole model, of what ``checkpoint`` describes."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    try:
        temporary.mkdir()
        yield temporary
        check_complete(temporary)
        if digest(Path(str(checkpoint.path)), checkpoint.conversion) != checkpoint.digest:
            raise CheckpointError(
                f"checkpoint {checkpoint.path}: changed while it was converted; run this again"
            )
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make(checkpoint: Checkpoint, folder: Path, lock: IO[bytes]) -> None:
    """Have the checkpoint's converter make a Hugging Face folder."""
    assert checkpoint.conversion
    with _appearing(folder, checkpoint) as temporary:
        converters.make(checkpoint.conversion, Path(str(checkpoint.path)), temporary, lock=lock)
        if link := next(filter(partial(_leads_into, temporary), temporary.rglob("*")), None):
            raise CheckpointError(
                f"converter {checkpoint.conversion.name}: {link.name} is a link by the name of the folder it was "
                "given, which changes: links in there have to be relative, or files"
            )
        try:
            check_hugging_face(temporary)
        except CheckpointError as error:
            said = str(error).replace(f"checkpoint {temporary}: ", "").replace(f"{temporary}/", "")
            if not checkpoint.conversion.copy_from:
                said += "; copy_from in its file takes config and tokenizer from elsewhere"
            raise CheckpointError(
                f"converter {checkpoint.conversion.name} made no complete Hugging Face folder of "
                f"{checkpoint.path}: {said}"
            ) from error


def _leads_into(folder: Path, link: Path) -> bool:
    return link.is_symlink() and link.readlink().is_relative_to(folder)


def _cast(source: Path, target: Path, dtype: str) -> None:
    shards = weight_files(source)
    for file in sorted(source.iterdir()):
        # Not the optimizer's state beside it, nor the same weights in another format.
        if is_model_file(file) and file not in shards and file.name != "config.json":
            shutil.copyfile(file, target / file.name)
    for shard in shards:
        _cast_shard(shard, target / shard.name, dtype)
    config = read_config(source)
    # transformers 5 writes `dtype`, older ones `torch_dtype`; servers read both.
    config["torch_dtype"] = config["dtype"] = dtype
    write_file(target / "config.json", json.dumps(config, indent=2))
    index = target / "model.safetensors.index.json"
    if index.is_file():
        content = json.loads(index.read_bytes())
        content.setdefault("metadata", {})["total_size"] = sum(
            tensor["data_offsets"][1] - tensor["data_offsets"][0]
            for shard in shards
            for tensor in read_header(target / shard.name).values()
        )
        write_file(index, json.dumps(content, indent=2))


def _cast_shard(source: Path, target: Path, dtype: str) -> None:
    # Written tensor by tensor, so that a 5 GB shard needs the memory of its largest tensor.
    data = np.memmap(source, np.uint8, "r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    tensors = read_header(source)
    for name, tensor in tensors.items():
        low, high = tensor["data_offsets"]
        size = high - low
        if tensor["dtype"].startswith(_QUANTISED):
            raise CheckpointError(
                f"{source}: tensor {name} is quantised ({tensor['dtype']}) and cannot be cast to {dtype}; "
                "serve it as it is with convert_to=hf"
            )
        if tensor["dtype"] in _FLOATS:
            size = size // _WIDTH[tensor["dtype"]] * _WIDTH[_SHORT[dtype]]
            tensor = {**tensor, "dtype": _SHORT[dtype]}
        header[name] = {**tensor, "data_offsets": [end, end + size]}
        end += size
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with target.open("wb") as stream:
        stream.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in tensors.values():
            low, high = tensor["data_offsets"]
            raw = data[start + low : start + high]
            stream.write(
                _pack(_unpack(raw, tensor["dtype"]), dtype) if tensor["dtype"] in _FLOATS else raw.tobytes()
            )


def _unpack(raw: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "BF16":  # the upper half of a float32
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return raw.view("<f2" if dtype == "F16" else "<f4").astype(np.float32)


def _pack(values: npt.NDArray[np.float32], dtype: str) -> bytes:
    if dtype != "bfloat16":
        with np.errstate(over="raise"):
            try:
                return values.astype("<f2" if dtype == "float16" else "<f4").tobytes()
            except FloatingPointError:
                raise CheckpointError(
                    f"weights above 65,504 do not fit {dtype}; convert to bfloat16 instead"
                ) from None
    bits = values.view(np.uint32)
    # Round half to even, as hardware does; NaN must stay NaN and not round up to infinity.
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype("<u2").tobytes()
