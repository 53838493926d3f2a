"""Converters: what makes a Hugging Face folder of a checkpoint that is none. One YAML file each.

    # converters/llama-8b.yaml, in include/ or a folder of EVALCORE_INCLUDE
    description: What accelerate writes of llama-8b
    command: [accelerate, merge-weights, "{checkpoint}/pytorch_model_fsdp_0", "{target}"]
    copy_from: /lustre/models/llama-8b

>>> load_converter("dcp").command
('{python}', '-m', 'evalcore.dcp', '{checkpoint}', '{target}')

A file, and no setting: whoever may start a run may give it any settings, and must not run any command by that.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections import deque
from functools import partial
from pathlib import Path
from typing import IO

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator

from evalcore import include
from evalcore.errors import CheckpointError, ConfigError
from evalcore.model_folder import files_beside_weights
from evalcore.processes import start_supervised, stop_supervised
from evalcore.settings import Settings, validated
from evalcore.terminal import without_controls

log = logging.getLogger(__name__)

_KIND = "converters"
_PLACES = re.compile(r"\{(checkpoint|target|python)\}")
_LAST_LINES = 5
_LONGEST_LINE = 1 << 16
_LAST_WORDS = 5.0  # seconds, for what it has printed to arrive


class Converter(Settings):
    """A converter's file.

    command: its arguments; no shell sees them. In each, ``{checkpoint}`` stands for the folder that is converted,
        ``{target}`` for an empty one that is to become a Hugging Face folder, and ``{python}`` for the interpreter
        that evalcore runs with.
    copy_from: a folder whose config, tokenizer and chat template are taken, as far as the command has written none;
        by default the checkpoint's own.
    """

    description: str = ""
    command: tuple[str, ...] = Field(min_length=1)
    copy_from: str | None = Field(None, pattern=r"^/")

    @field_validator("command")
    @classmethod
    def _names_both(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        named = {place for argument in command for place in _PLACES.findall(argument)}
        for place in ("checkpoint", "target"):
            if place not in named:
                raise ValueError(f"{{{place}}} is in none of its arguments")
        return command


class Conversion(BaseModel):
    """A converter as it is where a checkpoint is. digest: of its command and of the files that are copied."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    command: tuple[str, ...]
    copy_from: str | None
    digest: str


def names() -> list[str]:
    """The converters there are."""
    return include.names(_KIND)


def load_converter(name: str) -> Converter:
    """The converter of a name; what it copies may be elsewhere.

    Raises:
        ConfigError: no such converter, or something wrong in its file. A path is none, wherever it leads.
    """
    if name not in names():
        raise ConfigError(f"unknown converter {name!r}; valid: {', '.join(names())}")
    file, content = include.load(_KIND, name)
    return validated(Converter, content, f"converter {name}: {file}")


def conversion(name: str) -> Conversion:
    """What a converter does here.

    Raises:
        ConfigError: as ``load_converter``, or the folder to copy from is not here.
    """
    converter = load_converter(name)
    source = Path(converter.copy_from) if converter.copy_from else None
    if source and not source.is_dir():
        raise ConfigError(
            f"converter {name}: {include.find(_KIND, name)}: copy_from: there is no folder {source} here"
        )
    # Those of the checkpoint itself are part of its own digest.
    files = files_beside_weights(source) if source else []
    copied = [(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]
    digest = hashlib.sha256(orjson.dumps([converter.command, copied])).hexdigest()
    return Conversion(name=name, command=converter.command, copy_from=converter.copy_from, digest=digest)


def make(conversion: Conversion, checkpoint: Path, target: Path, *, lock: IO[bytes]) -> None:
    """Have a checkpoint converted into an empty folder; what the command prints goes to the log.

    lock: kept until all of the command's process group is gone, be it that this process is killed.

    Raises:
        ConfigError: there is no such program here. CheckpointError: the command failed; with its last lines.
    """
    where = f"converter {conversion.name}"
    stands_for = {"checkpoint": str(checkpoint), "target": str(target), "python": sys.executable}
    command = [_PLACES.sub(lambda place: stands_for[place[1]], argument) for argument in conversion.command]
    if not shutil.which(command[0]):
        raise ConfigError(f"{where}: command: there is no program {command[0]} here")
    log.info("%s: %s", where, shlex.join(command))
    last: deque[str] = deque(maxlen=_LAST_LINES)
    process = start_supervised(command, subprocess.PIPE, holding=[lock])
    assert process.stdout
    reader = threading.Thread(target=_repeat, args=(process.stdout, where, last), daemon=True)
    reader.start()
    try:
        code = process.wait()
    finally:
        stop_supervised(process)
        # Not to its end: a daemon that it has started may keep it open.
        reader.join(_LAST_WORDS)
    if code:
        raise CheckpointError(
            f"{where} failed on {checkpoint} (exit code {code}): {' | '.join(last) or 'it printed nothing'}"
        )
    for file in files_beside_weights(Path(conversion.copy_from or checkpoint)):
        if not (target / file.name).exists():
            shutil.copyfile(file, target / file.name)


def _repeat(output: IO[bytes], where: str, last: deque[str]) -> None:
    with output:
        # In pieces: not everything that is printed has lines, and it must not fill the memory.
        for printed in iter(partial(output.readline, _LONGEST_LINE), b""):
            # Of a progress bar, what is there when it is over.
            line = without_controls(printed.decode(errors="replace").rstrip().rpartition("\r")[2]).strip()
            if line:
                last.append(line[:300])
                log.info("%s: %s", where, line[:2000])
