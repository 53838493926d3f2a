"""A checkpoint that is no folder: files somewhere, by name and size, with so much of ``pathlib`` as is needed to
look through it.

>>> tree = Tree("hf://org/repo@step1000", {"config.json": 2}, lambda name, start, length: b"{}")
>>> (tree / "config.json").read_bytes()
b'{}'
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

Read = Callable[[str, int, int], bytes]
"""Name, first byte and length → the bytes, fewer at the end of the file."""


class Size(NamedTuple):
    st_size: int


class Tree:
    """A file or folder of one, or all of it; nothing lies beside or above that."""

    def __init__(self, url: str, files: Mapping[str, int], read: Read, path: str = "") -> None:
        self.url = url
        self.files = files
        self.read = read
        self.path = path
        self.name = PurePosixPath(path).name

    def __str__(self) -> str:
        return f"{self.url}/{self.path}" if self.path else self.url

    def __truediv__(self, name: str) -> Tree:
        return Tree(self.url, self.files, self.read, f"{self.path}/{name}" if self.path else name)

    @property
    def parent(self) -> Tree:
        return Tree(self.url, self.files, self.read, self.path.rpartition("/")[0])

    def is_file(self) -> bool:
        return self.path in self.files

    def is_dir(self) -> bool:
        return not self.path or any(name.startswith(self._prefix()) for name in self.files)

    def iterdir(self) -> Iterator[Tree]:
        below = (name.removeprefix(self._prefix()) for name in self.files if name.startswith(self._prefix()))
        return (self / name for name in sorted({name.partition("/")[0] for name in below}))

    def stat(self) -> Size:
        return Size(self.files[self.path])

    def read_bytes(self) -> bytes:
        return self.read(self.path, 0, self.files[self.path])

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """A stream that fetches what is read of it, and a little more."""
        return io.BufferedReader(_Stream(self))

    def _prefix(self) -> str:
        return f"{self.path}/" if self.path else ""


class _Stream(io.RawIOBase):
    def __init__(self, file: Tree) -> None:
        self.file = file
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed has no name for it in 3.11
        length = min(len(buffer), self.file.stat().st_size - self.position)
        got = self.file.read(self.file.path, self.position, length) if length > 0 else b""
        buffer[: len(got)] = got
        self.position += len(got)
        return len(got)
