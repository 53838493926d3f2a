"""A made-up checkpoint in a trainer's own format, and converters for it: without torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

# Written by torch 2.13's dcp.save of two tensors on one rank; __0_0.distcp had 3,154 bytes.
METADATA = (Path(__file__).parent / "evalcore" / "torch-2.13" / "metadata").read_bytes()
LENGTH = 3154

COPY = "import shutil, sys; shutil.copytree({model!r}, sys.argv[2], dirs_exist_ok=True)"
"""A converter's script that takes a model from elsewhere for what it has made of the checkpoint."""


def write_distributed(folder: Path) -> Path:
    """Write a complete checkpoint with a file of its one rank."""
    folder.mkdir(parents=True)
    (folder / ".metadata").write_bytes(METADATA)
    (folder / "__0_0.distcp").write_bytes(bytes(LENGTH))
    return folder


def write_converter(include: Path, name: str, script: str, copy_from: Path | None = None) -> Path:
    """Write ``converters/NAME.yaml`` that runs a Python script, whose arguments are the checkpoint and the target."""
    file = include / "converters" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"command": [sys.executable, "-c", script, "{checkpoint}", "{target}"]}
    # JSON is YAML.
    file.write_text(json.dumps(content | ({"copy_from": str(copy_from)} if copy_from else {})))
    return file
