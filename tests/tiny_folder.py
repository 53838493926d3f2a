"""A complete model folder of a few hundred bytes, for tests that need a checkpoint but no model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

TENSORS = {
    "a.weight": np.array([[1.0, -2.5], [0.1, 65504.0]], np.float32),
    "b.weight": np.array([3.0, np.nan, 1e-3], np.float32),
    "c.ids": np.array([1, 2, 3], np.int64),
}


def write_checkpoint(folder: Path, shards: int = 1) -> Path:
    """Write config.json and TENSORS in one file, or dealt over shards with an index."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    if shards == 1:
        save_file(TENSORS, folder / "model.safetensors")
        return folder
    files = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
    weight_map = {name: files[i % shards] for i, name in enumerate(TENSORS)}
    for file in files:
        save_file({n: t for n, t in TENSORS.items() if weight_map[n] == file}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
