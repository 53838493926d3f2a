"""A Hugging Face model's weights out of a torch.distributed checkpoint, as FSDP trainers write them.

    python -m evalcore.dcp /ckpt/run/step-1500 /ckpt/run/step-1500-hf

Run by the converter ``dcp``. Tensors that are called as in the Hugging Face model, be it behind a prefix such as
accelerate's ``model.``, become safetensors under those names, in files of some 5 GB: so much is in memory at once.
The optimizer's state is not read. Needs torch, and neither GPUs nor the processes that wrote it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalcore.completeness import METADATA

_ANCHOR = "model.embed_tokens.weight"
"""What ends the name of a tensor that most decoders of transformers have; before it stands the prefix."""
_FILE = 5 << 30


def convert(checkpoint: Path, target: Path, prefix: str | None = None) -> None:
    """Write the model's tensors, those below a prefix, into a folder. SystemExit if it is unclear which they are."""
    # Here: evalcore itself does without.
    import torch
    import torch.distributed.checkpoint as dcp
    from safetensors.torch import save_file

    part, prefix, tensors = _model(checkpoint, prefix)
    files = list(_dealt({n: it.size.numel() * it.properties.dtype.itemsize for n, it in tensors.items()}))
    weight_map: dict[str, str] = {}
    for number, names in enumerate(files, 1):
        read = {name: torch.empty(tensors[name].size, dtype=tensors[name].properties.dtype) for name in names}
        dcp.load(read, storage_reader=dcp.FileSystemReader(part), no_dist=True)
        file = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        save_file(
            {name.removeprefix(prefix): it for name, it in read.items()}, target / file, {"format": "pt"}
        )
        weight_map |= {name.removeprefix(prefix): file for name in names}
        print(f"{file}: {len(read)} tensors", flush=True)
    total = sum(it.size.numel() * it.properties.dtype.itemsize for it in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def _model(checkpoint: Path, prefix: str | None) -> tuple[Path, str, Mapping[str, Any]]:
    """The folder below a checkpoint's that has the model, its prefix, and what is known of its tensors."""
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    found = {}
    for part in sorted(file.parent for file in checkpoint.rglob(METADATA)):
        known = FileSystemReader(part).read_metadata().state_dict_metadata.items()
        tensors = {
            n: it for n, it in known if isinstance(it, TensorStorageMetadata) and not n.startswith("optim")
        }
        anchors = [name.removesuffix(_ANCHOR) for name in tensors if name.endswith(_ANCHOR)]
        for start in anchors if prefix is None else [prefix]:
            if below := {name: it for name, it in tensors.items() if name.startswith(start)}:
                found[part, start] = below
    if len(found) != 1:
        models = ", ".join(f"--prefix {start!r} in {part}" for part, start in found)
        wanted = f"…{_ANCHOR}" if prefix is None else f"{prefix}…"
        said = f"more than one model: {models}" if models else f"no tensor is called {wanted}"
        raise SystemExit(f"{checkpoint}: {said}; name its folder, and --prefix")
    return next((part, start, below) for (part, start), below in found.items())


def _dealt(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """The names in their order, for files of ``_FILE`` bytes: the tensor that reaches that is a file's last."""
    names, size = [], 0
    for name in sizes:
        names.append(name)
        size += sizes[name]
        if size >= _FILE:
            yield names
            names, size = [], 0
    if names:
        yield names


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Safetensors weights out of a torch.distributed checkpoint.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--prefix", help="what the names of the model's tensors begin with, as app.model.")
    convert(**vars(parser.parse_args()))
