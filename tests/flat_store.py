"""An object store as fsspec shows it: keys and contents, no folders but those that keys have in their names.

>>> store = FlatStore({"bucket/run/step-1/config.json": b"{}", "bucket/run/step-1/": b""})
>>> [entry["name"] for entry in store.ls("bucket/run/step-1")]
['bucket/run/step-1/', 'bucket/run/step-1/config.json']

As s3fs does, it shows the empty objects that consoles make of folders as files, and keeps what it has listed.
"""

from __future__ import annotations

import hashlib
from typing import Any

from fsspec import AbstractFileSystem


class FlatStore(AbstractFileSystem):
    """objects: by key, bucket and all. read: key, start and end of what was asked for. error: raised instead."""

    cachable = False

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__()
        self.objects = objects
        self.read: list[tuple[str, int, int]] = []
        self.error: Exception | None = None
        self.listed: dict[str, list[dict[str, Any]]] = {}

    def invalidate_cache(self, path: str | None = None) -> None:
        self.listed.clear()

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[dict[str, Any]]:
        if path not in self.listed:
            self.listed[path] = self._ls(f"{path}/")
        return self.listed[path]

    def _ls(self, prefix: str) -> list[dict[str, Any]]:
        self._may_fail()
        below = {key: key.removeprefix(prefix) for key in sorted(self.objects) if key.startswith(prefix)}
        if not below:
            raise FileNotFoundError(prefix)
        folders = {prefix + rest.partition("/")[0] for rest in below.values() if "/" in rest}
        files = [self._entry(key) for key, rest in below.items() if "/" not in rest]
        return [*files, *({"name": name, "size": 0, "type": "directory"} for name in sorted(folders))]

    def find(self, path: str, detail: bool = False, **_: Any) -> dict[str, dict[str, Any]]:  # type: ignore[override]
        self._may_fail()
        return {key: self._entry(key) for key in sorted(self.objects) if key.startswith(f"{path}/")}

    def cat_file(self, path: str, start: int = 0, end: int = 0, **_: Any) -> bytes:  # type: ignore[override]
        self._may_fail()
        if path not in self.objects:
            raise FileNotFoundError(path)
        if start >= len(self.objects[path]) or start >= end:
            raise OSError(22, "InvalidRange")  # as S3, which has no words for an empty one
        self.read.append((path, start, end))
        return self.objects[path][start:end]

    def _entry(self, key: str) -> dict[str, Any]:
        content = self.objects[key]
        return {
            "name": key,
            "size": len(content),
            "type": "file",
            "ETag": hashlib.md5(content).hexdigest(),
        }

    def _may_fail(self) -> None:
        if self.error:
            raise self.error
